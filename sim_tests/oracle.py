"""The right answer by ``fractions``: knows the contract (docs/numerics.md), not the machine.

Everything here works on bit patterns (Python ints) and exact rationals, slowly and plainly.
"""

from fractions import Fraction
from itertools import product

from exactum.hdl.formats import FP32, Format

__all__ = ["NAN", "add", "decode", "dot", "encode", "exponent_of", "is_zero", "multiply"]

NAN = "nan"
INF = float("inf")


def decode(bits: int, fmt: Format) -> Fraction | float | str:
    """The value: a Fraction, +-inf as float, or NAN. The sign of zero is dropped."""
    mantissa = bits & ((1 << fmt.mantissa_width) - 1)
    biased = bits >> fmt.mantissa_width & ((1 << fmt.exponent_width) - 1)
    sign = -1 if bits >> (fmt.width - 1) else 1
    top = (1 << fmt.exponent_width) - 1
    if fmt.ieee and biased == top:
        return sign * INF if mantissa == 0 else NAN
    if not fmt.ieee and biased == top and mantissa == (1 << fmt.mantissa_width) - 1:
        return NAN
    significand = mantissa + ((biased != 0) << fmt.mantissa_width)
    return sign * significand * Fraction(2) ** (max(biased, 1) - fmt.bias - fmt.mantissa_width)


def is_zero(bits: int, fmt: Format) -> bool:
    """Whether the value is +0 or -0."""
    return bits & ((1 << (fmt.width - 1)) - 1) == 0


def exponent_of(bits: int, fmt: Format) -> int | None:
    """Exponent of a finite non-zero value as rule N4 has it (subnormals: the least); else None."""
    if is_zero(bits, fmt) or not isinstance(decode(bits, fmt), Fraction):
        return None
    biased = bits >> fmt.mantissa_width & ((1 << fmt.exponent_width) - 1)
    return max(biased, 1) - fmt.bias


def encode(value: Fraction | float | str, fmt: Format, overflow: str) -> int:
    """One rounding to nearest even into ``fmt``; ``overflow`` is "saturate" or "overflow"."""
    if value == NAN:
        return fmt.nan_bits
    sign = (1 << (fmt.width - 1)) if value < 0 else 0
    if isinstance(value, Fraction):
        magnitude = abs(value)
        if magnitude == 0:
            return 0
        exponent = max(_floor_log2(magnitude), fmt.min_exponent)
        steps = round(magnitude / Fraction(2) ** (exponent - fmt.mantissa_width))  # half to even
        if steps == 1 << (fmt.mantissa_width + 1):
            steps, exponent = steps >> 1, exponent + 1
        if steps < 1 << fmt.mantissa_width:
            bits = steps
        else:
            bits = ((exponent + fmt.bias) << fmt.mantissa_width) + steps - (1 << fmt.mantissa_width)
        if bits <= fmt.max_finite_bits:
            return sign | bits
    if overflow == "saturate":
        return sign | fmt.max_finite_bits
    return sign | fmt.infinity_bits if fmt.ieee else fmt.nan_bits


def _floor_log2(value: Fraction) -> int:
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= value else guess - 1


def add(a: int, b: int) -> int:
    """The fp32 bits of a + b, by IEEE 754."""
    x, y = decode(a, FP32), decode(b, FP32)
    if NAN in (x, y) or (isinstance(x, float) and isinstance(y, float) and x != y):
        return FP32.nan_bits
    if isinstance(x, float) or isinstance(y, float):
        return a if isinstance(x, float) else b
    if x + y == 0:
        return a & b & 1 << 31  # negative only if both are
    return encode(x + y, FP32, "overflow")


def multiply(a: int, b: int) -> int:
    """The fp32 bits of a * b, by IEEE 754."""
    x, y = decode(a, FP32), decode(b, FP32)
    if NAN in (x, y) or (isinstance(x, float) and y == 0) or (isinstance(y, float) and x == 0):
        return FP32.nan_bits
    sign = (a ^ b) & 1 << 31
    if isinstance(x, float) or isinstance(y, float):
        return sign | FP32.infinity_bits
    return sign | encode(abs(x * y), FP32, "overflow")


def dot(a: list[int], b: list[int], formats: tuple[Format, Format], *, result: Format,
        overflow: str | None = None, exponent: int = 0,
        accumulator_width: int = 100, max_k: int = 32768,
        scales: tuple[list[int] | None, list[int] | None] = (None, None),
        scale_block: int = 32) -> tuple[int, bool]:
    """Rules N1 to N4 and N6: (bits of the result in ``result``, the ``lost`` flag)."""
    overflow = overflow or ("saturate" if result.width == 8 else "overflow")
    powers = [[0] * len(a) if given is None else
              [None if given[k // scale_block] == 255 else given[k // scale_block] - 127
               for k in range(len(a))] for given in scales]
    rows = [[_scaled(decode(bits, fmt), power) for bits, power in zip(row, shifts, strict=True)]
            for row, fmt, shifts in zip((a, b), formats, powers, strict=True)]
    values = list(zip(*rows, strict=True))
    special = _special(values)
    if special is not None:
        return encode(special, result, overflow), False
    anchored = any(f.is_wide for f in formats) or any(given is not None for given in scales)
    anchors, places = [], []
    for row, fmt, shifts in zip((a, b), formats, powers, strict=True):
        exponents = [None if (e := exponent_of(bits, fmt)) is None else e + power
                     for bits, power in zip(row, shifts, strict=True)]
        places.append(exponents)
        finite = [e for e in exponents if e is not None]
        anchors.append(max(finite, default=fmt.min_exponent) if anchored else fmt.max_exponent)
    headroom = (max_k - 1).bit_length()
    lsb = Fraction(2) ** (sum(anchors) + 3 + headroom - accumulator_width)
    total, lost = Fraction(0), False
    for (x, y), *exponents in zip(values, *places, strict=True):
        parts = [(x, y)]
        if any(f.width == 32 for f in formats) and x and y:
            parts = list(product(*(_halves(value, e, anchor) for value, e, anchor in
                                   zip((x, y), exponents, anchors, strict=True))))
        for first, second in parts:
            exact = first * second
            kept = abs(exact) // lsb * lsb
            lost |= kept != abs(exact)
            total += kept if exact > 0 else -kept
    return encode(total * Fraction(2) ** exponent, result, overflow), lost


def _scaled(value: Fraction | float | str, power: int | None) -> Fraction | float | str:
    """``value`` times 2^power; NAN where the power is None."""
    if power is None:
        return NAN
    return value * Fraction(2) ** power if isinstance(value, Fraction) else value


def _halves(value: Fraction, exponent: int, anchor: int) -> tuple[Fraction, Fraction]:
    """Rule N4 of fp32: the upper and the lower 16 bits of the aligned significand."""
    groups = -(-(anchor - exponent) // 8)
    unit = Fraction(2) ** (anchor + 1 - 25) / 256 ** groups
    significand = abs(value) / unit
    assert significand.denominator == 1
    assert significand < 1 << 32
    high, low = divmod(int(significand), 1 << 16)
    sign = -1 if value < 0 else 1
    return sign * high * (1 << 16) * unit, sign * low * unit


def _special(values: list[tuple]) -> float | str | None:
    """Rule N3: NAN, +-inf, or None when every product is finite."""
    infinities = set()
    for x, y in values:
        if NAN in (x, y):
            return NAN
        if isinstance(x, float) or isinstance(y, float):
            if x == 0 or y == 0:
                return NAN
            infinities.add(INF if (x > 0) == (y > 0) else -INF)
    if len(infinities) == 2:
        return NAN
    return infinities.pop() if infinities else None
