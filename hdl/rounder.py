"""The rounder: an exact sum becomes one value of any format, rounded once."""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .accumulate import Accumulate
from .arithmetic import any_of, register, register_like
from .formats import FORMATS, FP32, FormatCode
from .geometry import ROUND_LATENCY
from .layouts import Result

__all__ = ["WEIGHT", "Rounder", "exact_sum"]

WEIGHT = signed(13)
"""Shape of the exponent of a sum's lowest bit."""

KEPT = FP32.significand_width + 1  # significand and guard bit of the widest result
FIELD = 14  # bits of a biased exponent on its way
GROUP = 8  # bits of which it is known at once whether all are zeros


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
    One result per cycle, latency ``ROUND_LATENCY`` (21) cycles.

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
    """Sign, exponent and the leading bits of a sum, the rest gathered in ``sticky``: 10 cycles.

    The leading one is the significand's upper bit; a zero has the significand 0.
    """

    STAGES = 7  # of shifts

    def __init__(self, *, width, target):
        self.width, self.target = width, target
        super().__init__({"i": In(exact_sum(width)), "o": Out(NORMALISED)})

    def elaborate(self, platform):
        m = Module()

        # Sign and magnitude, at most 2^(width - 1).
        special = self.i.nan | self.i.positive_infinity | self.i.negative_infinity
        # The lower half first, its carry a cycle later.
        half, sign = self.width // 2, self.i.sum[-1]
        s1 = register(NORMALISED)
        s1_lower = register(half)
        s1_carry = register()
        s1_upper = register(self.width - half)
        s1_sign = register()
        m.d.sync += [
            Cat(s1_lower, s1_carry).eq(self._negate(m, "lower", self.i.sum[:half], sign, sign)),
            s1_upper.eq(self.i.sum[half:]), s1_sign.eq(sign),
            s1.exponent.eq(self.i.weight),
            s1.negative.eq(Mux(special, self.i.negative_infinity & ~self.i.nan,
                               self.i.sum[-1])),
            s1.nan.eq(self.i.nan | (self.i.positive_infinity & self.i.negative_infinity)),
            s1.infinite.eq(self.i.positive_infinity | self.i.negative_infinity),
            s1.lost.eq(self.i.lost & ~special),
            *(s1[name].eq(self.i[name]) for name in ("result", "saturate", "last")),
        ]

        s2 = register(NORMALISED)
        s2_magnitude = register(self.width)
        m.d.sync += [
            s2.eq(s1), s2.exponent.eq(s1.exponent + (self.width - 1)),
            s2_magnitude.eq(Cat(
                s1_lower, self._negate(m, "upper", s1_upper, s1_sign, s1_carry))),
        ]

        # Which groups of bits, from the top, are zeros: the large steps look at nothing else.
        stage = register(NORMALISED, name="s3")
        magnitude = register(self.width, name="s3_magnitude")
        clear = register(-(-self.width // GROUP), name="s3_is_clear")
        m.d.sync += [
            stage.eq(s2), magnitude.eq(s2_magnitude),
            clear.eq(Cat(~s2_magnitude[max(0, high - GROUP):high].any()
                         for high in range(self.width, 0, -GROUP))),
        ]

        # Leading zeros, by halves, a step or more in each cycle; their bits make the amount.
        steps = [1 << n for n in reversed(range((self.width - 1).bit_length()))]
        taken = []
        for number in range(self.STAGES):
            left = self.STAGES - number
            here, steps = steps[:len(steps) // left], steps[len(steps) // left:]
            shifted, sticky = magnitude, stage.sticky
            for step in here:
                shifted, clear, skips, part = _skip_zeros(m, shifted, clear, step)
                taken.insert(0, skips)
                sticky |= part
            last = left == 1
            following = register(NORMALISED, name=f"s{number + 4}")
            m.d.sync += [following.eq(stage), following.sticky.eq(sticky)]
            if last:
                m.d.sync += [
                    following.exponent.eq(stage.exponent - Cat(taken)),
                    following.significand.eq(Cat(Const(0, KEPT - len(shifted)), shifted)),
                ]
                m.d.comb += self.o.eq(following)
                continue
            magnitude, s_clear, s_taken = (
                register(len(value), name=f"s{number + 4}_{name}") for value, name in (
                    (shifted, "magnitude"), (clear, "is_clear"), (Cat(taken), "taken")))
            m.d.sync += [magnitude.eq(shifted), s_clear.eq(clear), s_taken.eq(Cat(taken))]
            stage, clear, taken = following, s_clear, list(s_taken)
        return m

    def _negate(self, m, name, value, negative, carry):
        """Half of a sum without its sign: the bits, and the carry above."""
        m.submodules[name] = adder = Accumulate(
            width=len(value), magnitude_width=len(value), target=self.target)
        m.d.comb += [adder.clear.eq(1), adder.magnitude.eq(value), adder.negative.eq(negative),
                     adder.carry.eq(carry)]
        return adder.o


def _skip_zeros(m, value, clear, step):
    """(``value`` without ``step`` leading zeros if it has them, the same of its groups, whether it
    had, what dropped out).

    Of the result only the bits are kept that can still become part of the KEPT leading ones.
    """
    width = len(value)
    kept = min(width, KEPT + step - 1)
    below = width - kept
    shifted = Signal(kept)
    skips = Signal()
    drops = Signal()
    groups = step // GROUP
    m.d.comb += [
        skips.eq(clear[:groups].all() if groups else ~value[max(0, width - step):].any()),
        shifted.eq(Mux(skips, (value << step)[below:width], value[below:])),
        drops.eq(value[:max(0, below - step)].any()
                   | (~skips & value[max(0, below - step):below].any())),
    ]
    following = Signal(len(clear))
    m.d.comb += following.eq(Mux(skips, clear >> groups, clear) if groups else clear)
    return shifted, following, skips, drops


class Packer(wiring.Component):
    """Shifts to the result's grid, rounds and packs: 11 cycles."""

    def __init__(self):
        super().__init__({"i": In(NORMALISED), "o": Out(Result)})

    def elaborate(self, platform):
        m = Module()

        # The grid: narrower significands and subnormals leave further bits behind.
        s1 = register(NORMALISED)
        lowest = register(signed(9))
        biased = register(signed(9))
        excess = register(range(KEPT))
        m.d.sync += s1.eq(self.i)
        with m.Switch(self.i.result):
            for fmt in FORMATS.values():
                with m.Case(fmt.code):
                    m.d.sync += [
                        lowest.eq(fmt.min_exponent),
                        biased.eq(1 - fmt.min_exponent),
                        excess.eq(FP32.mantissa_width - fmt.mantissa_width),
                    ]
        s2 = register(NORMALISED)
        s2_above = register(signed(15))
        s2_excess = register_like(excess)
        s2_field = register(15)  # the biased exponent, if it is a normal value's
        m.d.sync += [
            s2.eq(s1),
            s2_excess.eq(excess),
            s2_above.eq(s1.exponent - lowest),
            s2_field.eq(s1.exponent + biased),
        ]

        # From KEPT + 1 places on only the sticky bit is left. Places below, less one, are those
        # above, complemented.
        is_subnormal, below, is_far = s2_above < 0, ~s2_above[:5], ~s2_above[5:].all()
        s3 = register(NORMALISED)
        s3_below = register_like(below)
        s3_excess = register_like(excess)
        s3_is_subnormal = register()
        s3_field = register(FIELD)
        s3_has_field = register()
        m.d.sync += [
            s3.eq(s2),
            s3_is_subnormal.eq(is_subnormal),
            s3_below.eq(Mux(is_subnormal, below | is_far.replicate(len(below)), 0)),
            s3_excess.eq(s2_excess),
            s3_field.eq(s2_field),
            s3_has_field.eq(~is_subnormal & s2.significand[-1]),
        ]
        # By bytes, then by bits: whatever drops out of either is sticky.
        drop = s3_excess + s3_below + s3_is_subnormal
        s4 = register(NORMALISED)
        s4_amount = register(range(32))
        s4_field = register(FIELD)
        s4_bytes = register(KEPT // 8)
        m.d.sync += [
            s4.eq(s3),
            s4_amount.eq(Mux(drop > 31, 31, drop)),
            s4_field.eq(Mux(s3_has_field, s3_field, 0)),
            s4_bytes.eq(Cat(s3.significand[8 * n:8 * n + 8].any() for n in range(KEPT // 8))),
        ]
        s5 = register(NORMALISED)
        s5_kept = register(KEPT)
        s5_sticky = register()
        s5_amount = register(3)
        s5_field = register(FIELD)
        by_bytes = s4_amount[3:]
        m.d.sync += [
            s5.eq(s4), s5_kept.eq(s4.significand >> (by_bytes << 3)),
            s5_sticky.eq(s4.sticky | dropped(s4_bytes, by_bytes)),
            s5_amount.eq(s4_amount), s5_field.eq(s4_field),
        ]
        s6 = register(NORMALISED)
        s6_kept = register(KEPT)
        s6_sticky = register()
        s6_field = register(FIELD)
        m.d.sync += [
            s6.eq(s5), s6_kept.eq(s5_kept >> s5_amount),
            s6_sticky.eq(s5_sticky | dropped(s5_kept[:7], s5_amount)), s6_field.eq(s5_field),
        ]
        return self._round(m, s6, s6_kept, s6_sticky, s6_field)

    def _round(self, m, stage, kept, sticky, field):
        """Round, and say what takes the place of a value beyond the format's."""
        # Exponent and mantissa side by side: the carry out of a rounding up is the exponent's. The
        # hidden bit is the field's, too: it tells subnormals that have become normal.
        fields = Signal(FIELD + 1 + FP32.mantissa_width)
        with m.Switch(stage.result):
            for fmt in FORMATS.values():
                with m.Case(fmt.code):
                    m.d.comb += fields.eq(Cat(kept[1:1 + fmt.mantissa_width], field))
        s7 = register(NORMALISED)
        s7_fields = register_like(fields)
        s7_rounds_up = register()
        s8 = register(NORMALISED)
        s8_magnitude = register_like(fields)
        m.d.sync += [
            s7.eq(stage), s7_fields.eq(fields), s7_rounds_up.eq(kept[0] & (sticky | kept[1])),
            s8.eq(s7), s8_magnitude.eq(s7_fields + s7_rounds_up),
        ]

        # Whether the magnitude is beyond each format's largest.
        s9 = register(NORMALISED)
        s9_magnitude = register_like(fields)
        s9_exceeds = register(len(FORMATS))
        m.d.sync += [
            s9.eq(s8), s9_magnitude.eq(s8_magnitude),
            s9_exceeds.eq(Cat(_exceeds(s8_magnitude, fmt) for fmt in FORMATS.values())),
        ]
        s10 = register(NORMALISED)
        s10_value = register(32)
        s10_beyond = register(32)
        s10_canonical = register(32)
        s10_is_nan = register()
        s10_overflows = register()
        m.d.sync += s10.eq(s9)
        with m.Switch(s9.result):
            for exceeds, fmt in zip(s9_exceeds, FORMATS.values(), strict=True):
                with m.Case(fmt.code):
                    sign = s9.negative << (fmt.width - 1)
                    overflows = s9.infinite | exceeds
                    beyond = Mux(s9.saturate, fmt.max_finite_bits,
                                 fmt.infinity_bits if fmt.ieee else fmt.nan_bits)
                    m.d.sync += [
                        s10_value.eq(sign | s9_magnitude),
                        s10_beyond.eq(sign | beyond),
                        s10_canonical.eq(fmt.nan_bits),
                        s10_overflows.eq(overflows),
                        s10_is_nan.eq(s9.nan | (0 if fmt.ieee else overflows & ~s9.saturate)),
                    ]
        bits = Mux(s10_is_nan, s10_canonical, Mux(s10_overflows, s10_beyond, s10_value))
        o = register(Result)
        m.d.sync += [o.data.eq(bits), o.lost.eq(s10.lost), o.last.eq(s10.last)]
        m.d.comb += self.o.eq(o)
        return m


def dropped(bits, amount):
    """Whether any of the lowest ``amount`` bits is set."""
    return any_of(bit & (amount > place) for place, bit in enumerate(bits))


def _exceeds(magnitude, fmt):
    """Whether exponent and mantissa, side by side, are beyond the format's largest finite value."""
    # That is 1..10..0 or above, with as many ones as the value after the largest has.
    first = fmt.max_finite_bits + 1
    low = (first & -first).bit_length() - 1
    high = fmt.width - 1
    assert first >> low == (1 << high - low) - 1
    end = fmt.mantissa_width + FIELD + 1  # exponent and mantissa, and the carry
    return magnitude[high:end].any() | magnitude[low:high].all()
