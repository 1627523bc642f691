"""Cuts a bit stream into items of 64 bits: the masks and values of its blocks.

    words --> memory --> upper --> lower
                           `---------`-----> joined --> rotated --> o
"""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .bitstream import from_bit, rotated_right
from .header import RING_DEPTH, BlockHeader, RingWord
from .ram import Ram

__all__ = ["Aligner", "Item"]

Item = data.StructLayout({"data": 64, "bytes": range(9)})
"""64 bits of a block, of which ``bytes`` are there: all, or what was left of the stream."""


class Aligner(wiring.Component):
    """Follows the headers through the bit stream.

    Members
    -------
    i : In(RingWord)
        The words of the bit stream.
    taken : Out(1)
        The room of one was given back.
    i_header : In(stream of BlockHeader)
        The blocks in their order. With one that is ``final`` a stream ends: words after it up to
        the last are dropped.
    roomy : In(1)
        What ``o`` and ``o_mask`` give is taken.
    o : Out(valid, Item)
        The items of values.
    o_mask : Out(valid, 64)
        The masks of sparse blocks.

    Timing
    ------
    An item per cycle. There is one more cycle between two blocks if the one leaves a word and the
    other, for its flag, begins in the word after the next.
    """

    def __init__(self, *, block, target):
        self.block, self.target = block, target
        super().__init__({
            "i": In(RingWord),
            "taken": Out(1),
            "i_header": In(stream.Signature(BlockHeader)),
            "roomy": In(1),
            "o": Out(stream.Signature(Item, always_ready=True)),
            "o_mask": Out(stream.Signature(64, always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        moves = Signal()     # the upper word becomes the lower one
        upper, upper_valid, upper_last = self._words(m, moves)
        lower, lower_valid, lower_last = Signal(64), Signal(), Signal()
        over = Signal()      # the stream's last word is gone

        # Stage 0: the items of a block in turn; then to the next block, or to the next stream.
        header, busy = Signal(BlockHeader), Signal()
        number, offset, parts = Signal(6), Signal(6), Signal(from_bit.shape)
        is_mask, begins = Signal(), Signal(init=1)
        again, drops = Signal(), Signal()
        there, steps, ends = Signal(), Signal(), Signal()
        shifts, leaves = Signal(), Signal()
        at_end = over | lower_last
        next_offset = Signal(range(128))
        m.d.comb += [
            is_mask.eq(begins & header.sparse),
            next_offset.eq(offset + self.block),
            there.eq(over | (lower_valid & (upper_valid | lower_last))),
            steps.eq(busy & there & ~again & ~drops & (self.roomy | header.missing)),
            ends.eq(steps & (header.missing | (number == header.last_item))),
            self.i_header.ready.eq(~busy | ends),
            shifts.eq(again & there),
            leaves.eq(Mux(drops, at_end, ends & header.final & at_end)),
        ]
        with m.If(steps):
            with m.If(ends):
                m.d.comb += shifts.eq(header.final | header.shift.any())
                m.d.sync += [again.eq(~header.final & header.shift[1]),
                             drops.eq(header.final & ~at_end)]
            with m.Else():
                m.d.comb += shifts.eq(1)
                if self.block < 64:     # the values begin within the mask's word, or in the next
                    m.d.comb += shifts.eq(~is_mask | next_offset[6])
                    with m.If(is_mask):
                        m.d.sync += [offset.eq(next_offset),
                                     parts.eq(from_bit.parts(next_offset[:6]))]
            m.d.sync += [number.eq(Mux(ends, 0, number + 1)), begins.eq(ends)]
        with m.Elif(again & there):
            m.d.sync += again.eq(0)
        with m.If(drops):
            m.d.comb += shifts.eq(1)
            m.d.sync += drops.eq(~at_end)
        with m.If(self.i_header.ready):
            m.d.sync += [
                busy.eq(self.i_header.valid),
                header.eq(self.i_header.payload),
                offset.eq(self.i_header.payload.offset),
                parts.eq(from_bit.parts(self.i_header.payload.offset)),
            ]

        # The last word of a stream makes room for the next stream only when that is its turn.
        m.d.comb += moves.eq(upper_valid & (
            leaves | (shifts & lower_valid & ~lower_last) | ~(lower_valid | over)))
        with m.If(moves):
            m.d.sync += [lower.eq(upper), lower_last.eq(upper_last), lower_valid.eq(1),
                         over.eq(0)]
        with m.Elif(leaves | (shifts & lower_last)):
            m.d.sync += [lower_last.eq(0), lower_valid.eq(0), over.eq(~leaves)]

        self._rotate(m, steps & ~header.missing, is_mask, lower, upper, offset, parts,
                     Mux(over, 0, Mux(lower_last, (64 - offset) >> 3, 8)))
        return m

    def _words(self, m, moves):
        """The memory; the word that comes out of it, whether there is one, and is the last."""
        m.submodules.ring = ring = Ram(width=65, depth=RING_DEPTH, target=self.target)
        come, place = Signal.like(self.i.place), Signal.like(self.i.place)
        s1_valid, s2_valid = Signal(), Signal()
        with m.If(self.i.valid):
            m.d.sync += come.eq(self.i.place + 1)
        m.d.comb += [
            ring.write.eq(self.i.valid), ring.i_address.eq(self.i.place),
            ring.i_data.eq(Cat(self.i.data, self.i.last)),
            ring.address.eq(place),
            ring.read.eq(moves | ~s2_valid),
            self.taken.eq(ring.read & (place != come)),
        ]
        with m.If(ring.read):
            m.d.sync += [s1_valid.eq(self.taken), s2_valid.eq(s1_valid),
                         place.eq(place + self.taken)]
        return ring.o[:64], s2_valid, ring.o[64]

    def _rotate(self, m, valid, is_mask, lower, upper, offset, parts, octets):
        """Stage 1: the bits of an item, all of them. Stages 2 to 4: in their places."""
        s1_data, s1_offset = Signal(64), Signal(6)
        s2_data, s2_offset = Signal(64), Signal(4)
        s3_data, s3_offset = Signal(64), Signal(2)
        s4_data = Signal(64)
        above = from_bit.mask(parts)
        m.d.sync += [
            s1_data.eq((lower & above) | (upper & ~above)),
            s1_offset.eq(offset),
            s2_data.eq(rotated_right(s1_data, [(s1_offset[0], 1), (s1_offset[1], 2)])),
            s2_offset.eq(s1_offset[2:]),
            s3_data.eq(rotated_right(s2_data, [(s2_offset[0], 4), (s2_offset[1], 8)])),
            s3_offset.eq(s2_offset[2:]),
            s4_data.eq(rotated_right(s3_data, [(s3_offset[0], 16), (s3_offset[1], 32)])),
        ]
        step = Cat(valid & ~is_mask, valid & is_mask, octets)
        for stage in range(1, 5):
            later = Signal(6, name=f"s{stage}_step")
            m.d.sync += later.eq(step)
            step = later
        m.d.comb += [
            self.o.valid.eq(step[0]),
            self.o.payload.data.eq(s4_data),
            self.o.payload.bytes.eq(step[2:]),
            self.o_mask.valid.eq(step[1]),
            self.o_mask.payload.eq(s4_data),
        ]
