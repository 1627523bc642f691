"""Softmax, last step: powers times the reciprocal, rounded once (rules S5 and S6)."""

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import normalise, shift_right
from .formats import FORMATS, FP32, FormatCode
from .softmax_layouts import Power, RowScale
from .softmax_tables import VALUE_WIDTH

__all__ = ["Probability"]

PRODUCT_WIDTH = 2 * VALUE_WIDTH
KEPT = FP32.significand_width + 1   # significand and guard bit of the widest result
LOWEST = -256                       # exponents from here down give zero in every format


class Probability(wiring.Component):
    """Multiplies a power by its row's reciprocal and rounds to the row's result format.

    p = min(1, value * reciprocal * 2^(octave - exponent))

    Members
    -------
    moves : In(1)
        Take ``power`` and ``scale`` at the end of the cycle.
    power : In(Power)
        The element's power.
    scale : In(RowScale)
        The row's.
    o : Out(32)
        The probability, right-aligned.

    Timing
    ------
    ``o`` is combinational from the product's register: the cycle after ``moves``.

    Numerics
    --------
    One rounding to nearest even, subnormals; the canonical NaN if the row is undefined.
    """

    moves: In(1)
    power: In(Power)
    scale: In(RowScale)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()

        # Multiply. Low exponents are cut off, so that few bits are left to round by.
        exponent = self.power.octave - self.scale.exponent
        s1_product, s1_exponent = Signal(PRODUCT_WIDTH), Signal(signed(10))
        s1_undefined, s1_result = Signal(), Signal(FormatCode)
        with m.If(self.moves):
            m.d.sync += [
                s1_product.eq(self.power.value * self.scale.reciprocal),
                s1_exponent.eq(Mux(exponent < LOWEST, LOWEST, exponent)),
                s1_undefined.eq(self.scale.undefined),
                s1_result.eq(self.scale.result),
            ]

        # The leading one is one of the product's upper four bits, or there is none.
        shifted, zeros = normalise(m, s1_product, (2, 1))
        lead = Signal(signed(11))
        m.d.comb += lead.eq(s1_exponent + (PRODUCT_WIDTH - 1) - zeros)
        is_zero = ~shifted[-1]

        # The grid: narrower significands and subnormals leave further bits behind.
        above, excess = Signal(signed(12)), Signal(range(FP32.mantissa_width))
        with m.Switch(s1_result):
            for fmt in FORMATS.values():
                with m.Case(fmt.code):
                    m.d.comb += [
                        above.eq(lead - fmt.min_exponent),
                        excess.eq(FP32.mantissa_width - fmt.mantissa_width),
                    ]
        is_subnormal = above < 0
        drop, amount = Signal(signed(13)), Signal(range(32))
        m.d.comb += [
            drop.eq(excess - Mux(is_subnormal, above, 0)),
            amount.eq(Mux(drop > 31, 31, drop)),  # from KEPT + 1 on only the sticky bit is left
        ]
        kept, is_inexact = shift_right(m, shifted[PRODUCT_WIDTH - KEPT:], amount)
        sticky = is_inexact | shifted[:PRODUCT_WIDTH - KEPT].any()
        rounded, field = Signal(KEPT), Signal(8)
        m.d.comb += [
            rounded.eq(kept[1:] + (kept[0] & (sticky | kept[1]))),
            field.eq(Mux(is_subnormal | is_zero, 0, above)),
        ]

        # Pack: the hidden bit of the rounded significand completes the exponent field.
        with m.Switch(s1_result):
            for fmt in FORMATS.values():
                with m.Case(fmt.code):
                    one = fmt.bias << fmt.mantissa_width
                    packed = Cat(Const(0, fmt.mantissa_width), field) + rounded
                    m.d.comb += self.o.eq(Mux(s1_undefined, fmt.nan_bits,
                                              Mux(~is_zero & (lead >= 0), one, packed)))
        return m
