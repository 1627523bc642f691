"""What softmax's gateware and golden model share: field widths, the tables, their error bounds.

Tables are integers; the arithmetic on them is written twice, once in gateware and once in torch.
The contract is docs/softmax.md.
"""

import math
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache

__all__ = ["DISTANCE_WIDTH", "FAR", "LOG_GUARD_WIDTH", "MAX_LENGTH", "OCTAVE_WIDTH", "STEP_WIDTH",
           "SUM_GUARD_WIDTH", "VALUE_WIDTHS", "Bipartite", "Steps", "exp_table", "log_error",
           "log_octaves", "log_table", "probability_error", "reciprocal_table", "step_table"]

VALUE_WIDTHS = range(18, 23)  # bits of a table's value: 18 is what one multiplier takes
DISTANCE_WIDTH = 8            # integer bits of a distance to the maximum; from 2^7 on e^-d is zero
STEP_WIDTH = 3                # a distance's first table goes in steps of 2^-3
OCTAVE_WIDTH = 8              # bits of a power's octave
FAR = 239                     # the octave of an element that is zero in every format
SUM_GUARD_WIDTH = 10          # fraction bits of the row's sum beyond those of a value
LOG_GUARD_WIDTH = 6           # fraction bits of the sum's logarithm beyond those of a value
MAX_LENGTH = 16384            # longest row of any configuration

_GUARD_WIDTH = 2              # bits of an entry under the value's last
_LN2 = Decimal("0.69314718055994530941723212145817656807550013436026")


