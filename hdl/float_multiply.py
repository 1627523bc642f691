"""The fp32 multiplier."""

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

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
from .multiplier import MULTIPLIER_LATENCY, Multiplier

__all__ = ["MULTIPLY_LATENCY", "FloatMultiply"]

MULTIPLY_LATENCY = 4 + MULTIPLIER_LATENCY + 4 + PACK_LATENCY
"""Cycles from the factors to their product."""

SIGNIFICAND = FP32.significand_width
LOW = 18                   # bits of a significand's lower part, as a multiplier takes
PRODUCT = 2 * SIGNIFICAND
KEPT = SIGNIFICAND + 2     # upper bits of the product: a carry, the significand, the guard bit

OUTCOME = data.StructLayout({"negative": 1, "nan": 1, "infinite": 1})


class FloatMultiply(wiring.Component):
    """Multiplies fp32 values: o = round(a * b).

    Parameters
    ----------
    target : str
        Primitives, see ``Multiplier``: four of them.

    Members
    -------
    a, b : In(32)
        The factors' bits.
    enable : In(1)
        Of the multipliers' registers, which no ``EnableInserter`` reaches; the others are to be
        held by one at the same time.
    o : Out(32)
        The product's bits.

    Timing
    ------
    Latency ``MULTIPLY_LATENCY`` (14) cycles, one product per cycle. No reset.

    Numerics
    --------
    IEEE 754 multiplication: one rounding to nearest even, subnormals honoured in and out. A NaN
    among the factors and 0 * Inf give the canonical NaN.
    """

    def __init__(self, *, target="generic"):
        self.target = target
        super().__init__({"a": In(FP32.width), "b": In(FP32.width), "enable": In(1, init=1),
                          "o": Out(FP32.width)})

    def elaborate(self, platform):
        m = Module()
        s1_a = register(FLOAT)
        s1_b = register(FLOAT)
        m.d.sync += [s1_a.eq(self.a), s1_b.eq(self.b)]
        outcome = self._outcome(m, s1_a, s1_b)

        # If any is subnormal, the second is; if both are, nothing but a sticky bit is left.
        swaps = ~s1_a.exponent.any()
        s2_first = register(SIGNIFICAND)
        s2_second = register(SIGNIFICAND)
        s2_exponent = register(FP32.exponent_width + 1)
        first, second = (Cat(one.mantissa, one.exponent.any()) for one in (s1_a, s1_b))
        m.d.sync += [
            s2_first.eq(Mux(swaps, second, first)),
            s2_second.eq(Mux(swaps, first, second)),
            s2_exponent.eq(effective(s1_a.exponent) + effective(s1_b.exponent)),
        ]
        s4_second, zeros = self._normalise(m, s2_second)
        product, sticky = self._product(m, delayed(m, s2_first, 2, "first"), s4_second)

        # The exponent of a product below 2, which its place below says.
        s3_exponent = register(signed(FP32.exponent_width + 2))
        s5_exponent = register(signed(FP32.exponent_width + 2))
        m.d.sync += [
            s3_exponent.eq(s2_exponent - FP32.bias),
            s5_exponent.eq(delayed(m, s3_exponent, 1, "sum") - zeros),
        ]
        s12 = self._place(m, product, sticky, s5_exponent)
        m.submodules.pack = pack = FloatPack()
        m.d.comb += [
            pack.i.eq(s12), pack.i.negative.eq(outcome.negative), pack.i.nan.eq(outcome.nan),
            pack.i.infinite.eq(outcome.infinite | s12.infinite),
            self.o.eq(pack.o),
        ]
        return m

    def _outcome(self, m, a, b):
        """What does not depend on the significands' product, when that is placed."""
        tops = [one.exponent.all() for one in (a, b)]
        anys = [one.mantissa.any() for one in (a, b)]
        zeros = [~one.exponent.any() & ~one.mantissa.any() for one in (a, b)]
        s2 = register(OUTCOME)
        m.d.sync += [
            s2.negative.eq(a.negative ^ b.negative),
            s2.nan.eq((tops[0] & (anys[0] | zeros[1])) | (tops[1] & (anys[1] | zeros[0]))),
            s2.infinite.eq(tops[0] | tops[1]),
        ]
        return delayed(m, s2, 6 + MULTIPLIER_LATENCY, "outcome")

    def _normalise(self, m, value):
        """A significand without leading zeros, and how many it had: 2 cycles."""
        room = Const(31, 5)
        s3_value = register_like(value)
        s4_value = register_like(value)
        s3_zeros = register(2)
        s4_zeros = register(5)
        skipped, room, skips16 = skip_zeros(m, value, room, 16)
        skipped, room, skips8 = skip_zeros(m, skipped, room, 8)
        m.d.sync += [s3_value.eq(skipped), s3_zeros.eq(Cat(skips8, skips16))]
        skipped, room, skips4 = skip_zeros(m, s3_value, room, 4)
        skipped, room, skips2 = skip_zeros(m, skipped, room, 2)
        skipped, room, skips1 = skip_zeros(m, skipped, room, 1)
        m.d.sync += [s4_value.eq(skipped), s4_zeros.eq(Cat(skips1, skips2, skips4, s3_zeros))]
        return s4_value, s4_zeros

    def _product(self, m, a, b):
        """(The product without its LOW lowest bits, whether any of them is set): 2 cycles and the
        multipliers' own.

        a * b = high high * 2^36 + (high low + low high) * 2^18 + low low
        """
        parts = []
        for name, one, other in (("low_low", a[:LOW], b[:LOW]), ("high_low", a[LOW:], b[:LOW]),
                                 ("low_high", a[:LOW], b[LOW:]), ("high_high", a[LOW:], b[LOW:])):
            m.submodules[name] = multiplier = Multiplier(width=LOW, target=self.target, holds=True)
            m.d.comb += [multiplier.a.eq(one), multiplier.b.eq(other),
                         multiplier.enable.eq(self.enable)]
            parts.append(multiplier.o[:len(one) + len(other)])
        low, *middle, high = parts
        outer = Cat(low[LOW:], high)
        s9_middle = register(SIGNIFICAND + 1)
        s9_outer = register_like(outer)
        s9_sticky = register()
        s10_product = register_like(outer)
        m.d.sync += [
            s9_middle.eq(middle[0] + middle[1]), s9_outer.eq(outer),
            s9_sticky.eq(low[:LOW].any()),
            s10_product.eq(s9_outer + s9_middle),
        ]
        return s10_product, delayed(m, s9_sticky, 1, "below")

    def _place(self, m, product, sticky, exponent):
        """The product on fp32's grid: 2 cycles."""
        # Below the smallest normal exponent it goes down, far below to nothing but a sticky bit.
        exponent = delayed(m, exponent, MULTIPLIER_LATENCY - 1, "exponent")
        smallest = exponent < 1
        below = Signal(signed(len(exponent) + 1))
        m.d.comb += below.eq(1 - exponent)
        s9_is_normal = register()
        s9_below = register(5)
        s9_is_far = register()
        s9_exponent = register_like(exponent)
        s10_is_normal = register()
        s10_below = register(5)
        s10_exponent = register(FP32.exponent_width)
        s10_is_beyond = register()
        top_exponent = (1 << FP32.exponent_width) - 1
        m.d.sync += [
            s9_is_normal.eq(~smallest), s9_below.eq(below), s9_is_far.eq(below[5:].any()),
            s9_exponent.eq(exponent),
            s10_is_normal.eq(s9_is_normal),
            s10_below.eq(Mux(s9_is_normal, 0, s9_below | s9_is_far.replicate(5))),
            s10_exponent.eq(Mux(s9_is_normal, s9_exponent, 1)),
            s10_is_beyond.eq(s9_exponent >= top_exponent),
        ]
        carry = product[-1]
        s11_value = register(KEPT)
        s11_sticky = register()
        s11_amount = register(3)
        s11_exponent = register_like(s10_exponent)
        s11_infinite = register()
        s12 = register(UNROUNDED)
        value, dropped = shift_right(
            m, product[-KEPT:], sticky | product[:len(product) - KEPT].any(),
            [(16, s10_below[4]), (8, s10_below[3])])
        m.d.sync += [
            s11_value.eq(value), s11_sticky.eq(dropped),
            s11_amount.eq(s10_below[:3] | (s10_is_normal & carry)),
            s11_exponent.eq(s10_exponent + (s10_is_normal & carry)),
            s11_infinite.eq(s10_is_beyond),  # that a carry leads there, the packing sees
        ]
        value, dropped = shift_right(
            m, s11_value, s11_sticky, [(4, s11_amount[2]), (2, s11_amount[1]), (1, s11_amount[0])])
        m.d.sync += [
            s12.guard.eq(value[0]), s12.significand.eq(value[1:]), s12.sticky.eq(dropped),
            s12.exponent.eq(s11_exponent), s12.infinite.eq(s11_infinite),
        ]
        return s12
