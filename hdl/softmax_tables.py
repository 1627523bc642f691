"""What softmax's gateware and golden model share: field widths, the two tables, their bounds.

Tables are integers; the arithmetic on them is written twice, once in gateware and once in torch.
The contract is docs/softmax.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache

__all__ = ["BIN_WIDTH", "CODE_BASE", "CODE_EXPONENT", "CODE_SHIFT", "FRACTION_WIDTH",
           "INTEGER_WIDTH", "LOG2E", "LOG2E_FRACTION", "MAX_LENGTH", "ROW_FRACTION_WIDTH",
           "VALUE_WIDTH", "Table", "exp2_table", "probability_error", "reciprocal_table"]

LOG2E = 0xB8AA3B            # log2(e) rounded to fp32's 24 bits; its error is 2^-25.6
LOG2E_FRACTION = 23
FRACTION_WIDTH = 20         # fraction bits of t = x log2(e)
CODE_EXPONENT = 31          # from |x| = 2^31 on, t is a code in the order of x (rule S2) ...
CODE_BASE = 1 << 32         # ... that starts above every t computed from x = value * log2(e) ...
CODE_SHIFT = 8              # ... and keeps different x at least 2^8 apart
INTEGER_WIDTH = 39          # signed integer part of t, codes included
BIN_WIDTH = 5               # a bin of the row sum spans 2^5 octaves
VALUE_WIDTH = 18            # bits of a table's value: 2^f has 17 fraction bits, 1/s has 18
ROW_FRACTION_WIDTH = 20     # fraction bits of the normalised row sum
MAX_LENGTH = 16384          # longest row of any configuration

_GUARD_WIDTH = 3            # bits of an entry under the value's last
_LOG2E_ERROR = Fraction(1, 48 * 10 ** 6)
_LN2 = Decimal("0.69314718055994530941723212145817656807550013436026")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A convex function on [1, 2) or [0, 1), interpolated linearly over equal segments.

    value(x) = (base[i] * 2^low_width + slope[i] * low) >> drop_width, in units of the value's
    last bit, where i is the upper and low the lower part of x's fraction, and slope counts
    downwards for a falling function. Rounding is folded into the bases.

    Parameters
    ----------
    low_width : int
        Bits of x's fraction under the segment's index.
    falling : bool
        Whether slope * low is subtracted.
    bases, slopes : tuple of int
        One entry each per segment, non-negative.
    error : Fraction
        Bound of the value's relative error, for every x.
    """

    low_width: int
    falling: bool
    bases: tuple[int, ...]
    slopes: tuple[int, ...]
    error: Fraction

    @property
    def segments(self) -> int:
        """Number of segments, a power of two."""
        return len(self.bases)

    @property
    def base_width(self) -> int:
        """Bits of a base."""
        return VALUE_WIDTH + _GUARD_WIDTH

    @property
    def slope_width(self) -> int:
        """Bits of the largest slope."""
        return max(self.slopes).bit_length()

    @property
    def drop_width(self) -> int:
        """Bits dropped from the interpolated sum."""
        return self.low_width + _GUARD_WIDTH


@cache
def exp2_table(segments: int = 64) -> Table:
    """2^f for f in [0, 1) with ``FRACTION_WIDTH`` bits; the value's last bit weighs 2^-17.

    Source: the chord over a segment of width h lies at most (h ln 2)^2 / 8 above 2^f, relatively;
    lowered by half of that, its error is (h ln 2)^2 / 16.
    """
    return _interpolate(
        segments, FRACTION_WIDTH, VALUE_WIDTH - 1, falling=False,
        function=lambda f: (f * _LN2).exp(),
        tangent=lambda slope: (slope / _LN2).ln() / _LN2,
        goal=Fraction(1, 33))


