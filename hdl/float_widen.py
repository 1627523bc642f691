"""Elements of any format as fp32."""

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import any_of, delayed, register
from .float_pack import FLOAT, effective, skip_zeros
from .formats import BF16, E4M3, E5M2, FORMATS, FP16, FP32, FormatCode

__all__ = ["WIDEN_LATENCY", "FloatWiden"]

WIDEN_LATENCY = 4
"""Cycles from an element to its fp32 value."""


class FloatWiden(wiring.Component):
    """Converts elements of any format to fp32, exactly.

    Members
    -------
    value : In(32)
        An element, right-aligned; the bits above it are ignored.
    format : In(FormatCode)
        Its format.
    o : Out(32)
        The fp32 value's bits; of a NaN any NaN's.

    Timing
    ------
    Latency ``WIDEN_LATENCY`` (4) cycles, one value per cycle. No reset.
    """

    value: In(FP32.width)
    format: In(FormatCode)
    o: Out(FP32.width)

    def elaborate(self, platform):
        m = Module()
        is_format = {fmt.name: Signal(name=f"is_{fmt.name}") for fmt in FORMATS.values()}
        m.d.comb += [is_format[fmt.name].eq(self.format == fmt.code) for fmt in FORMATS.values()]

        def choose(parts):
            return any_of(is_format[fmt.name].replicate(len(part)) & part
                          for fmt, part in parts.items())

        # The narrow formats become fp16, but for subnormals and specials: e5m2 is its upper byte,
        # and of e4m3 the exponent grows by the difference of the biases, 8.
        value = self.value
        byte = Cat(Const(0, 8), value[:8])
        exponent = {FP16: value[10:15], E5M2: byte[10:15], E4M3: value[3:7]}
        eights = effective(exponent[E4M3])
        s1_exponent = register(FP16.exponent_width)
        s1_significand = register(FP16.significand_width)
        s1_special = register()
        s1_wide = register(FLOAT)
        m.d.sync += [
            s1_exponent.eq(choose({
                FP16: effective(exponent[FP16]), E5M2: effective(exponent[E5M2]),
                E4M3: Cat(eights[:3], ~eights[3], eights[3])})),
            s1_significand.eq(choose({
                FP16: Cat(value[:10], exponent[FP16].any()),
                E5M2: Cat(byte[:10], exponent[E5M2].any()),
                E4M3: Cat(Const(0, 7), value[:3], exponent[E4M3].any())})),
            s1_special.eq(choose({
                FP16: exponent[FP16].all(), E5M2: exponent[E5M2].all(), E4M3: value[:7].all()})),
            s1_wide.eq(choose({
                FP32: value[:31], BF16: Cat(Const(0, 16), value[:15])})),
            s1_wide.negative.eq(Mux(is_format["fp32"], value[31],
                                    Mux(is_format["fp16"] | is_format["bf16"], value[15],
                                        value[7]))),
        ]

        s2_significand = register(FP16.significand_width)
        s2_skips = register(2)
        s3_significand = register(FP16.significand_width)
        s3_skips = register(4)
        skipped, room, skips8 = skip_zeros(m, s1_significand, Const(15, 4), 8)
        skipped, room, skips4 = skip_zeros(m, skipped, room, 4)
        m.d.sync += [s2_significand.eq(skipped), s2_skips.eq(Cat(skips4, skips8))]
        skipped, room, skips2 = skip_zeros(m, s2_significand, room, 2)
        skipped, room, skips1 = skip_zeros(m, skipped, room, 1)
        m.d.sync += [s3_significand.eq(skipped), s3_skips.eq(Cat(skips1, skips2, s2_skips))]

        # The biases differ by 112 = 0b01110000.
        s3_exponent = delayed(m, s1_exponent, 2, "narrow")
        s3_special = delayed(m, s1_special, 2, "is_special")
        s3_wide = delayed(m, s1_wide, 2, "wide")
        upper = s3_exponent[4]
        biased = Signal(FP32.exponent_width)
        o = register(FLOAT)
        shift = FP32.mantissa_width - FP16.mantissa_width
        m.d.comb += biased.eq(Cat(s3_exponent[:4], (~upper).replicate(3), upper) - s3_skips)
        m.d.sync += [
            o.negative.eq(s3_wide.negative),
            o.exponent.eq(s3_wide.exponent | s3_special.replicate(FP32.exponent_width)
                          | (biased & s3_significand[-1].replicate(FP32.exponent_width))),
            o.mantissa.eq(s3_wide.mantissa | (s3_significand[:-1] << shift)),
        ]
        m.d.comb += self.o.eq(o)
        return m
