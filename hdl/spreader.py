"""Spreads packed bytes over the words of blocks, with zeros between them.

    masks --> bytes wanted --> ranks --> sources --> settings ----.
    items ----------------------------------> lanes --> butterfly --> o
"""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .aligner import BlockStart, Item
from .bitstream import crossings, exchange, ranks
from .layouts import PlainWord
from .squeezer import WidthCode

__all__ = ["Spreader", "word_bytes"]

Wanted = data.StructLayout({"keep": 8, "lane": 3, "ends": 1, "final": 1, "missing": 1})
"""The bytes wanted for a word, from items whose first byte is in ``lane``.

``ends``: it is the last of its block; ``final``: and of its operation.
"""


def word_bytes(mask, lane, number, code):
    """For each byte of a block's word whether it is in the items, by the block's mask."""
    octet = mask.word_select((lane + (number >> code.as_value()))[:3], 8)
    half = octet.word_select(number[0], 4)
    quarter = octet.word_select(number[:2], 2)
    return Mux(code == WidthCode.BITS8, octet, Mux(
        code == WidthCode.BITS16,
        Cat(bit.replicate(2) for bit in half), Cat(bit.replicate(4) for bit in quarter)))


def lanes_from(lane, used):
    """Which of eight lanes hold what is left of an item that begins in ``lane``.

    ``used`` (0 to 8): how many of its bytes are gone.
    """
    begin = (lane + used)[:3]
    wraps = (begin > lane) | (used == 0)
    return Cat((begin <= i) ^ (lane <= i) ^ wraps for i in range(8))


