"""The rounder: an exact sum becomes one value of any format, rounded once."""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .accumulate import Accumulate
from .arithmetic import shift_right, tree_sum
from .formats import FORMATS, FP32, FormatCode
from .geometry import ROUND_LATENCY
from .layouts import Result

__all__ = ["WEIGHT", "Rounder", "exact_sum"]

WEIGHT = signed(13)
"""Shape of the exponent of a sum's lowest bit."""

KEPT = FP32.significand_width + 1  # significand and guard bit of the widest result


def exact_sum(accumulator_width):
    """A finished sum, two's complement: (nan | infinities | sum * 2^weight), and how to round it.

    ``lost``: bits were dropped under the window. ``last`` travels along.
    """
    return data.StructLayout({
        "sum": accumulator_width, "weight": WEIGHT, "nan": 1, "positive_infinity": 1,
        "negative_infinity": 1, "lost": 1, "result": FormatCode, "saturate": 1, "last": 1,
    })


class Rounder(wiring.Component):
    """Rounds exact sums to nearest, ties to even, into the format that each one asks for.

    Parameters
    ----------
    accumulator_width : int
        Bits of a sum, two's complement; at least 2.

    target : str
        Primitives, see ``Accumulate``.

    Members
    -------
    i : In(stream of exact_sum(accumulator_width), always ready)
        Sums.
    o : Out(stream of Result, always ready)
        Results, in order.

    Timing
    ------
    One result per cycle, latency ``ROUND_LATENCY`` (9) cycles.

    Numerics
    --------
    Rules N1 to N3: one rounding, subnormals, +0 for an exact zero, the canonical NaN. Overflow and
    Inf: with ``saturate`` the largest finite value, else Inf (NaN in a format without). ``lost`` is
    dropped where the sum is NaN or infinite.
    """

    def __init__(self, *, accumulator_width, target="generic"):
        if not isinstance(accumulator_width, int) or accumulator_width < 2:
            raise ValueError(f"accumulator_width is an int of at least 2; got {accumulator_width}")
        self.accumulator_width, self.target = accumulator_width, target
        super().__init__({
            "i": In(stream.Signature(exact_sum(accumulator_width), always_ready=True)),
            "o": Out(stream.Signature(Result, always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.normaliser = normaliser = Normaliser(
            width=self.accumulator_width, target=self.target)
        m.submodules.packer = packer = Packer()
        m.d.comb += [
            normaliser.i.eq(self.i.payload),
            packer.i.eq(normaliser.o),
            self.o.payload.eq(packer.o),
        ]
        valid = self.i.valid
        for number in range(1, ROUND_LATENCY):
            stage_valid = Signal(name=f"s{number}_valid")
            m.d.sync += stage_valid.eq(valid)
            valid = stage_valid
        m.d.sync += self.o.valid.eq(valid)
        return m


NORMALISED = data.StructLayout({
    "significand": KEPT, "sticky": 1, "exponent": signed(14), "negative": 1, "nan": 1,
    "infinite": 1, "lost": 1, "result": FormatCode, "saturate": 1, "last": 1,
})


class Normaliser(wiring.Component):
    """Sign, exponent and the leading bits of a sum, the rest gathered in ``sticky``: 5 cycles.

    The leading one is the significand's upper bit; a zero has the significand 0.
    """

    STAGES = 4  # of shifts

    def __init__(self, *, width, target):
        self.width, self.target = width, target
        super().__init__({"i": In(exact_sum(width)), "o": Out(NORMALISED)})

    def elaborate(self, platform):
        m = Module()

        # Sign and magnitude, at most 2^(width - 1).
        special = self.i.nan | self.i.positive_infinity | self.i.negative_infinity
        m.submodules.negate = negate = Accumulate(
            width=self.width, magnitude_width=self.width, target=self.target)
        m.d.comb += [negate.clear.eq(1), negate.magnitude.eq(self.i.sum),
                     negate.negative.eq(self.i.sum[-1])]
        stage, magnitude = Signal(NORMALISED, name="s1"), Signal(self.width, name="s1_magnitude")
        m.d.sync += [
            magnitude.eq(negate.o),
            stage.exponent.eq(self.i.weight + (self.width - 1)),
            stage.negative.eq(Mux(special, self.i.negative_infinity & ~self.i.nan,
                                  self.i.sum[-1])),
            stage.nan.eq(self.i.nan | (self.i.positive_infinity & self.i.negative_infinity)),
            stage.infinite.eq(self.i.positive_infinity | self.i.negative_infinity),
            stage.lost.eq(self.i.lost & ~special),
            *(stage[name].eq(self.i[name]) for name in ("result", "saturate", "last")),
        ]

        # Leading zeros, by halves, a step or more in each cycle.
        steps = [1 << n for n in reversed(range((self.width - 1).bit_length()))]
        for number in range(self.STAGES):
            left = self.STAGES - number
            here, steps = steps[:len(steps) // left], steps[len(steps) // left:]
            shifted, amount, dropped = magnitude, [Const(0)], stage.sticky
            for step in here:
                shifted, is_clear, part = _skip_zeros(m, shifted, step)
                amount.append(Mux(is_clear, step, 0))
                dropped |= part
            following = self.o if left == 1 else Signal(NORMALISED, name=f"s{number + 2}")
            m.d.sync += [following.eq(stage), following.sticky.eq(dropped),
                         following.exponent.eq(stage.exponent - tree_sum(amount))]
            stage = following
            if left > 1:
                magnitude = Signal(len(shifted), name=f"s{number + 2}_magnitude")
                m.d.sync += magnitude.eq(shifted)
            else:
                m.d.sync += self.o.significand.eq(
                    Cat(Const(0, KEPT - len(shifted)), shifted))
        return m


def _skip_zeros(m, value, step):
    """(``value`` without ``step`` leading zeros if it has them, whether it had, what dropped out).

    Of the result only the bits are kept that can still become part of the KEPT leading ones.
    """
    width = len(value)
    kept = min(width, KEPT + step - 1)
    below = width - kept
    shifted, is_clear, dropped = Signal(kept), Signal(), Signal()
    m.d.comb += [
        is_clear.eq(~value[max(0, width - step):].any()),
        shifted.eq(Mux(is_clear, (value << step)[below:width], value[below:])),
        dropped.eq(value[:max(0, below - step)].any()
                   | (~is_clear & value[max(0, below - step):below].any())),
    ]
    return shifted, is_clear, dropped


class Packer(wiring.Component):
    """Shifts to the result's grid, rounds and packs: 4 cycles."""

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
        s1, s1_below, s1_excess = Signal(NORMALISED), Signal(range(32)), Signal.like(excess)
        s1_field = Signal(14)  # the biased exponent; 0: subnormal or zero
        m.d.sync += [
            s1.eq(self.i),
            s1_excess.eq(excess),
            s1_below.eq(Mux(is_subnormal, Mux(below > 31, 31, below), 0)),
            s1_field.eq(Mux(is_subnormal | ~self.i.significand[-1], 0, 1 - below)),
        ]

        # From KEPT + 1 places on only the sticky bit is left.
        drop, amount = Signal(range(64)), Signal(range(32))
        m.d.comb += [drop.eq(s1_excess + s1_below), amount.eq(Mux(drop > 31, 31, drop))]
        kept, dropped = shift_right(m, s1.significand, amount)
        s2, s2_kept, s2_field, s2_sticky = (
            Signal(NORMALISED), Signal(KEPT), Signal.like(s1_field), Signal())
        m.d.sync += [s2.eq(s1), s2_kept.eq(kept), s2_field.eq(s1_field),
                     s2_sticky.eq(dropped | s1.sticky)]

        # Exponent and mantissa side by side: the carry out of a rounding up is the exponent's. The
        # hidden bit is the field's, too: it tells subnormals that have become normal.
        fields = Signal(14 + FP32.mantissa_width)
        with m.Switch(s2.result):
            for fmt in FORMATS.values():
                with m.Case(fmt.code):
                    m.d.comb += fields.eq(Cat(s2_kept[1:1 + fmt.mantissa_width], s2_field))
        s3, s3_magnitude = Signal(NORMALISED), Signal.like(fields)
        m.d.sync += [s3.eq(s2), s3_magnitude.eq(
            fields + (s2_kept[0] & (s2_sticky | s2_kept[1])))]

        beyond, sign, canonical = Signal(32), Signal(32), Signal(32)
        is_nan, overflows = Signal(), Signal()
        with m.Switch(s3.result):
            for fmt in FORMATS.values():
                with m.Case(fmt.code):
                    m.d.comb += [
                        overflows.eq(s3.infinite | _exceeds(s3_magnitude, fmt)),
                        is_nan.eq(s3.nan | (0 if fmt.ieee else overflows & ~s3.saturate)),
                        beyond.eq(Mux(s3.saturate, fmt.max_finite_bits,
                                      fmt.infinity_bits if fmt.ieee else fmt.nan_bits)),
                        sign.eq(s3.negative << (fmt.width - 1)),
                        canonical.eq(fmt.nan_bits),
                    ]
        bits = Mux(is_nan, canonical, sign | Mux(overflows, beyond, s3_magnitude))
        m.d.sync += [self.o.data.eq(bits), self.o.lost.eq(s3.lost), self.o.last.eq(s3.last)]
        return m


def _exceeds(magnitude, fmt):
    """Whether exponent and mantissa, side by side, are beyond the format's largest finite value."""
    # That is 1..10..0 or above, with as many ones as the value after the largest has.
    first = fmt.max_finite_bits + 1
    low = (first & -first).bit_length() - 1
    high = fmt.width - 1
    assert first >> low == (1 << high - low) - 1
    return magnitude[high:].any() | magnitude[low:high].all()
