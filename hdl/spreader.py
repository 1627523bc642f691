"""Spreads packed bytes over the words of blocks, with zeros between them.

    masks --> bytes wanted --> ranks --> sources --> settings ----.
    items ----------------------------------> lanes --> butterfly --> o
"""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .aligner import BlockStart, Item
from .arithmetic import register
from .bitstream import WidthCode, by_code, crossings, exchange, later, ranks, reached
from .layouts import PlainWord

__all__ = ["Spreader", "word_bytes"]

Wanted = data.StructLayout({"keep": 8, "lane": 3, "ends": 1, "final": 1, "missing": 1})
"""The bytes wanted for a word, from items whose first byte is in ``lane``.

``ends``: it is the last of its block; ``final``: and of its operation.
"""

Spread = data.StructLayout({"valid": 1, "last": 1, "error": 1, "keep": 8})
"""A word on its way, but for its bytes; those not to ``keep`` are zero."""


def word_bytes(octet, number, code):
    """For each byte of a block's word whether it is in the items, by the mask's byte for it."""
    half = octet.word_select(number[0], 4)
    quarter = octet.word_select(number, 2)
    return by_code(code, octet, Cat(bit.replicate(2) for bit in half),
                   Cat(bit.replicate(4) for bit in quarter))


def lanes_from(lane, used):
    """Which of eight lanes hold what is left of an item that begins in ``lane``.

    ``used`` (0 to 8): how many of its bytes are gone.
    """
    begin = (lane + used)[:3]
    wraps = (begin > lane) | (used == 0)
    return reached(begin) ^ reached(lane) ^ wraps.replicate(8)


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

        # Stage 0: the words of a block in turn, and the mask's byte for each. Stages 0 to 4 move
        # together. Stage 1: which bytes.
        moves = Signal()
        block, there = self.i_block.payload, self.i_block.valid
        number = Signal(5)
        lane = register(3)
        begins = Signal(init=1)
        at_last = register()
        ends = Signal()
        s1_valid = Signal()
        s1 = register(Wanted)
        s1_octet = register(8)
        s1_number = register(2)
        s1_code = register(WidthCode)
        s2_valid = Signal()
        s2 = register(Wanted)
        last_number = by_code(
            block.code, self.block // 8 - 1, self.block // 4 - 1, self.block // 2 - 1)
        octet_ends = by_code(block.code, 1, number[0], number[:2].all())
        mask_lane = Mux(begins, block.lane, lane)
        m.d.comb += [
            ends.eq(block.missing | Mux(begins, last_number == 0, at_last)),
            self.i_block.ready.eq(moves & ends),
        ]
        with m.If(moves):
            m.d.sync += [
                s1_valid.eq(there),
                s1_octet.eq(block.mask.word_select(mask_lane, 8)),
                s1.keep.eq((~block.sparse).replicate(8)),
                s1.lane.eq(block.lane + Mux(block.sparse, self.block // 8, 0)),
                s1.ends.eq(ends),
                s1.final.eq(ends & block.final),
                s1.missing.eq(block.missing),
                s1_number.eq(number), s1_code.eq(block.code),
                lane.eq(mask_lane + octet_ends),
                s2_valid.eq(s1_valid), s2.eq(s1),
                s2.keep.eq(s1.keep | word_bytes(s1_octet, s1_number, s1_code)),
            ]
            with m.If(s1.missing):
                m.d.sync += s2.keep.eq(0)
            with m.If(there):
                m.d.sync += [number.eq(Mux(ends, 0, number + 1)), begins.eq(ends),
                             at_last.eq(number + 1 == last_number)]

        # Stage 2: the rank of each byte.
        s3_valid = Signal()
        s3 = register(Wanted)
        s3_ranks = [register(3, name=f"s3_rank{i}") for i in range(8)]
        s3_count = register(4)
        rank = ranks(s2.keep)
        with m.If(moves):
            m.d.sync += [
                s3_valid.eq(s2_valid), s3.eq(s2), s3_count.eq(rank[7] + s2.keep[7]),
                *(to.eq(value) for to, value in zip(s3_ranks, rank, strict=True)),
            ]

        # Stage 3: how many bytes of an item are `used`, and of this and the next with the word.
        s4_valid = Signal()
        s4 = Signal(Wanted, init={"ends": 1})
        s4_used = register(range(9))
        s4_total = register(range(17))
        s4_next = register()
        s4_ranks = [register(3, name=f"s4_rank{i}") for i in range(8)]
        s4_any = register()
        used = Signal(range(9))
        total = Signal(range(17))
        need = Signal(range(9))
        m.d.comb += [
            need.eq(Mux(s4_next, Cat(s4_total[:3], s4_total[4]), s4_total)),
            used.eq(Mux(s4.ends, 8, need)),
            total.eq(used + s3_count),
        ]
        with m.If(moves):
            m.d.sync += s4_valid.eq(s3_valid)
            with m.If(s3_valid):
                m.d.sync += [
                    s4.eq(s3), s4_used.eq(used), s4_total.eq(total), s4_any.eq(s3_count.any()),
                    s4_next.eq(total[4] | (total[3] & total[:3].any())),
                    *(to.eq(rank) for to, rank in zip(s4_ranks, s3_ranks, strict=True)),
                ]

        # Stage 4: the bytes of both.
        current = register(Item)
        can = Signal()
        steps = Signal()
        m.d.comb += [
            can.eq(s4_valid & self.roomy),
            steps.eq(can & (~s4_next | self.i.valid) & (~s4.final | self.i_good.valid)),
            moves.eq(~s4_valid | steps),
            self.i.ready.eq(can & s4_next & (~s4.final | self.i_good.valid)),
            self.i_good.ready.eq(can & s4.final & (~s4_next | self.i.valid)),
        ]
        with m.If(steps & s4_next):
            m.d.sync += current.eq(self.i.payload)
        mine = lanes_from(s4.lane, s4_used)
        lanes = Cat(Mux(mine[i], current.data.word_select(i, 8),
                        self.i.payload.data.word_select(i, 8)) for i in range(8))
        octets = Mux(s4_next, self.i.payload.bytes, current.bytes)
        begin = (s4.lane + s4_used)[:3]
        keep, word = self._judge(m, steps, s4, s4_any, need, octets)
        self._spread(m, keep, word, lanes, [(begin + rank)[:3] for rank in s4_ranks])
        return m

    def _judge(self, m, steps, wanted, some, need, octets):
        """Stage 5: whether the bytes were there; what follows an error is no word any more."""
        s5_valid = Signal()
        s5 = register(Wanted)
        s5_some = register()
        s5_good = register()
        s5_need = register(range(9))
        s5_octets = register(range(9))
        m.d.sync += [
            s5_valid.eq(steps), s5.eq(wanted), s5_some.eq(some), s5_need.eq(need),
            s5_octets.eq(octets), s5_good.eq(self.i_good.payload),
        ]
        short = Signal()
        dead = Signal()
        word = Signal(Spread)
        m.d.comb += [
            short.eq(s5.missing | (s5_some & (s5_need > s5_octets))),
            word.valid.eq(s5_valid & ~dead),
            word.last.eq(short | s5.final),
            word.error.eq(short | (s5.final & ~s5_good)),
            word.keep.eq(s5.keep & (~short).replicate(8)),
        ]
        with m.If(s5_valid):
            m.d.sync += dead.eq((dead | short) & ~s5.final)
        return s5.keep, word

    def _spread(self, m, keep, word, lanes, sources):
        """Stages 5 and 6: the settings of a butterfly. Stages 7 and 8: it is passed backwards."""
        s5_lanes = register(64)
        s6_lanes = register(64)
        s7_lanes = register(64)
        m.d.sync += [s5_lanes.eq(lanes), s6_lanes.eq(s5_lanes), s7_lanes.eq(s6_lanes)]

        def staged(values, stage, name):
            made = [register(len(Value.cast(value)), name=f"s{stage}_{name}{i}")
                    for i, value in enumerate(values)]
            m.d.sync += [to.eq(value) for to, value in zip(made, values, strict=True)]
            return made

        active, targets = list(keep), staged(sources, 5, "source")
        crosses = []
        for bit in range(2):
            now = crossings(active, targets, bit)
            stage = 6 + bit
            active, targets = (staged(exchange(old, now, bit), stage, name)
                               for name, old in (("active", active), ("source", targets)))
            crosses = [staged(old, stage, f"crosses{number}_")
                       for number, old in enumerate([*crosses, now])]
            word = later(m, word, f"s{stage}_word")
        octets = [s7_lanes.word_select(i, 8) for i in range(8)]
        octets = staged(exchange(octets, crossings(active, targets, 2), 2), 8, "byte")
        crosses = [staged(old, 8, f"crosses{number}_") for number, old in enumerate(crosses)]
        word = later(m, word, "s8_word")
        for bit in (1, 0):
            octets = exchange(octets, crosses[bit], bit)
        s9_valid = Signal()
        s9_word = register(PlainWord)
        m.d.sync += [
            s9_valid.eq(word.valid),
            s9_word.data.eq(Cat(octet & keep.replicate(8)
                                for octet, keep in zip(octets, word.keep, strict=True))),
            s9_word.last.eq(word.last),
            s9_word.error.eq(word.error),
        ]
        m.d.comb += [self.o.valid.eq(s9_valid), self.o.payload.eq(s9_word)]
