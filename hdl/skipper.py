"""The zero skipper: turns a row's mask and its packed non-zero values into the elements that count.

     i_mask ---> window --- next chunk that counts ---> chunk --- lowest bit ---> element ---> o
     i_values ----------------------------------------------------------- value -----^

A window goes by chunks of 8 elements, so that what decides about the next cycle is 8 bits twice
instead of 64: the chunks that are left, and the elements of a chunk that are left.
"""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import any_of, register, register_like
from .bitstream import check_block
from .buffer import StreamBuffer
from .formats import FormatCode
from .geometry import SCALE_BLOCKS
from .layouts import WORD_WIDTH, mask_window, skipper_token
from .queue import Queue
from .unpacker import ValueUnpacker, element_layout

__all__ = ["SKIPPER_LATENCY", "Skipper"]

SKIPPER_LATENCY = 13
"""Cycles from a window to its first token."""

CHUNK = 8


def chunk_layout(max_k):
    """A chunk of a window; ``place``: its number in the row. The other fields as in the window."""
    return data.StructLayout({
        "counts": CHUNK, "nonzero": CHUNK, "last": 1, "format": FormatCode,
        "place": range(max(2, max_k // CHUNK)), "scale": 8})


def without_lowest(bits):
    """``bits`` without the lowest one that is set."""
    return Cat(bit & bits[:place].any() for place, bit in enumerate(bits))


def encode(selected):
    """The number of the only bit that is set, 0 if none is."""
    return Cat(any_of(bit for n, bit in enumerate(selected) if n >> place & 1)
               for place in range((len(selected) - 1).bit_length()))


def chunks_of(bits):
    """The chunks of a window's bits."""
    return [bits.word_select(n, CHUNK) for n in range(len(bits) // CHUNK)]


def at_least(number, bits):
    """Whether so many bits are set: of eight, two are found in two levels of four-input functions,
    and three in three.
    """
    if number == 0:
        return Const(1)
    if number > len(bits):
        return Const(0)
    if len(bits) == 1:
        return bits
    half = len(bits) // 2
    return any_of(at_least(n, bits[:half]) & at_least(number - n, bits[half:])
                  for n in range(number + 1))


def one_of(selected, values):
    """The value whose bit of ``selected`` is set, 0 if none is; values of equal width."""
    return any_of(Mux(bit, values[n], 0) for n, bit in enumerate(selected))


class Picker(wiring.Component):
    """Gives the bits that are set one by one, the lowest first; of none, one that is no bit.

    What is given next, and whether it may be, is worked out in the cycle before: so that no search
    and no stall lies between a register and what it decides.

    Parameters
    ----------
    width : int
        Bits.
    shape : shape-castable
        What goes along with them.

    Members
    -------
    i : In(stream of StructLayout({"bits": width, "along": shape}))
        Bits, and what they belong to.
    go : In(1)
        A bit may be given in the next cycle.
    o : Out(stream of StructLayout({"bit": width, "is_last": 1, "along": shape}), always ready)
        ``bit``: the one that is meant, alone.

    Timing
    ------
    Latency 2 cycles while ``go``; max(1, bits that are set) cycles, and the next bits without a
    pause. ``i.ready`` is a register, ``o`` follows from registers.
    """

    def __init__(self, *, width, shape):
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({"bits": width, "along": shape}))),
            "go": In(1),
            "o": Out(stream.Signature(
                data.StructLayout({"bit": width, "is_last": 1, "along": shape}),
                always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        # What is given, what is left of it, and the same of the bits that come next. ``ends``: what
        # is given is the last bit, or nothing; ``left_ends``: of what is left, the same.
        s1_valid = Signal()
        s1 = register_like(self.o.payload)
        s1_left = register_like(self.i.payload.bits)
        s1_left_ends = register()
        valid = Signal()
        o = register_like(s1)
        left = register_like(s1_left)
        left_ends = register()
        ends = Signal(init=1)
        goes = Signal()
        moves = Signal()
        ready = Signal(init=1)
        ends_next = Signal()
        moves_next = Signal()
        bits = self.i.payload.bits
        m.d.comb += [
            self.o.payload.eq(o),
            self.o.payload.is_last.eq(ends),
            self.o.valid.eq(valid & goes),
            self.i.ready.eq(ready),
            ends_next.eq(Mux(moves, s1.is_last | ~s1_valid, Mux(goes, left_ends, ends))),
            moves_next.eq(self.go & ends_next),
        ]

        def pick(bits):
            """The lowest bit, the others, and whether those are one at most."""
            others = without_lowest(bits)
            return Cat(bits & ~others, others, ~at_least(3, bits))

        m.d.sync += [
            ends.eq(ends_next), goes.eq(self.go), moves.eq(moves_next),
            ready.eq(~Mux(ready, self.i.valid, s1_valid) | moves_next),
        ]
        with m.If(ready):
            m.d.sync += [
                s1_valid.eq(self.i.valid), s1.along.eq(self.i.payload.along),
                s1.is_last.eq(~at_least(2, bits)),
                Cat(s1.bit, s1_left, s1_left_ends).eq(pick(bits)),
            ]
        with m.If(moves):
            m.d.sync += [valid.eq(s1_valid), o.eq(s1), left.eq(s1_left), left_ends.eq(s1_left_ends)]
        with m.Elif(goes):
            m.d.sync += Cat(o.bit, left, left_ends).eq(pick(left))
        return m


class Skipper(wiring.Component):
    """Gives one element that counts per cycle, in index order, whatever lies between them.

    An element counts if its ``nonzero`` or its ``force`` bit is set. A value is taken from
    ``i_values`` for each ``nonzero`` bit; an element that is only forced has the value 0 and takes
    none. A window in which nothing counts gives one ``empty`` token, so that every cycle of the
    count below is a token and no stall of ``o`` can hide one.

    Parameters
    ----------
    block : int
        Elements of a mask window: 8, 16, 32 or 64.
    max_k : int
        Longest row in elements: a power of two, at least ``block``. A longer row's indices wrap.
    scale_block : int
        Elements that share a scale, at most ``block``, at least 8; 0: there are no scales.

    Members
    -------
    i_mask : In(stream of mask_window(block, scale_block))
        The row's windows, first element first; a row of no elements is one window of zeros.
    i_values : In(stream of unsigned(64))
        The values of the elements that are not zero, in index order, packed by the width of the
        row's format; each row begins a new word.
    o : Out(stream of skipper_token(max_k, scale_block))
        The elements that count.

    Timing
    ------
    A window takes max(1, elements that count) cycles, and the next one follows without a bubble:
    a row takes the sum of that over its windows. From a window's transfer to its first token's:
    ``SKIPPER_LATENCY`` (13) cycles. ``o`` and ``i_mask.ready`` come from registers;
    ``i_values.ready`` follows from registers, and from no port.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not an int, or not a legal one.
    """

    def __init__(self, *, block, max_k, scale_block=0):
        self.block = check_block(block)
        if not isinstance(max_k, int) or isinstance(max_k, bool):
            raise TypeError(f"max_k is an int; got {max_k!r}")
        if max_k < block or max_k & (max_k - 1):
            raise ValueError(f"max_k is a power of two and at least block ({block}); got {max_k}")
        if scale_block not in SCALE_BLOCKS or scale_block > block:
            raise ValueError(f"scale_block is one of {SCALE_BLOCKS} and at most block ({block}); "
                             f"got {scale_block}")
        self.max_k, self.scale_block = max_k, scale_block
        super().__init__({
            "i_mask": In(stream.Signature(mask_window(block, scale_block))),
            "i_values": In(stream.Signature(WORD_WIDTH)),
            "o": Out(stream.Signature(skipper_token(max_k, scale_block))),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.chunks = chunks = Queue(chunk_layout(self.max_k), after=7)
        self._window(m, chunks)

        # The chunk under way, element by element.
        m.submodules.elements = elements = Picker(width=CHUNK, shape=chunk_layout(self.max_k))
        m.d.comb += [
            elements.i.valid.eq(chunks.o.valid),
            chunks.o.ready.eq(elements.i.ready),
            elements.i.payload.bits.eq(chunks.o.payload.counts),
            elements.i.payload.along.eq(chunks.o.payload),
        ]
        bit, chunk = elements.o.payload.bit, elements.o.payload.along

        # The element, about to meet its value: from here on nothing stalls.
        m.submodules.unpacker = unpacker = ValueUnpacker(
            max_k=self.max_k, scale_block=self.scale_block)
        wiring.connect(m, wiring.flipped(self.i_values), unpacker.i_values)
        wiring.connect(m, unpacker.o, wiring.flipped(self.o))
        s3_valid = Signal()
        s3 = register(element_layout(self.max_k, self.scale_block))
        m.d.comb += [
            elements.go.eq(unpacker.has_room),
            unpacker.i.valid.eq(s3_valid),
            unpacker.i.payload.eq(s3),
        ]
        m.d.sync += [
            s3_valid.eq(elements.o.valid),
            s3.takes_value.eq((bit & chunk.nonzero).any()),
            s3.format.eq(chunk.format),
            s3.index.eq(Cat(encode(bit), chunk.place)),
            s3.last.eq(chunk.last & elements.o.payload.is_last),
            s3.empty.eq(~bit.any()),
        ]
        if self.scale_block:
            m.d.sync += s3.scale.eq(chunk.scale)
        return m

    def _window(self, m, queue):
        """Hold a window and queue its chunks that count, or one in which nothing does."""
        mask, chunks = self.i_mask.payload, self.block // CHUNK
        window = data.StructLayout({
            "counts": self.block, "nonzero": self.block, "last": 1, "format": FormatCode}
            | ({"scales": mask.scales.shape()} if self.scale_block else {}))
        counts = mask.nonzero | mask.force

        # The window that comes next; a cycle later, which of its chunks count.
        m.submodules.windows = windows = StreamBuffer(window)
        m.submodules.picker = picker = Picker(width=chunks, shape=window)
        new = windows.i.payload
        s0 = register_like(picker.i.payload)
        m.d.comb += [
            self.i_mask.ready.eq(windows.i.ready),
            windows.i.valid.eq(self.i_mask.valid),
            new.counts.eq(counts),
            *(new[name].eq(mask[name]) for name, _ in window if name != "counts"),
            windows.o.ready.eq(~picker.i.valid | picker.i.ready),
            picker.i.payload.eq(s0),
        ]
        with m.If(windows.o.ready):
            m.d.sync += [
                picker.i.valid.eq(windows.o.valid), s0.along.eq(windows.o.payload),
                s0.bits.eq(Cat(part.any() for part in chunks_of(windows.o.payload.counts))),
            ]

        # The window under way, chunk by chunk: once chosen, nothing holds one up.
        s1, selected, is_last = (picker.o.payload[name] for name in ("along", "bit", "is_last"))
        s1_window = Signal(range(max(2, self.max_k // self.block)))
        number = Signal(range(chunks))
        s2_valid = Signal()
        chunk = register(chunk_layout(self.max_k), name="s2")
        m.d.comb += [
            picker.go.eq(queue.roomy),
            number.eq(encode(selected)),
            queue.i.valid.eq(s2_valid),
            queue.i.payload.eq(chunk),
        ]
        m.d.sync += [
            s2_valid.eq(picker.o.valid),
            chunk.counts.eq(one_of(selected, chunks_of(s1.counts))),
            chunk.nonzero.eq(one_of(selected, chunks_of(s1.nonzero))),
            chunk.last.eq(s1.last & is_last),
            chunk.format.eq(s1.format),
            chunk.place.eq(Cat(number, s1_window)),
        ]
        with m.If(picker.o.valid & is_last):
            m.d.sync += s1_window.eq(Mux(s1.last, 0, s1_window + 1))
        if self.scale_block:
            per_scale = self.scale_block // CHUNK
            m.d.sync += chunk.scale.eq(s1.scales[number[per_scale.bit_length() - 1:]])
