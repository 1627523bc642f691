"""The rounder: an exact sum becomes one value of any format, rounded once."""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import negate_if, normalise, shift_right
from .formats import FORMATS, FP32, FormatCode
from .layouts import Result

__all__ = ["WEIGHT", "Rounder", "exact_sum"]

WEIGHT = signed(13)
"""Shape of the exponent of a sum's lowest bit."""

KEPT = FP32.significand_width + 1  # significand and guard bit of the widest result


def exact_sum(accumulator_width):
    """A finished sum: (nan | infinities | sum * 2^weight), and how to round it.

    ``lost``: bits were dropped under the window. ``last`` travels along.
    """
    return data.StructLayout({
        "sum": signed(accumulator_width), "weight": WEIGHT, "nan": 1, "positive_infinity": 1,
        "negative_infinity": 1, "lost": 1, "result": FormatCode, "saturate": 1, "last": 1,
    })


class Rounder(wiring.Component):
    """Rounds exact sums to nearest, ties to even, into the format that each one asks for.

    Parameters
    ----------
    accumulator_width : int
        Bits of a sum, two's complement; at least 2.

    Members
    -------
    i : In(stream of exact_sum(accumulator_width))
        Sums.
    o : Out(stream of Result)
        Results, in order.

    Timing
    ------
    One result per cycle, latency ``ROUND_LATENCY`` (5) cycles. A stalled ``o`` holds all stages:
    ``i.ready`` is ``o.ready | ~o.valid``.

    Numerics
    --------
    Rules N1 to N3: one rounding, subnormals, +0 for an exact zero, the canonical NaN. Overflow and
    Inf: with ``saturate`` the largest finite value, else Inf (NaN in a format without). ``lost`` is
    dropped where the sum is NaN or infinite.
    """

    def __init__(self, *, accumulator_width):
        if not isinstance(accumulator_width, int) or accumulator_width < 2:
            raise ValueError(f"accumulator_width is an int of at least 2; got {accumulator_width}")
        self.accumulator_width = accumulator_width
        super().__init__({
            "i": In(stream.Signature(exact_sum(accumulator_width))),
            "o": Out(stream.Signature(Result)),
        })

    def elaborate(self, platform):
        m = Module()
        moves = self.i.ready
        m.d.comb += moves.eq(self.o.ready | ~self.o.valid)
        stage = EnableInserter(moves)

        m.submodules.normaliser = normaliser = stage(Normaliser(width=self.accumulator_width))
        m.submodules.packer = packer = stage(Packer())
        m.d.comb += [
            normaliser.i.eq(self.i.payload),
            packer.i.eq(normaliser.o),
            self.o.payload.eq(packer.o),
        ]
        valid = self.i.valid
        for number in range(1, 5):
            stage_valid = Signal(name=f"s{number}_valid")
            with m.If(moves):
                m.d.sync += stage_valid.eq(valid)
            valid = stage_valid
        with m.If(moves):
            m.d.sync += self.o.valid.eq(valid)
        return m


NORMALISED = data.StructLayout({
    "significand": KEPT, "sticky": 1, "exponent": signed(14), "negative": 1, "nan": 1,
    "infinite": 1, "lost": 1, "result": FormatCode, "saturate": 1, "last": 1,
})


