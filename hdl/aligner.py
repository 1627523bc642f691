"""Cuts a bit stream into items of 64 bits: the masks and values of its blocks.

    words --> memory --> upper --> lower
                           `---------`-----> joined --> rotated --> o
"""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import delayed, register
from .bitstream import FromBit, WidthCode, rotated_right
from .header import RING_DEPTH, BlockHeader, RingWord
from .ram import Ram

__all__ = ["ITEMS", "Aligner", "BlockStart", "Item"]

Item = data.StructLayout({"data": 64, "bytes": range(9)})
"""64 bits of a block, of which ``bytes`` are there: all, or what was left of the stream.

The first byte is in some lane, the others follow in the lanes above and, after the highest, below.
"""

BlockStart = data.StructLayout({"mask": 64, "lane": 3, "sparse": 1, "final": 1, "missing": 1,
                                "code": WidthCode})
"""A block as the header has it; ``lane`` is that of the first byte of its mask or its values.

A mask has its bytes in lanes as an item has.
"""


ITEMS = 16
"""Items on their way from the aligner, or waiting: those of a queue and its register."""


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
        There is room for what ``o_block`` gives.
    used : In(1)
        Of the ``ITEMS`` that there is room for at first where ``o`` goes, one was used.
    o : Out(valid, Item)
        The items of values.
    o_block : Out(valid, BlockStart)
        The blocks.

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
            "used": In(1),
            "o": Out(stream.Signature(Item, always_ready=True)),
            "o_block": Out(stream.Signature(BlockStart, always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        moves = Signal()     # the upper word becomes the lower one
        upper, upper_valid, upper_last = self._words(m, moves)
        lower = register(64)
        lower_valid = Signal()
        lower_last = Signal()
        over = Signal()      # the stream's last word is gone

        # Stage 0: the items of a block in turn; then to the next block, or to the next stream.
        header = register(BlockHeader)
        busy = Signal()
        # Of the item: it is the block's last; its step goes on by a word; it is the stream's last.
        left = register(6)
        at_last = register()
        goes_on = register()
        quits = register()
        offset = register(6)
        parts = register(FromBit.shape)
        begins = Signal(init=1)
        roomy = Signal(init=1)
        again = Signal()
        drops = Signal()
        seeks = Signal()     # either
        is_mask = Signal()
        there = Signal()
        steps = Signal()
        ends = Signal()
        shifts = Signal()
        leaves = Signal()
        at_end = Signal()
        next_offset = Signal(range(128))
        room = Signal(range(ITEMS + 1), init=ITEMS)
        m.d.sync += [
            room.eq(room - (steps & ~is_mask & ~header.missing) + self.used),
            roomy.eq(self.roomy & (room >= 2)),
            seeks.eq(0),
        ]
        m.d.comb += [
            at_end.eq(over | lower_last),
            is_mask.eq(begins & header.sparse),
            next_offset.eq(offset + self.block),
            there.eq(over | (lower_valid & (upper_valid | lower_last))),
            steps.eq(busy & roomy & ~seeks & there),
            ends.eq(steps & at_last),
            self.i_header.ready.eq(~busy | ends),
            leaves.eq(at_end & (drops | (busy & roomy & ~seeks & quits))),
            shifts.eq(seeks | (busy & roomy & goes_on)),
        ]
        with m.If(steps):
            m.d.sync += [left.eq(left - 1), begins.eq(at_last)]
            m.d.sync += self._item(header, left == 1, 1, at_last, goes_on, quits)
            with m.If(at_last):
                m.d.sync += [
                    again.eq(~quits & header.shift[1]), drops.eq(quits & ~at_end),
                    seeks.eq(Mux(quits, ~at_end, header.shift[1])),
                ]
            if self.block < 64:     # the values begin within the mask's word, or in the next
                with m.Elif(is_mask):
                    m.d.sync += [offset.eq(next_offset),
                                 parts.eq(FromBit.parts(next_offset[:6]))]
        with m.Elif(again):
            m.d.sync += [again.eq(~there), seeks.eq(~there)]
        with m.Elif(drops):
            m.d.sync += [drops.eq(~at_end), seeks.eq(~at_end)]
        with m.If(self.i_header.ready):
            new = self.i_header.payload
            m.d.sync += [
                busy.eq(self.i_header.valid), header.eq(new),
                left.eq(new.last_item), offset.eq(new.offset), parts.eq(FromBit.parts(new.offset)),
            ]
            m.d.sync += self._item(
                new, (new.last_item == 0) | new.missing,
                ~new.sparse | (new.offset + self.block >= 64), at_last, goes_on, quits)

        # The last word of a stream makes room for the next stream only when that is its turn.
        m.d.comb += moves.eq(upper_valid & (
            leaves | (shifts & lower_valid & ~lower_last) | ~(lower_valid | over)))
        with m.If(moves):
            m.d.sync += [lower.eq(upper), lower_last.eq(upper_last), lower_valid.eq(1),
                         over.eq(0)]
        with m.Elif(leaves | (shifts & lower_last)):
            m.d.sync += [lower_last.eq(0), lower_valid.eq(0), over.eq(~leaves)]

        octets = Mux(over, 0, Mux(lower_last, (64 - offset) >> 3, 8))
        self._shift(m, lower, upper, offset, parts)
        self._tell(m, steps & ~is_mask & ~header.missing, octets, steps & begins, header, offset)
        return m

    def _item(self, header, is_last, fills, at_last, goes_on, quits):
        """What to note of the next item; ``fills``: the one behind it is in the next word."""
        return [
            at_last.eq(is_last),
            goes_on.eq(Mux(is_last, header.final | header.shift.any(), fills)),
            quits.eq(is_last & header.final),
        ]

    def _words(self, m, moves):
        """The memory; the word that comes out of it, whether there is one, and is the last."""
        m.submodules.ring = ring = Ram(width=65, depth=RING_DEPTH, target=self.target)
        come = Signal.like(self.i.place)
        place = Signal.like(self.i.place)
        s1_valid = Signal()
        s2_valid = Signal()
        with m.If(self.i.valid):
            m.d.sync += come.eq(self.i.place + 1)
        m.d.comb += [
            ring.write.eq(self.i.valid), ring.i_address.eq(self.i.place),
            ring.i_data.eq(Cat(self.i.data, self.i.last)),
            ring.address.eq(place),
            ring.read.eq(moves | ~s2_valid),
        ]
        m.d.sync += self.taken.eq(0)
        with m.If(ring.read):
            m.d.sync += [s1_valid.eq(place != come), s2_valid.eq(s1_valid),
                         self.taken.eq(place != come)]
            with m.If(place != come):
                m.d.sync += place.eq(place + 1)
        return ring.o[:64], s2_valid, ring.o[64]

    def _shift(self, m, lower, upper, offset, parts):
        """Stage 1: the bits of an item, all of them. Stages 2 and 3: in their bytes."""
        s1_data = register(64)
        s1_offset = register(3)
        s2_data = register(64)
        s2_offset = register()
        s3_data = register(64)
        above = FromBit.mask(parts)
        m.d.sync += [
            s1_data.eq((lower & above) | (upper & ~above)),
            s1_offset.eq(offset),
            s2_data.eq(rotated_right(s1_data, [(s1_offset[0], 1), (s1_offset[1], 2)])),
            s2_offset.eq(s1_offset[2]),
            s3_data.eq(rotated_right(s2_data, [(s2_offset, 4)])),
        ]
        m.d.comb += [self.o.payload.data.eq(s3_data), self.o_block.payload.mask.eq(s3_data)]

    def _tell(self, m, is_item, octets, begins, header, offset):
        """What comes with the bits."""
        block = self.o_block.payload
        for to, value in (
                (block.lane, offset[3:]), (block.sparse, header.sparse), (block.code, header.code),
                (block.final, header.final), (block.missing, header.missing),
                (self.o.payload.bytes, octets)):
            m.d.comb += to.eq(delayed(m, value, 3, "tag"))
        for to, value in ((self.o.valid, is_item), (self.o_block.valid, begins)):
            m.d.comb += to.eq(delayed(m, value, 3, "step", reset_less=False))
