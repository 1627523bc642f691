"""The machine's movers: words or elements, from the scratch memory to a queue and back.

Each takes a MOVE command of its channel (docs/machine.md) with ``start``, while it is not ``busy``.
``fault``: an address that is none. Of those that feed, ``ahead``: there are two items for the unit,
so that if it takes one, there is another one in the next cycle; ``ends``: there will be no more.
"""

from amaranth.hdl import *
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import delayed, register
from .machine_layouts import Command
from .scratch import BYTES, READ_LATENCY, ReadPort, write_request
from .walk import Walk

__all__ = ["ELEMENT", "QUEUE_DEPTH", "ElementFeeder", "ElementTaker", "WordFeeder", "WordTaker"]

QUEUE_DEPTH = 16
"""Items that wait for a unit, or that it has given: what an ECP5's LUT RAM holds."""

ELEMENT = data.StructLayout({"data": 32, "size": 2, "last": 1})
"""An element of 2^size bytes, right-aligned, zeros above; ``last`` of its row."""

_CONTROL = {"command": In(Command), "start": In(1), "busy": Out(1), "fault": Out(1)}


def words_of(shape):
    """How many words of the memory an item takes."""
    return -(-Shape.cast(shape).width // (8 * BYTES))


class WordFeeder(wiring.Component):
    """Feeds a stream with items of consecutive words.

    Parameters
    ----------
    shape : shape-castable
        An item's; it takes as many words as it needs, the lowest first.
    width : int
        Bits of a word's address.

    Timing
    ------
    A word per cycle, if the memory grants it.
    """

    def __init__(self, shape, *, width):
        self.width = width
        super().__init__({
            **_CONTROL, "read": Out(ReadPort(width)), "o": Out(stream.Signature(shape)),
            "ahead": Out(1), "ends": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        shape = self.o.payload.shape()
        words = words_of(shape)
        m.submodules.queue = queue = fifo.SyncFIFO(
            width=Shape.cast(shape).width, depth=QUEUE_DEPTH)
        items = Signal(32)
        address = register(32)
        place = Signal(range(max(2, words)))   # word of its item that is fetched next
        on_way = Signal(range(READ_LATENCY + 1))
        room = Signal(range(QUEUE_DEPTH + 1), init=QUEUE_DEPTH)
        more = Signal()
        ends_item = place == words - 1
        is_legal = ~(address[:3].any() | address[3 + self.width:].any())
        read = self.read
        takes = self.o.valid & self.o.ready
        m.d.comb += [
            read.wants.eq(items.any() & is_legal & (room.any() | (place != 0))),
            read.address.eq(address[3:]),
            self.fault.eq(items.any() & ~is_legal),
            self.busy.eq(items.any() | on_way.any()),
            self.ahead.eq(queue.level >= 2), self.ends.eq(~(self.busy | more)),
            self.o.valid.eq(queue.r_rdy), queue.r_en.eq(takes),
            Value.cast(self.o.payload).eq(queue.r_data),
        ]
        m.d.sync += [
            on_way.eq(on_way + read.granted - read.valid),
            room.eq(room + takes - (read.granted & (place == 0))),
        ]
        with m.If(self.start):
            m.d.sync += [items.eq(Cat(self.command.inner, self.command.outer)),
                         address.eq(self.command.address), more.eq(self.command.more)]
        with m.Elif(read.granted):
            m.d.sync += [address.eq(address + BYTES), place.eq(Mux(ends_item, 0, place + 1)),
                         items.eq(items - ends_item)]
        self._join(m, queue, words)
        return m

    def _join(self, m, queue, words):
        """Words that have come become items."""
        read = self.read
        if words == 1:
            m.d.comb += [queue.w_data.eq(read.data), queue.w_en.eq(read.valid)]
            return
        place = Signal(range(max(2, words)))
        before = register(8 * BYTES * (words - 1))
        ends_item = place == words - 1
        m.d.comb += [queue.w_data.eq(Cat(before, read.data)),
                     queue.w_en.eq(read.valid & ends_item)]
        with m.If(read.valid):
            m.d.sync += [place.eq(Mux(ends_item, 0, place + 1)),
                         before.eq(Cat(before, read.data)[8 * BYTES:])]


class ElementFeeder(wiring.Component):
    """Feeds a stream with elements, by their addresses.

    Parameters
    ----------
    width : int
        Bits of a word's address.

    Members
    -------
    o : Out(stream of ELEMENT)
    ends : Out(1)
        No more will come, and none waits.

    Timing
    ------
    An element per cycle, if the memory grants it.
    """

    def __init__(self, *, width):
        self.width = width
        super().__init__({
            **_CONTROL, "read": Out(ReadPort(width)), "o": Out(stream.Signature(ELEMENT)),
            "ends": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.walk = walk = Walk(width=self.width)
        m.submodules.queue = queue = fifo.SyncFIFO(
            width=Shape.cast(ELEMENT).width, depth=QUEUE_DEPTH)
        on_way = Signal(range(READ_LATENCY + 1))
        room = Signal(range(QUEUE_DEPTH + 1), init=QUEUE_DEPTH)
        more = Signal()
        read = self.read
        takes = self.o.valid & self.o.ready
        m.d.comb += [
            walk.command.eq(self.command), walk.start.eq(self.start),
            walk.advance.eq(read.granted),
            read.wants.eq(walk.active & walk.legal & room.any()),
            read.address.eq(walk.place.word),
            self.fault.eq(walk.active & ~walk.legal),
            self.busy.eq(walk.active | on_way.any() | self.o.valid),
            self.ends.eq(~(self.busy | more)),
            self.o.valid.eq(queue.r_rdy), queue.r_en.eq(takes),
            Value.cast(self.o.payload).eq(queue.r_data),
        ]
        m.d.sync += [
            on_way.eq(on_way + read.granted - read.valid),
            room.eq(room + takes - read.granted),
        ]
        with m.If(self.start):
            m.d.sync += more.eq(self.command.more)
        # The word comes a known time after its place.
        place = delayed(m, walk.place, READ_LATENCY, "place")
        element = Signal(ELEMENT)
        shifted = Signal(32)
        m.d.comb += [
            shifted.eq(read.data >> (place.byte << 3)),
            element.data.eq(Mux(place.size == 0, shifted[:8],
                                Mux(place.size == 1, shifted[:16], shifted))),
            element.size.eq(place.size), element.last.eq(place.last),
            queue.w_data.eq(element), queue.w_en.eq(read.valid),
        ]
        return m


class WordTaker(wiring.Component):
    """Writes items that come to consecutive words.

    Parameters
    ----------
    shape : shape-castable
        An item's; it takes as many words as it needs, the lowest first, zeros above.
    width : int
        Bits of a word's address.

    Members
    -------
    i : In(stream of shape)
        Taken while there is a command for it.
    expects : Out(1)
        There is a command, or will be: the last one's ``more``.
    """

    def __init__(self, shape, *, width):
        self.width = width
        super().__init__({
            **_CONTROL, "i": In(stream.Signature(shape)),
            "write": Out(stream.Signature(write_request(width))), "expects": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        payload = Value.cast(self.i.payload)
        words = words_of(self.i.payload.shape())
        items = Signal(32)
        address = register(32)
        place = Signal(range(max(2, words)))
        ends_item = place == words - 1
        is_legal = ~(address[:3].any() | address[3 + self.width:].any())
        moves = self.write.valid & self.write.ready
        padded = Signal(8 * BYTES * words)
        more = Signal()
        m.d.comb += [
            self.expects.eq(self.busy | more),
            padded.eq(payload),
            self.write.valid.eq(self.i.valid & items.any() & is_legal),
            self.write.payload.address.eq(address[3:]),
            self.write.payload.data.eq(padded.word_select(place, 8 * BYTES)),
            self.write.payload.bytes.eq((1 << BYTES) - 1),
            self.i.ready.eq(moves & ends_item),
            self.fault.eq(items.any() & ~is_legal),
            self.busy.eq(items.any()),
        ]
        with m.If(self.start):
            m.d.sync += [items.eq(Cat(self.command.inner, self.command.outer)),
                         address.eq(self.command.address), more.eq(self.command.more)]
        with m.Elif(moves):
            m.d.sync += [address.eq(address + BYTES), place.eq(Mux(ends_item, 0, place + 1)),
                         items.eq(items - ends_item)]
        return m


class ElementTaker(wiring.Component):
    """Writes elements that come to their addresses.

    Parameters
    ----------
    width : int
        Bits of a word's address.

    Members
    -------
    i : In(stream of 32 bits)
        Elements, right-aligned; of each row so many as the command's ``mask`` says are dropped
        behind the others. Taken while there is a command for them.
    """

    def __init__(self, *, width):
        self.width = width
        super().__init__({
            **_CONTROL, "i": In(stream.Signature(32)),
            "write": Out(stream.Signature(write_request(width))),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.walk = walk = Walk(width=self.width)
        skip = register(16)
        left = Signal(16)      # still to be dropped
        place, element = walk.place, self.i.payload
        drops = left.any()
        moves = self.write.valid & self.write.ready
        bytes_of = {0: 0b1, 1: 0b11, 2: 0b1111}
        copies = {0: element[:8].replicate(8), 1: element[:16].replicate(4),
                  2: element.replicate(2)}
        with m.Switch(place.size):
            for size, enables in bytes_of.items():
                with m.Case(size):
                    m.d.comb += [self.write.payload.data.eq(copies[size]),
                                 self.write.payload.bytes.eq(Const(enables, 8) << place.byte)]
        m.d.comb += [
            walk.command.eq(self.command), walk.start.eq(self.start), walk.advance.eq(moves),
            self.write.valid.eq(self.i.valid & walk.active & walk.legal & ~drops),
            self.write.payload.address.eq(place.word),
            self.i.ready.eq(moves | drops),
            self.fault.eq(walk.active & ~walk.legal),
            self.busy.eq(walk.active | drops),
        ]
        with m.If(self.start):
            m.d.sync += skip.eq(self.command.mask)
        with m.If(moves & place.last):
            m.d.sync += left.eq(skip)
        with m.Elif(drops & self.i.valid):
            m.d.sync += left.eq(left - 1)
        return m