@dataclass(frozen=True, kw_only=True)
class Bipartite:
    """A falling convex function of x, a fraction of three parts: segment, step, offset.

    value(x) = (bases[segment, step] - falls[segment, offset]) >> 2, in units of 2^-value_width

    Both tables are addressed by their two parts, the segment above. A segment has one slope for all
    of its steps, so that nothing is multiplied. The cut's rounding is folded into the bases.

    Parameters
    ----------
    value_width, input_width : int
        Bits of a value, all of them fraction, and of x.
    offset_width, segment_width : int
        Bits of x's lowest and highest part.
    bases, falls : tuple of int
        Non-negative.
    error : Fraction
        Bound of the value's relative error, for every x; of `log_table` that of the absolute error
        of the difference of any two values, which is what its users take.

    Source: Das Sarma and Matula, "Faithful bipartite ROM reciprocal tables", ARITH-12, 1995;
    Schulte and Stine, "Symmetric bipartite tables for accurate function approximation", ARITH-13,
    1997.
    """

    value_width: int
    input_width: int
    offset_width: int
    segment_width: int
    bases: tuple[int, ...]
    falls: tuple[int, ...]
    error: Fraction

    @property
    def base_width(self) -> int:
        """Bits of a base."""
        return self.value_width + _GUARD_WIDTH

    @property
    def fall_width(self) -> int:
        """Bits of the largest fall."""
        return max(self.falls).bit_length()

    def value(self, x: int) -> int:
        """The value at x: for checks of the tables, used by neither gateware nor golden model."""
        offset = x & (1 << self.offset_width) - 1
        segment = x >> self.input_width - self.segment_width
        fall = self.falls[segment << self.offset_width | offset]
        return self.bases[x >> self.offset_width] - fall >> _GUARD_WIDTH


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The first table of a distance: at each multiple h of 2^-3, e^-h = 2^(1 - octave) * e^-rest.

    Parameters
    ----------
    octaves : tuple of int
        0 to 185.
    rests : tuple of int
        In units of 2^-(value_width + 1), in (0, 1).
    error : Fraction
        How far a rest is off at most, in units of 1.
    """

    octaves: tuple[int, ...]
    rests: tuple[int, ...]
    error: Fraction


@cache
def exp_table(entries: int = 4096, value_width: int = 18) -> Bipartite:
    """e^-x for x in [0, 1), of ``value_width + 1`` bits."""
    return _bipartite(entries, value_width, value_width + 1, lambda x: math.exp(-x),
                      slope=lambda x: math.exp(-x), steepest=lambda slope: -math.log(slope),
                      shift=0.0)


@cache
def reciprocal_table(entries: int = 4096, value_width: int = 18) -> Bipartite:
    """1 / (1 + x) for x in [0, 1) that was cut off after ``value_width`` bits."""
    return _bipartite(entries, value_width, value_width, lambda x: 1 / (1 + x),
                      slope=lambda x: (1 + x) ** -2,
                      steepest=lambda slope: slope ** -0.5 - 1, shift=0.5)


@cache
def log_table(entries: int = 4096, value_width: int = 18) -> Bipartite:
    """-ln((1 + x) / 2) for x in [0, 1) that was cut off after ``value_width`` bits.

    Falls from ln 2, so ln(1 + x) is value(0) - value(x): exactly 0 for x = 0, and never less.
    """
    table = _bipartite(entries, value_width, value_width, lambda x: -math.log((1 + x) / 2),
                       slope=lambda x: 1 / (1 + x), steepest=lambda slope: 1 / slope - 1,
                       shift=0.5, relative=False)
    per_segment, falls = entries >> table.segment_width, 1 << table.offset_width
    lowest = min(base - table.falls[(index // per_segment + 1) * falls - 1]
                 for index, base in enumerate(table.bases))
    if max(table.bases) > table.bases[0] or lowest < 0:
        raise AssertionError("a logarithm is below zero or above ln 2")
    # value(0) is off by as much as it differs from ln 2, whatever the bound of the others is.
    start = abs(Fraction(table.value(0), 1 << value_width) - Fraction(_LN2))
    return replace(table, error=table.error + start)


@cache
def log_octaves(value_width: int = 18) -> tuple[int, ...]:
    """m * ln 2 for m = 0 to 14, rounded, in units of 2^-(value_width + LOG_GUARD_WIDTH)."""
    unit = 1 << value_width + LOG_GUARD_WIDTH
    return tuple(round(octave * _LN2 * unit) for octave in range(MAX_LENGTH.bit_length()))


@cache
def step_table(entries: int = 4096, value_width: int = 18) -> Steps:
    """The first table to ``exp_table`` of the same parameters.

    e^-0 comes out as exactly 1, and no power above it: so a row's sum is at least 1, and a
    probability at most.
    """
    table, unit = exp_table(entries, value_width), 2 ** (value_width + 1)
    octaves, rests = [], []
    with localcontext(prec=40):
        for step in range(1 << DISTANCE_WIDTH - 1 + STEP_WIDTH):
            h = Decimal(step) / (1 << STEP_WIDTH)
            octaves.append(int((h / _LN2).to_integral_value("ROUND_CEILING")))
            rests.append(round((h - (octaves[-1] - 1) * _LN2) * unit) if step else 0)
        near = round(_LN2 * unit)
    half, around = 1 << value_width - 1, 4 << table.offset_width
    rests[0] = min((x for x in range(near - around, near + around) if table.value(x) == half),
                   key=lambda x: abs(x - near))
    if any(table.value(rests[0] + 2 * low) > half for low in range(64)):
        raise AssertionError("a power is above 1")
    if table.value(min(rests)) >> value_width or max(rests) + unit // 8 > unit:
        raise AssertionError("a rest leaves the table")
    error = Fraction(1 + abs(rests[0] - near), unit)
    return Steps(octaves=tuple(octaves), rests=tuple(rests), error=error)


def probability_error(exp_entries: int, reciprocal_entries: int, value_width: int,
                      length: int) -> Fraction:
    """Bound of a probability's relative error before its final rounding, for rows of ``length``.

    Terms, in the order of the code: the table's value of the element and, in the sum, of the
    others; both distances, each of two logits that were cut off, and the rest; the sum's terms,
    rounded; the reciprocal, its cut argument included; and the product, cut off after value_width
    bits and a quarter of the last, which is at least 0.44 times 1/2.
    """
    exp, reciprocal = (exp_table(exp_entries, value_width),
                       reciprocal_table(reciprocal_entries, value_width))
    bits = value_width
    distance = Fraction(101, 100) * (
        Fraction(1, 2 ** bits) + step_table(exp_entries, value_width).error)
    terms = Fraction(length, 2 ** (bits + SUM_GUARD_WIDTH + 1))
    product = Fraction(3, 4) * Fraction(1, 2 ** bits) / Fraction(22, 100)
    factors = (1 + exp.error, 1 / (1 - exp.error), (1 + distance) ** 2, 1 / (1 - terms),
               1 + reciprocal.error, 1 + product)
    bound = Fraction(1)
    for factor in factors:
        bound *= factor
    return bound - 1


def log_error(exp_entries: int, reciprocal_entries: int, value_width: int, length: int) -> Fraction:
    """Bound of the absolute error of ln S, before its rounding to fp32, for rows of ``length``.

    Of the sum's terms the table's values, their distances, each of two logits that were cut off, in
    opposite directions at worst, and the rest; their rounding; the logarithm, its cut argument
    included; and the octave's rounding. -ln(1 - x) bounds |ln(1 + e)| for |e| up to x, and is at
    most x / (1 - x).
    """
    table, bits = log_table(reciprocal_entries, value_width), value_width
    step = step_table(exp_entries, value_width).error
    distance = Fraction(2, 2 ** bits) + step
    relative = exp_table(exp_entries, value_width).error + Fraction(
        length, 2 ** (bits + SUM_GUARD_WIDTH + 1))
    octave = Fraction(1, 2 ** (bits + LOG_GUARD_WIDTH + 1))
    return relative / (1 - relative) + distance + table.error + octave


def _bipartite(entries, value_width, input_width, function, *, slope, steepest, shift,
               relative=True) -> Bipartite:
    """The tables of a falling convex function of ``x + shift`` units, and their bound.

    ``slope`` is how steeply it falls at x, ``steepest`` the x where it falls so. In a step the
    function less its line is largest at both ends or where their slopes agree, so three places of
    each step bound it; floating-point's own 2^-50 is far below what is added for roundings.
    """
    if not isinstance(entries, int) or isinstance(entries, bool):
        raise TypeError(f"the number of entries is an integer; got {entries!r}")
    if not 2048 <= entries <= 16384 or entries & (entries - 1):
        raise ValueError(f"the number of entries is a power of two in 2048..16384; got {entries}")
    if value_width not in VALUE_WIDTHS:
        raise ValueError(f"value_width is in {VALUE_WIDTHS.start}..{VALUE_WIDTHS[-1]}; "
                         f"got {value_width!r}")
    index_width = entries.bit_length() - 1
    offset_width = input_width - index_width
    segment_width = max(2, index_width - offset_width)
    offsets, units = 1 << offset_width, 1 << input_width
    scale, half = 1 << value_width + _GUARD_WIDTH, 1 << _GUARD_WIDTH - 1
    segments = 1 << segment_width
    slopes = [slope((n + 0.5) / segments) * scale / units for n in range(segments)]
    falls = [round(fall * offset) for fall in slopes for offset in range(offsets)]
    rounding = max(abs(falls[n * offsets + offset] - fall * offset)
                   for n, fall in enumerate(slopes) for offset in range(offsets))

    bases, error, middle = [], 0.0, (offsets - 1) / 2
    for index in range(entries):
        fall = slopes[index * segments // entries]
        start = index * offsets + shift
        ideal = [function((start + offset) / units) * scale + fall * offset
                 for offset in (0, middle, offsets - 1)]
        base = round((min(ideal) + max(ideal)) / 2)
        base = min(base, scale - 1 - half)
        base = max(base, falls[(index * segments // entries + 1) * offsets - 1] - half)
        bases.append(base + half)
        tangent = min(max(steepest(fall * units / scale) * units - start, 0), offsets - 1)
        for offset in (0, tangent, offsets - 1):
            right = function((start + offset) / units) * scale
            off = abs(base - fall * offset - right) + rounding + half
            error = max(error, off / (right if relative else scale))
    # What was cut off from x moves 1 / (1 + x) by half a unit of x at most. A little for floats.
    bound = Fraction(math.ceil((error + shift / units) * 2 ** 40) + 1, 2 ** 40)
    if bound > Fraction(5, 2 ** (value_width + 1)) + Fraction(
            offsets << 3, 2 ** (input_width + segment_width + 1)):
        raise AssertionError(f"a table of {entries} entries errs by {float(bound):.3g}")
    return Bipartite(value_width=value_width, input_width=input_width, offset_width=offset_width,
                     segment_width=segment_width, bases=tuple(bases), falls=tuple(falls),
                     error=bound)
