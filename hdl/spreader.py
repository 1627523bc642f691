"""Spreads packed bytes over the words of blocks, with zeros between them.

    masks --> bytes wanted --> ranks --> sources --> settings ----.
    items ----------------------------------> lanes --> butterfly --> o
"""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .aligner import Item
from .bitstream import crossings, exchange, ranks
from .header import BlockHeader
from .layouts import PlainWord
from .squeezer import WidthCode

__all__ = ["Spreader", "word_bytes"]

Wanted = data.StructLayout({"keep": 8, "ends": 1, "final": 1, "missing": 1})
"""The bytes wanted for a word. ``ends`` its block; ``final``: ends the operation's last block."""


def word_bytes(mask, number, code):
    """For each byte of a block's word whether it is in the items, by the block's mask."""
    octets = Cat(mask, C(0, 64 - len(mask)))
    octet = octets.word_select(number >> code.as_value(), 8)
    half = octet.word_select(number[0], 4)
    quarter = octet.word_select(number[:2], 2)
    return Mux(code == WidthCode.BITS8, octet, Mux(
        code == WidthCode.BITS16,
        Cat(bit.replicate(2) for bit in half), Cat(bit.replicate(4) for bit in quarter)))


class Spreader(wiring.Component):
    """Gives the words of the blocks, one after the other.

    Members
    -------
    i_header : In(stream of BlockHeader)
        The blocks in their order.
    i_mask : In(stream of unsigned(block))
        The masks of those that are sparse.
    i : In(stream of Item)
        Their values.
    i_good : In(stream of unsigned(1))
        For each operation, whether its stream ends as it should.
    roomy : In(1)
        What ``o`` gives is taken.
    o : Out(valid, PlainWord)
        The words, as of the ``Decompressor``.

    Timing
    ------
    A word per cycle.
    """

    def __init__(self, *, block):
        self.block = block
        super().__init__({
            "i_header": In(stream.Signature(BlockHeader)),
            "i_mask": In(stream.Signature(block)),
            "i": In(stream.Signature(Item)),
            "i_good": In(stream.Signature(1)),
            "roomy": In(1),
            "o": Out(stream.Signature(PlainWord, always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()

        # Stage 0: the words of a block in turn. Stages 0 to 2 move together.
        moves = Signal()
        header = self.i_header.payload
        number, there, ends = Signal(5), Signal(), Signal()
        s1_valid, s1 = Signal(), Signal(Wanted)
        last_number = Mux(header.code == WidthCode.BITS8, self.block // 8 - 1, Mux(
            header.code == WidthCode.BITS16, self.block // 4 - 1, self.block // 2 - 1))
        m.d.comb += [
            there.eq(self.i_header.valid & (~header.sparse | header.missing | self.i_mask.valid)),
            ends.eq(header.missing | (number == last_number)),
            self.i_header.ready.eq(moves & there & ends),
            self.i_mask.ready.eq(self.i_header.ready & header.sparse & ~header.missing),
        ]
        with m.If(moves):
            m.d.sync += [
                s1_valid.eq(there),
                s1.keep.eq(Mux(header.sparse, word_bytes(self.i_mask.payload, number, header.code),
                               0xFF)),
                s1.ends.eq(ends),
                s1.final.eq(ends & header.final),
                s1.missing.eq(header.missing),
            ]
            with m.If(header.missing):
                m.d.sync += s1.keep.eq(0)
            with m.If(there):
                m.d.sync += number.eq(Mux(ends, 0, number + 1))

        # Stage 1: the rank of each byte.
        s2_valid, s2 = Signal(), Signal(Wanted)
        s2_ranks, s2_count = [Signal(3, name=f"s2_rank{i}") for i in range(8)], Signal(4)
        rank = ranks(s1.keep)
        with m.If(moves):
            m.d.sync += [
                s2_valid.eq(s1_valid), s2.eq(s1), s2_count.eq(rank[7] + s1.keep[7]),
                *(register.eq(value) for register, value in zip(s2_ranks, rank, strict=True)),
            ]

        # Stage 2: of the item in `current`, `used` bytes are gone, at the end of a block all.
        current, used = Signal(Item), Signal(range(9), init=8)
        total, next_item, steps = Signal(range(17)), Signal(), Signal()
        m.d.comb += [
            total.eq(used + s2_count),
            next_item.eq(total[4] | (total[3] & total[:3].any())),
            steps.eq(s2_valid & self.roomy & (~next_item | self.i.valid)
                     & (~s2.final | self.i_good.valid)),
            moves.eq(~s2_valid | steps),
            self.i.ready.eq(steps & next_item),
            self.i_good.ready.eq(steps & s2.final),
        ]
        with m.If(steps):
            m.d.sync += used.eq(Mux(s2.ends, 8, Mux(next_item, Cat(total[:3], total[4]), total)))
            with m.If(next_item):
                m.d.sync += current.eq(self.i.payload)
        lanes = Cat(Mux(used <= i, current.data.word_select(i, 8),
                        self.i.payload.data.word_select(i, 8)) for i in range(8))
        need = Mux(next_item, Cat(total[:3], total[4]), total[:4])
        bytes_there = Mux(next_item, self.i.payload.bytes, current.bytes)
        sources = [(used + place)[:3] for place in s2_ranks]
        s3_keep, s3_word = self._judge(m, steps, s2, s2_count, need, bytes_there)
        self._spread(m, s3_keep, s3_word, lanes, sources)
        return m

    def _judge(self, m, steps, wanted, count, need, bytes_there):
        """Stage 3: whether the bytes were there; what follows an error is no word any more."""
        s3_valid, s3, s3_any, s3_good = Signal(), Signal(Wanted), Signal(), Signal()
        s3_need, s3_there = Signal(4), Signal(4)
        m.d.sync += [
            s3_valid.eq(steps), s3.eq(wanted), s3_any.eq(count.any()), s3_need.eq(need),
            s3_there.eq(bytes_there), s3_good.eq(self.i_good.payload),
        ]
        short, dead = Signal(), Signal()
        m.d.comb += short.eq(s3.missing | (s3_any & (s3_need > s3_there)))
        with m.If(s3_valid):
            m.d.sync += dead.eq((dead | short) & ~s3.final)
        word = Signal(3)
        m.d.comb += word.eq(Cat(s3_valid & ~dead, short | s3.final,
                                short | (s3.final & ~s3_good)))
        return (s3.keep, short), word

    def _spread(self, m, keep, word, lanes, sources):
        """Stages 3 to 6: the settings of a butterfly; it is passed backwards, from stage 5 on."""
        keep, short = keep
        s3_lanes, s4_lanes, s5_lanes = Signal(64), Signal(64), Signal(64)
        m.d.sync += [s3_lanes.eq(lanes), s4_lanes.eq(s3_lanes), s5_lanes.eq(s4_lanes)]

        def register(values, stage, name):
            made = [Signal(len(Value.cast(value)), name=f"s{stage}_{name}{i}")
                    for i, value in enumerate(values)]
            m.d.sync += [to.eq(value) for to, value in zip(made, values, strict=True)]
            return made

        active, targets = list(keep), register(sources, 3, "source")
        chosen, flags = [keep & ~short.replicate(8), word], []
        crosses = []
        for bit in range(2):
            now = crossings(active, targets, bit)
            active, targets = exchange(active, now, bit), exchange(targets, now, bit)
            stage = 4 + bit
            active, targets = (register(active, stage, f"active{bit}_"),
                               register(targets, stage, f"source{bit}_"))
            crosses = [register(old, stage, f"crosses{number}_")
                       for number, old in enumerate([*crosses, now])]
            chosen = register(chosen, stage, "word")
        octets = [s5_lanes.word_select(i, 8) for i in range(8)]
        octets = register(exchange(octets, crossings(active, targets, 2), 2), 6, "byte")
        crosses = [register(old, 6, f"crosses{number}_") for number, old in enumerate(crosses)]
        s6_keep, s6_word = register(chosen, 6, "word")
        for bit in (1, 0):
            octets = exchange(octets, crosses[bit], bit)
        s7_valid, s7_word = Signal(), Signal(PlainWord)
        m.d.sync += [
            s7_valid.eq(s6_word[0]),
            s7_word.data.eq(Cat(octet & s6_keep[i].replicate(8)
                                for i, octet in enumerate(octets))),
            s7_word.last.eq(s6_word[1]),
            s7_word.error.eq(s6_word[2]),
        ]
        m.d.comb += [self.o.valid.eq(s7_valid), self.o.payload.eq(s7_word)]