class Spreader(wiring.Component):
    """Gives the words of the blocks, one after the other.

    Members
    -------
    i_block : In(stream of BlockStart)
        The blocks in their order.
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
            "i_block": In(stream.Signature(BlockStart)),
            "i": In(stream.Signature(Item)),
            "i_good": In(stream.Signature(1)),
            "roomy": In(1),
            "o": Out(stream.Signature(PlainWord, always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()

        # Stage 0: the words of a block in turn. Stages 0 to 3 move together.
        moves = Signal()
        block, there = self.i_block.payload, self.i_block.valid
        number, ends = Signal(5), Signal()
        s1_valid, s1 = Signal(), Signal(Wanted)
        last_number = Mux(block.code == WidthCode.BITS8, self.block // 8 - 1, Mux(
            block.code == WidthCode.BITS16, self.block // 4 - 1, self.block // 2 - 1))
        m.d.comb += [
            ends.eq(block.missing | (number == last_number)),
            self.i_block.ready.eq(moves & ends),
        ]
        with m.If(moves):
            m.d.sync += [
                s1_valid.eq(there),
                s1.keep.eq(word_bytes(block.mask, block.lane, number, block.code)
                           | (~block.sparse).replicate(8)),
                s1.lane.eq(block.lane + Mux(block.sparse, self.block // 8, 0)),
                s1.ends.eq(ends),
                s1.final.eq(ends & block.final),
                s1.missing.eq(block.missing),
            ]
            with m.If(block.missing):
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

        # Stage 2: how many bytes of an item are `used`, and of this and the next with the word.
        s3_valid, s3 = Signal(), Signal(Wanted, init={"ends": 1})
        s3_used, s3_total, s3_next = Signal(range(9)), Signal(range(17)), Signal()
        s3_ranks, s3_any = [Signal(3, name=f"s3_rank{i}") for i in range(8)], Signal()
        used, total, need = Signal(range(9)), Signal(range(17)), Signal(range(9))
        m.d.comb += [
            need.eq(Mux(s3_next, Cat(s3_total[:3], s3_total[4]), s3_total)),
            used.eq(Mux(s3.ends, 8, need)),
            total.eq(used + s2_count),
        ]
        with m.If(moves):
            m.d.sync += s3_valid.eq(s2_valid)
            with m.If(s2_valid):
                m.d.sync += [
                    s3.eq(s2), s3_used.eq(used), s3_total.eq(total), s3_any.eq(s2_count.any()),
                    s3_next.eq(total[4] | (total[3] & total[:3].any())),
                    *(to.eq(rank) for to, rank in zip(s3_ranks, s2_ranks, strict=True)),
                ]

        # Stage 3: the bytes of both.
        current, steps = Signal(Item), Signal()
        m.d.comb += [
            steps.eq(s3_valid & self.roomy & (~s3_next | self.i.valid)
                     & (~s3.final | self.i_good.valid)),
            moves.eq(~s3_valid | steps),
            self.i.ready.eq(steps & s3_next),
            self.i_good.ready.eq(steps & s3.final),
        ]
        with m.If(steps & s3_next):
            m.d.sync += current.eq(self.i.payload)
        mine = lanes_from(s3.lane, s3_used)
        lanes = Cat(Mux(mine[i], current.data.word_select(i, 8),
                        self.i.payload.data.word_select(i, 8)) for i in range(8))
        octets = Mux(s3_next, self.i.payload.bytes, current.bytes)
        begin = (s3.lane + s3_used)[:3]
        keep, word = self._judge(m, steps, s3, s3_any, need, octets)
        self._spread(m, keep, word, lanes, [(begin + rank)[:3] for rank in s3_ranks])
        return m

    def _judge(self, m, steps, wanted, some, need, octets):
        """Stage 4: whether the bytes were there; what follows an error is no word any more."""
        s4_valid, s4, s4_some, s4_good = Signal(), Signal(Wanted), Signal(), Signal()
        s4_need, s4_octets = Signal(range(9)), Signal(range(9))
        m.d.sync += [
            s4_valid.eq(steps), s4.eq(wanted), s4_some.eq(some), s4_need.eq(need),
            s4_octets.eq(octets), s4_good.eq(self.i_good.payload),
        ]
        short, dead = Signal(), Signal()
        m.d.comb += short.eq(s4.missing | (s4_some & (s4_need > s4_octets)))
        with m.If(s4_valid):
            m.d.sync += dead.eq((dead | short) & ~s4.final)
        word = Cat(s4_valid & ~dead, short | s4.final, short | (s4.final & ~s4_good),
                   s4.keep & (~short).replicate(8))
        return s4.keep, word

    def _spread(self, m, keep, word, lanes, sources):
        """Stages 4 and 5: the settings of a butterfly. Stages 6 and 7: it is passed backwards."""
        s4_lanes, s5_lanes, s6_lanes = Signal(64), Signal(64), Signal(64)
        m.d.sync += [s4_lanes.eq(lanes), s5_lanes.eq(s4_lanes), s6_lanes.eq(s5_lanes)]

        def register(values, stage, name):
            made = [Signal(len(Value.cast(value)), name=f"s{stage}_{name}{i}")
                    for i, value in enumerate(values)]
            m.d.sync += [to.eq(value) for to, value in zip(made, values, strict=True)]
            return made

        active, targets = list(keep), register(sources, 4, "source")
        crosses = []
        for bit in range(2):
            now = crossings(active, targets, bit)
            stage = 5 + bit
            active, targets = (register(exchange(old, now, bit), stage, name)
                               for name, old in (("active", active), ("source", targets)))
            crosses = [register(old, stage, f"crosses{number}_")
                       for number, old in enumerate([*crosses, now])]
            word, = register([word], stage, "word")
        octets = [s6_lanes.word_select(i, 8) for i in range(8)]
        octets = register(exchange(octets, crossings(active, targets, 2), 2), 7, "byte")
        crosses = [register(old, 7, f"crosses{number}_") for number, old in enumerate(crosses)]
        word, = register([word], 7, "word")
        for bit in (1, 0):
            octets = exchange(octets, crosses[bit], bit)
        s8_valid, s8_word = Signal(), Signal(PlainWord)
        m.d.sync += [
            s8_valid.eq(word[0]),
            s8_word.data.eq(Cat(octet & word[3 + i].replicate(8) for i, octet in
                                enumerate(octets))),
            s8_word.last.eq(word[1]),
            s8_word.error.eq(word[2]),
        ]
        m.d.comb += [self.o.valid.eq(s8_valid), self.o.payload.eq(s8_word)]
