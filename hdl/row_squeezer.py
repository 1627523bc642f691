"""Rows of elements become what the engine takes of A: masks, and the values that are not zero."""

from amaranth.hdl import *
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from .layouts import UNSCALED, WORD_WIDTH, mask_word
from .machine_layouts import Command
from .movers import ELEMENT, QUEUE_DEPTH, ElementFeeder
from .scratch import ReadPort

__all__ = ["RowFeeder", "RowSqueezer"]


class RowSqueezer(wiring.Component):
    """Masks and packed values of rows of elements: ``Engine``'s ``i_mask`` and ``i_values``.

    A zero is +0 or -0. Each row begins new words.

    Parameters
    ----------
    scale_block : int
        As in ``mask_word``; there are no scales: all are 1.

    Members
    -------
    i : In(stream of ELEMENT)
    o_mask : Out(stream of mask_word(scale_block))
        One for each 64 elements of a row, and for its rest.
    o_values : Out(stream of 64 bits)
        Combinational from ``i``, as ``o_mask``. An element is taken in a cycle in which both can
        be; ``valid`` of each depends on the other's ``ready`` (never on its own).

    Timing
    ------
    One element per cycle.
    """

    def __init__(self, *, scale_block):
        self.scale_block = scale_block
        super().__init__({
            "i": In(stream.Signature(ELEMENT)),
            "o_mask": Out(stream.Signature(mask_word(scale_block))),
            "o_values": Out(stream.Signature(WORD_WIDTH)),
        })

    def elaborate(self, platform):
        m = Module()
        element = self.i.payload
        index = Signal(range(WORD_WIDTH))
        mask = Signal(WORD_WIDTH)
        place = Signal(3)          # of the next value in its word
        word = Signal(WORD_WIDTH)
        is_zero = Signal()
        most = Signal(3)           # the last place of a word
        with m.Switch(element.size):
            for size in range(3):
                with m.Case(size):
                    bits = 8 << size
                    m.d.comb += [is_zero.eq(~element.data[:bits - 1].any()),
                                 most.eq(WORD_WIDTH // bits - 1)]
        new_mask = Signal(WORD_WIDTH)
        new_word = Signal(WORD_WIDTH)
        m.d.comb += [
            new_mask.eq(mask | (~is_zero << index)),
            new_word.eq(word | Mux(is_zero, 0, element.data << (place << (element.size + 3)))),
        ]
        ends_mask = element.last | (index == WORD_WIDTH - 1)
        is_full = ~is_zero & (place == most)
        ends_word = is_full | (element.last & ~(is_zero & (place == 0)))
        mask_ready, values_ready = self.o_mask.ready | ~ends_mask, self.o_values.ready | ~ends_word
        m.d.comb += [
            self.o_mask.valid.eq(self.i.valid & ends_mask & values_ready),
            self.o_mask.payload.mask.eq(new_mask),
            self.o_values.valid.eq(self.i.valid & ends_word & mask_ready),
            self.o_values.payload.eq(new_word),
            self.i.ready.eq(mask_ready & values_ready),
        ]
        if self.scale_block:
            m.d.comb += [scale.eq(UNSCALED) for scale in self.o_mask.payload.scales]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                index.eq(Mux(ends_mask, 0, index + 1)), mask.eq(Mux(ends_mask, 0, new_mask)),
                word.eq(Mux(ends_word, 0, new_word)),
                place.eq(Mux(ends_word, 0, place + ~is_zero)),
            ]
        return m


class RowFeeder(wiring.Component):
    """A mover of rows of A as elements (``ElementFeeder``), squeezed, each stream in its queue.

    Parameters
    ----------
    width : int
        Bits of a word's address.
    scale_block, b_depth : int
        As in ``Geometry``. A row has at most ``b_depth`` elements.
    widest : int
        Bits of the longest element.

    Members
    -------
    command, start, busy, fault, read
        As of the other movers.
    o_mask, o_values
        As of the ``RowSqueezer``.
    mask_ahead, values_ahead : Out(1)
        What the engine may want of each in this cycle and the next is there.
    ends : Out(1)
        No more will come of either.

    Notes
    -----
    Values that wait for their word to be full are there only when their row is at its end. So the
    queue of masks has room for two rows, and values are ahead while a whole row is in it. And that
    of values has room for those of all masks that may be ahead of them: the engine moves only while
    there are two, and its skipper takes those of 16 chunks of 8 elements, and four more.
    """

    def __init__(self, *, width, scale_block, b_depth, widest):
        self.width, self.scale_block, self.widest = width, scale_block, widest
        self.depth = max(QUEUE_DEPTH, 2 * b_depth // WORD_WIDTH)
        super().__init__({
            "command": In(Command), "start": In(1), "busy": Out(1), "fault": Out(1),
            "read": Out(ReadPort(width)),
            "o_mask": Out(stream.Signature(mask_word(scale_block))),
            "o_values": Out(stream.Signature(WORD_WIDTH)),
            "mask_ahead": Out(1), "values_ahead": Out(1), "ends": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.feeder = feeder = ElementFeeder(width=self.width)
        m.submodules.squeezer = squeezer = RowSqueezer(scale_block=self.scale_block)
        mask_width = Shape.cast(self.o_mask.payload.shape()).width
        m.submodules.masks = masks = fifo.SyncFIFOBuffered(
            width=mask_width + 1, depth=self.depth)
        m.submodules.values = values = fifo.SyncFIFOBuffered(
            width=WORD_WIDTH, depth=8 * self.widest + 8)  # a mask has up to `widest` words of them
        wiring.connect(m, feeder.o, squeezer.i)
        wiring.connect(m, wiring.flipped(self.read), feeder.read)
        whole_rows = Signal(range(self.depth + 1))
        row_comes = masks.w_en & masks.w_data[-1]
        row_goes = masks.r_en & masks.r_data[-1]
        m.d.sync += whole_rows.eq(whole_rows + row_comes - row_goes)
        m.d.comb += [
            feeder.command.eq(self.command), feeder.start.eq(self.start),
            self.busy.eq(feeder.busy), self.fault.eq(feeder.fault),
            masks.w_data.eq(Cat(squeezer.o_mask.payload, squeezer.i.payload.last)),
            masks.w_en.eq(squeezer.o_mask.valid & masks.w_rdy),
            squeezer.o_mask.ready.eq(masks.w_rdy),
            values.w_data.eq(squeezer.o_values.payload),
            values.w_en.eq(squeezer.o_values.valid & values.w_rdy),
            squeezer.o_values.ready.eq(values.w_rdy),
            Value.cast(self.o_mask.payload).eq(masks.r_data),
            self.o_mask.valid.eq(masks.r_rdy),
            masks.r_en.eq(self.o_mask.valid & self.o_mask.ready),
            self.o_values.payload.eq(values.r_data), self.o_values.valid.eq(values.r_rdy),
            values.r_en.eq(self.o_values.valid & self.o_values.ready),
            self.ends.eq(feeder.ends),
            self.mask_ahead.eq(masks.level >= 2),
            self.values_ahead.eq((values.level >= 2) | whole_rows.any()),
        ]
        return m