@cache
def reciprocal_table(segments: int = 128) -> Table:
    """1/s for s in [1, 2) with ``ROW_FRACTION_WIDTH`` bits; the value's last bit weighs 2^-18.

    Source: the chord over a segment of width h lies at most h^2 / 4 above 1/s, relatively; lowered
    by half of that, its error is h^2 / 8.
    """
    return _interpolate(
        segments, ROW_FRACTION_WIDTH, VALUE_WIDTH, falling=True,
        function=lambda f: 1 / (1 + f),
        tangent=lambda slope: 1 / (-slope).sqrt() - 1,
        goal=Fraction(1, 8))


def probability_error(exp2: Table, reciprocal: Table, length: int) -> Fraction:
    """Bound of a probability's relative error before its final rounding, for rows of ``length``.

    Terms, in the order of the code: table value of the sum and of the element; t's rounding in
    both, and log2(e)'s error over the distance to the largest logit (104 for an element that is
    not zero in fp32, 16 on the sum's weighted average), times ln 2; elements of the sum under
    its window; the truncated sum and its reciprocal.
    """
    t_error = Fraction(7, 10) * (Fraction(1, 2 ** FRACTION_WIDTH) + (104 + 16) * _LOG2E_ERROR)
    window = Fraction(length, 2 ** (1 << BIN_WIDTH))
    row = Fraction(1, 2 ** ROW_FRACTION_WIDTH)
    factors = (1 / (1 - exp2.error), 1 + exp2.error, 1 + t_error, 1 + window, 1 + row,
               1 + reciprocal.error)
    bound = Fraction(1)
    for factor in factors:
        bound *= factor
    return bound - 1


def _interpolate(segments: int, fraction_width: int, unit_width: int, *, falling: bool,
                 function: Callable[[Decimal], Decimal], tangent: Callable[[Decimal], Decimal],
                 goal: Fraction) -> Table:
    """The table of a convex function of f in [0, 1): chords, each lowered by half its sag.

    ``tangent`` gives the f at which the function has a slope; there a line over it deviates most.
    The bound is proved from the integers of the table, and must meet ``goal`` / segments^2 and two
    roundings.
    """
    if not isinstance(segments, int):
        raise TypeError(f"the number of segments is an integer; got {segments!r}")
    if not 16 <= segments <= 1024 or segments & (segments - 1):
        raise ValueError(f"the number of segments is a power of two in 16..1024; got {segments}")
    low_width = fraction_width - (segments.bit_length() - 1)
    unit = 2 ** (unit_width + _GUARD_WIDTH)
    top = 2 ** (VALUE_WIDTH + _GUARD_WIDTH) - 1
    half = 2 ** (_GUARD_WIDTH - 1)
    bases, slopes, error = [], [], Decimal(0)
    with localcontext(prec=40):
        for i in range(segments):
            left, right = Decimal(i) / segments, Decimal(i + 1) / segments
            steepness = (function(right) - function(left)) * segments
            middle = tangent(steepness)
            sag = function(left) + steepness * (middle - left) - function(middle)
            slope = round(steepness * unit / segments)
            base = round((function(left) - sag / 2) * unit) + half
            base = min(base, top, top - slope)
            bases.append(base)
            slopes.append(abs(slope))

            line_steepness = Decimal(slope) * segments / unit
            spots = (left, min(max(tangent(line_steepness), left), right), right)
            for spot in spots:
                line = Decimal(base - half) / unit + line_steepness * (spot - left)
                error = max(error, abs(line / function(spot) - 1))
        # The cut, after the half in the base, moves the line by half of the value's last bit.
        value_at_least = min(function(Decimal(0)), function(Decimal(1)))
        bound = Fraction(error) + Fraction(1, 2 ** (unit_width + 1)) / Fraction(value_at_least)
        bound = Fraction(-((-bound.numerator << 40) // bound.denominator), 1 << 40)
    if bound > goal / segments ** 2 + Fraction(1, 2 ** (VALUE_WIDTH - 1)):
        raise AssertionError(f"a table of {segments} segments errs by {float(bound):.3g}")
    return Table(low_width=low_width, falling=falling, bases=tuple(bases), slopes=tuple(slopes),
                 error=bound)
