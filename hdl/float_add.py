"""The fp32 adder."""

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .accumulate import Accumulate
from .arithmetic import delayed, register, register_like
from .float_pack import (
    FLOAT,
    PACK_LATENCY,
    UNROUNDED,
    FloatPack,
    effective,
    shift_right,
    skip_zeros,
)
from .formats import FP32

__all__ = ["ADD_LATENCY", "FloatAdd"]

ADD_LATENCY = 10 + PACK_LATENCY
"""Cycles from the addends to their sum."""

SIGNIFICAND = FP32.significand_width
KEPT = SIGNIFICAND + 2   # with the two bits that may come back when a difference loses its lead
SUM = KEPT + 2           # with a sticky bit below and a carry above


class FloatAdd(wiring.Component):
    """Adds fp32 values: o = round(a + b).

    Parameters
    ----------
    target : str
        Primitives, see ``Accumulate``.

    Members
    -------
    a, b : In(32)
        The addends' bits. To subtract one, turn its sign bit.
    o : Out(32)
        The sum's bits.

    Timing
    ------
    Latency ``ADD_LATENCY`` (12) cycles, one sum per cycle. No reset.

    Numerics
    --------
    IEEE 754 addition: one rounding to nearest even, subnormals honoured in and out, a - a = +0,
    -0 + -0 = -0. A NaN among the addends and Inf - Inf give the canonical NaN.
    """

    def __init__(self, *, target="generic"):
        self.target = target
        super().__init__({"a": In(FP32.width), "b": In(FP32.width), "o": Out(FP32.width)})

    def elaborate(self, platform):
        m = Module()
        # The larger magnitude first.
        s1_a = register(FLOAT)
        s1_b = register(FLOAT)
        s1_swaps = register()
        s2_larger = register(FLOAT)
        s2_smaller = register(FLOAT)
        s2_subtracts = register()
        m.d.sync += [
            s1_a.eq(self.a), s1_b.eq(self.b),
            s1_swaps.eq(self.a[:-1] < self.b[:-1]),
            s2_larger.eq(Mux(s1_swaps, s1_b, s1_a)),
            s2_smaller.eq(Mux(s1_swaps, s1_a, s1_b)),
            s2_subtracts.eq(s1_a.negative ^ s1_b.negative),
        ]
        subtracts = delayed(m, s2_subtracts, 3, "subtracts")
        total = self._sum(m, s2_larger, s2_smaller, subtracts)

        # If one is special, the larger is.
        top, small_top = s2_larger.exponent.all(), s2_smaller.exponent.all()
        s3_nan = register()
        s3_infinite = register()
        m.d.sync += [
            s3_nan.eq(top & (s2_larger.mantissa.any() | (small_top & s2_subtracts))),
            s3_infinite.eq(top),
        ]
        negative = delayed(m, s2_larger.negative, 7, "negative")
        exponent = delayed(m, effective(s2_larger.exponent), 3, "exponent")
        s10 = register(UNROUNDED)
        m.d.sync += [
            s10.nan.eq(delayed(m, s3_nan, 6, "nan")),
            s10.infinite.eq(delayed(m, s3_infinite, 6, "infinite")),
        ]
        self._normalise(m, total, exponent, negative, delayed(m, subtracts, 4, "difference"), s10)
        m.submodules.pack = pack = FloatPack()
        m.d.comb += [pack.i.eq(s10), self.o.eq(pack.o)]
        return m

    def _sum(self, m, larger, smaller, subtracts):
        """Larger plus or minus smaller, aligned: 4 cycles."""
        s3_larger = register(SIGNIFICAND)
        s3_smaller = register(SIGNIFICAND)
        s3_distance = register(FP32.exponent_width)
        m.d.sync += [
            s3_larger.eq(Cat(larger.mantissa, larger.exponent.any())),
            s3_smaller.eq(Cat(smaller.mantissa, smaller.exponent.any())),
            s3_distance.eq(effective(larger.exponent) - effective(smaller.exponent)),
        ]
        # From KEPT places on only the sticky bit is left.
        far = s3_distance[5:].any()
        amount = [s3_distance[place] | far for place in range(5)]
        s4_smaller = register(KEPT)
        s4_sticky = register()
        s4_amount = register(3)
        moved, sticky = shift_right(m, Cat(Const(0, 2), s3_smaller), Const(0, 1),
                                    [(16, amount[4]), (8, amount[3])])
        m.d.sync += [s4_smaller.eq(moved), s4_sticky.eq(sticky), s4_amount.eq(Cat(amount[:3]))]
        s5_smaller = register(KEPT)
        s5_sticky = register()
        moved, sticky = shift_right(m, s4_smaller, s4_sticky,
                                    [(step, s4_amount[place]) for place, step in
                                     ((2, 4), (1, 2), (0, 1))])
        m.d.sync += [s5_smaller.eq(moved), s5_sticky.eq(sticky)]

        m.submodules.adder = adder = Accumulate(
            width=SUM, magnitude_width=SUM - 1, target=self.target)
        s6_total = register(SUM)
        m.d.comb += [
            adder.sum.eq(delayed(m, s3_larger, 2, "larger") << 3),
            adder.magnitude.eq(Cat(s5_sticky, s5_smaller)),
            adder.negative.eq(subtracts), adder.carry.eq(subtracts),
        ]
        m.d.sync += s6_total.eq(adder.o)
        return s6_total

    def _normalise(self, m, total, exponent, negative, subtracts, o):
        """Skip leading zeros, but none below the smallest normal exponent: 4 cycles.

        The upper bit is that of a carry, so that the exponent is one more, less the zeros.
        """
        wide = exponent[5:].any()
        s7_total = register_like(total)
        s7_room = register(4)
        s7_skips = register()
        s7_exponent = register_like(exponent)
        s6_room = register(5)
        m.d.sync += s6_room.eq(exponent[:5] | wide.replicate(5))
        s6_exponent = delayed(m, exponent, 1, "after")
        skipped, room, skips16 = skip_zeros(m, total, s6_room, 16)
        m.d.sync += [s7_total.eq(skipped), s7_room.eq(room), s7_skips.eq(skips16),
                     s7_exponent.eq(s6_exponent)]
        s8_total = register_like(total)
        s8_room = register(2)
        s8_skips = register(3)
        s8_exponent = register_like(exponent)
        skipped, room, skips8 = skip_zeros(m, s7_total, s7_room, 8)
        skipped, room, skips4 = skip_zeros(m, skipped, room, 4)
        m.d.sync += [s8_total.eq(skipped), s8_room.eq(room),
                     s8_skips.eq(Cat(skips4, skips8, s7_skips)), s8_exponent.eq(s7_exponent)]
        s9_total = register_like(total)
        s9_skips = register(5)
        s9_exponent = register_like(exponent)
        skipped, room, skips2 = skip_zeros(m, s8_total, s8_room, 2)
        skipped, _, skips1 = skip_zeros(m, skipped, room, 1)
        m.d.sync += [s9_total.eq(skipped), s9_skips.eq(Cat(skips1, skips2, s8_skips)),
                     s9_exponent.eq(s8_exponent)]
        m.d.sync += [
            o.significand.eq(s9_total[SUM - SIGNIFICAND:]),
            o.guard.eq(s9_total[SUM - SIGNIFICAND - 1]),
            o.sticky.eq(s9_total[:SUM - SIGNIFICAND - 1].any()),
            o.exponent.eq(s9_exponent + 1 - s9_skips),
            # An exact zero is +0, but the sum of two of one sign has it.
            o.negative.eq(negative & ~(subtracts & ~s9_total.any())),
        ]
