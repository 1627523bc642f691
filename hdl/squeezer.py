"""Squeezes the bytes that are not zero out of words: packed words, block by block.

    zero test --> ranks --> targets --> butterfly --> packed words
                    `----> word as it is, bits of the mask
"""

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register, register_like
from .bitstream import WidthCode, by_code, crossings, exchange, later, ranks, reached

__all__ = ["Squeezer", "SqueezerDone", "SqueezerPacked", "SqueezerPlain", "SqueezerWord",
           "keep_bytes", "mask_bits"]


SqueezerWord = data.StructLayout({"valid": 1, "data": 64, "first": 1, "last": 1, "final": 1,
                                  "code": WidthCode, "place": 5})
"""A word that is ``first`` or ``last`` of its block, of elements whose width has the ``code``.

``place``: its number in the block. ``final``: the block is the last of its operation.
"""

SqueezerPlain = data.StructLayout({"valid": 1, "data": 64, "place": 5, "last": 1,
                                   "code": WidthCode, "mask": 8, "zeros": 4})
"""A word of a block, but with +0 for -0; the rest as it came in.

``mask``: the last 8 bits of the block's mask. ``zeros``: elements of value zero in the word.
"""

SqueezerPacked = data.StructLayout({"valid": 1, "data": 64})
"""Eight bytes that are not zero."""

SqueezerDone = data.StructLayout({"valid": 1, "tail": 4, "code": WidthCode, "final": 1})
"""The end of a block. ``tail``: bytes in the last of its packed words, 1 to 8; 0 if it has none.

``code``, ``final``: as of its words.
"""