class Normaliser(wiring.Component):
    """Sign, exponent and the leading bits of a sum, the rest gathered in ``sticky``: 3 cycles.

    The leading one is the significand's upper bit; a zero has the significand 0.
    """

    def __init__(self, *, width):
        self.width = width
        super().__init__({"i": In(exact_sum(width)), "o": Out(NORMALISED)})

    def elaborate(self, platform):
        m = Module()
        half = max(4, ((self.width - 1).bit_length() + 1) // 2)
        coarse = [1 << n for n in reversed(range(half, (self.width - 1).bit_length()))]
        fine = [1 << n for n in reversed(range(half))]

        # Sign and magnitude.
        magnitude, negative = Signal(self.width), self.i.sum < 0
        addend, carry = negate_if(negative, self.i.sum)
        m.d.comb += magnitude.eq(addend + carry)  # at most 2^(width - 1)
        s1 = Signal(NORMALISED)
        s1_magnitude = Signal(self.width)
        m.d.sync += [
            s1_magnitude.eq(magnitude),
            s1.exponent.eq(self.i.weight + (self.width - 1)),
            s1.negative.eq(Mux(self.i.nan | self.i.positive_infinity | self.i.negative_infinity,
                               self.i.negative_infinity & ~self.i.nan, negative)),
            s1.nan.eq(self.i.nan | (self.i.positive_infinity & self.i.negative_infinity)),
            s1.infinite.eq(self.i.positive_infinity | self.i.negative_infinity),
            s1.lost.eq(self.i.lost & ~(self.i.nan | self.i.positive_infinity
                                       | self.i.negative_infinity)),
            *(s1[name].eq(self.i[name]) for name in ("result", "saturate", "last")),
        ]

        # Leading zeros, in two steps.
        shifted, amount = normalise(m, s1_magnitude, coarse)
        s2, s2_magnitude = Signal(NORMALISED), Signal(self.width)
        m.d.sync += [
            s2.eq(s1),
            s2_magnitude.eq(shifted),
            s2.exponent.eq(s1.exponent - amount),
        ]
        shifted, amount = normalise(m, s2_magnitude, fine)
        rest = max(0, self.width - KEPT)
        m.d.sync += [
            self.o.eq(s2),
            self.o.significand.eq(Cat(Const(0, max(0, KEPT - self.width)), shifted[rest:])),
            self.o.sticky.eq(shifted[:rest].any()),
            self.o.exponent.eq(s2.exponent - amount),
        ]
        return m


class Packer(wiring.Component):
    """Shifts to the result's grid, rounds and packs: 2 cycles."""

    def __init__(self):
        super().__init__({"i": In(NORMALISED), "o": Out(Result)})

    def elaborate(self, platform):
        m = Module()

        # The grid: narrower significands and subnormals leave further bits behind.
        below, excess = Signal(signed(15)), Signal(range(KEPT))
        with m.Switch(self.i.result):
            for fmt in FORMATS.values():
                with m.Case(fmt.code):
                    m.d.comb += [
                        below.eq(fmt.min_exponent - self.i.exponent),
                        excess.eq(FP32.mantissa_width - fmt.mantissa_width),
                    ]
        is_subnormal = below > 0
        drop, amount = Signal(signed(16)), Signal(range(32))
        m.d.comb += [
            drop.eq(excess + Mux(is_subnormal, below, 0)),
            amount.eq(Mux(drop > 31, 31, drop)),  # from KEPT + 1 on only the sticky bit is left
        ]
        kept, dropped = shift_right(m, self.i.significand, amount)
        is_zero = ~self.i.significand.any()
        s1, s1_kept, s1_sticky = Signal(NORMALISED), Signal(KEPT), Signal()
        s1_field = Signal(14)  # biased exponent less one
        m.d.sync += [
            s1.eq(self.i),
            s1_kept.eq(kept),
            s1_sticky.eq(dropped | self.i.sticky),
            s1_field.eq(Mux(is_subnormal | is_zero, 0, -below)),
        ]

        # The hidden bit of the rounded significand completes the exponent field, and so does the
        # carry out of a rounding up.
        rounded = Signal(KEPT)
        m.d.comb += rounded.eq(s1_kept[1:] + (s1_kept[0] & (s1_sticky | s1_kept[1])))
        magnitude, beyond, sign, canonical = (Signal(14 + FP32.mantissa_width), Signal(32),
                                              Signal(32), Signal(32))
        is_nan, overflows = Signal(), Signal()
        with m.Switch(s1.result):
            for fmt in FORMATS.values():
                with m.Case(fmt.code):
                    m.d.comb += [
                        magnitude.eq(Cat(Const(0, fmt.mantissa_width), s1_field) + rounded),
                        overflows.eq(s1.infinite | (magnitude > fmt.max_finite_bits)),
                        is_nan.eq(s1.nan | (0 if fmt.ieee else overflows & ~s1.saturate)),
                        beyond.eq(Mux(s1.saturate, fmt.max_finite_bits,
                                      fmt.infinity_bits if fmt.ieee else fmt.nan_bits)),
                        sign.eq(s1.negative << (fmt.width - 1)),
                        canonical.eq(fmt.nan_bits),
                    ]
        bits = Mux(is_nan, canonical, sign | Mux(overflows, beyond, magnitude))
        m.d.sync += [self.o.data.eq(bits), self.o.lost.eq(s1.lost), self.o.last.eq(s1.last)]
        return m