def keep_bytes(some, top, code):
    """For each byte of a word, whether it belongs to an element that is neither +0 nor -0.

    ``some``: the byte's seven low bits are not all zero. ``top``: its highest bit.
    """
    def element(first, count):
        last = first + count - 1
        return Cat(some[first:last], top[first:last]).any() | some[last]

    def of(count):
        return [element(i // count * count, count) for i in range(8)]

    return Cat(by_code(code, some[i], medium, wide)
               for i, (medium, wide) in enumerate(zip(of(2), of(4), strict=True)))


def mask_bits(before, keep, code):
    """The last 8 bits of a block's mask, from those before a word and the bytes kept of it."""
    narrow, medium, wide = keep, Cat(before, keep[::2])[4:], Cat(before, keep[::4])[2:]
    return by_code(code, narrow, medium, wide)


class Squeezer(wiring.Component):
    """Takes a word per cycle, in blocks, and gives it as it is, its mask bits and packed bytes.

    Members
    -------
    i : In(SqueezerWord)
        The word.
    plain : Out(SqueezerPlain)
        The word as it is, and the bits of the block's mask.
    packed : Out(SqueezerPacked)
        The next 8 bytes that are not zero; zeros behind the last ones.
    done : Out(SqueezerDone)
        The block is complete, in ``packed`` too.

    Timing
    ------
    ``plain`` follows 3 cycles after ``i``. A packed word follows when one more byte is there: in
    the cycle after the block's last at the latest, which never gives one itself then. So there is
    at most one in a cycle. ``done`` comes with the last one.
    """

    i: In(SqueezerWord)
    plain: Out(SqueezerPlain)
    packed: Out(SqueezerPacked)
    done: Out(SqueezerDone)

    def elaborate(self, platform):
        m = Module()

        # Stage 1: what is zero in each byte. Stage 2: which bytes are kept.
        s1 = later(m, self.i, "s1")
        s2 = later(m, s1, "s2")
        s1_some = register(8)
        s1_top = register(8)
        s2_keep = register(8)
        octets = [self.i.data.word_select(i, 8) for i in range(8)]
        m.d.sync += [
            s1_some.eq(Cat(octet[:7].any() for octet in octets)),
            s1_top.eq(Cat(octet[7] for octet in octets)),
            s2_keep.eq(keep_bytes(s1_some, s1_top, s1.code)),
        ]

        # Stage 3: the rank of each byte kept.
        positive = Signal.like(s2)
        s3_mask = register(8)
        s3 = later(m, positive, "s3")
        s3_keep = register(8)
        s3_count = register(4)
        s3_ranks = [register(3, name=f"s3_rank{i}") for i in range(8)]
        rank = ranks(s2_keep)
        count = Signal(4)
        m.d.comb += [
            count.eq(rank[7] + s2_keep[7]),
            positive.eq(s2),
            *(positive.data[8 * i + 7].eq(s2.data[8 * i + 7] & s2_keep[i]) for i in range(8)),
        ]
        m.d.sync += [
            s3_keep.eq(s2_keep), s3_count.eq(count),
            *(to.eq(value) for to, value in zip(s3_ranks, rank, strict=True)),
        ]
        with m.If(s2.valid):
            m.d.sync += s3_mask.eq(mask_bits(s3_mask, s2_keep, s2.code))

        m.d.comb += [
            self.plain.valid.eq(s3.valid), self.plain.data.eq(s3.data),
            self.plain.place.eq(s3.place), self.plain.last.eq(s3.last), self.plain.code.eq(s3.code),
            self.plain.mask.eq(s3_mask), self.plain.zeros.eq((8 - s3_count) >> s3.code.as_value()),
        ]
        self._pack(m, s3.data, *self._targets(m, s3, s3_keep, s3_ranks, s3_count))
        return m

    def _targets(self, m, s3, keep, rank, count):
        """Stage 4: the lane of each byte; `held` bytes (at most 8) of the block wait before it."""
        held = Signal(range(9))
        total = Signal(range(17))
        step = Signal(data.StructLayout({
            "valid": 1, "full": 1, "begins": 1, "last": 1, "above": 8, "held": 4,
            "code": WidthCode, "final": 1}))
        lanes = [register(3, name=f"s4_lane{i}") for i in range(8)]
        s4_keep = register(8)
        full = Signal()
        held_next = Signal(range(9))
        m.d.comb += [
            total.eq(held + count),
            full.eq(total[4] | (total[3] & total[:3].any())),
            held_next.eq(Mux(full, Cat(total[:3], total[4]), total)),
        ]
        with m.If(s3.valid):
            m.d.sync += held.eq(Mux(s3.last, 0, held_next))
        m.d.comb += [
            step.valid.eq(s3.valid), step.full.eq(full), step.last.eq(s3.last),
            step.begins.eq(s3.first), step.code.eq(s3.code), step.final.eq(s3.final),
            step.above.eq(reached(held)),
            step.held.eq(held_next),
        ]
        m.d.sync += [
            s4_keep.eq(keep),
            *(lane.eq(held + place) for lane, place in zip(lanes, rank, strict=True)),
        ]
        return later(m, step, "s4_step"), lanes, s4_keep

    def _pack(self, m, word, step, targets, active):
        """Stages 5 to 7: the butterfly. Stage 8: bytes that waited and new ones make a word."""
        s4_data = register_like(word)
        m.d.sync += s4_data.eq(word)
        data = [s4_data.word_select(i, 8) for i in range(8)]
        active = list(active)
        for bit in range(3):
            crosses = crossings(active, targets, bit)
            stage = f"s{5 + bit}"
            data, active, targets = (
                [self._register(m, lane, f"{stage}_{name}{i}") for i, lane in
                 enumerate(exchange(lanes, crosses, bit))]
                for name, lanes in (("data", data), ("active", active), ("target", targets)))
            previous, step = step, later(m, step, f"{stage}_step")
        # Lanes that `rest` has; what a block leaves there goes out behind its last word.
        s7_flushes = Signal()
        s7_rests = Signal(8)
        done = Signal(SqueezerDone)
        joined = register(64)
        leaves = step.valid & step.last
        m.d.comb += [
            done.valid.eq(leaves), done.tail.eq(step.held),
            done.code.eq(step.code), done.final.eq(step.final),
            self.done.eq(later(m, later(m, done, "s7_done"), "s8_done")),
            self.packed.data.eq(joined),
        ]
        m.d.sync += [
            s7_flushes.eq(leaves & step.held.any()),
            s7_rests.eq(Mux(leaves, ~reached(step.held), ~previous.above)),
            self.packed.valid.eq(s7_flushes | (step.valid & step.full)),
        ]
        for i in range(8):
            rest = register(8, name=f"rest{i}")
            m.d.sync += joined.word_select(i, 8).eq(
                Mux(s7_rests[i], rest, data[i] & (~s7_flushes).replicate(8)))
            with m.If(step.valid & (step.full | step.begins | ~s7_rests[i])):
                m.d.sync += rest.eq(data[i])

    @staticmethod
    def _register(m, value, name):
        stage = register(len(value), name=name)
        m.d.sync += stage.eq(value)
        return stage
