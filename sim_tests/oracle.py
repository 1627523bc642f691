"""The right answer by ``fractions``: knows the contract (docs/numerics.md), not the machine.

Everything here works on bit patterns (Python ints) and exact rationals, slowly and plainly.
"""

from fractions import Fraction

from exactum.hdl.formats import Format

__all__ = ["NAN", "decode", "dot", "encode", "exponent_of", "is_zero"]

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


def dot(a: list[int], b: list[int], formats: tuple[Format, Format], *, result: Format,
        overflow: str | None = None, exponent: int = 0,
        accumulator_width: int = 100, max_k: int = 32768) -> tuple[int, bool]:
    """Rules N1 to N4: (bits of the result in ``result``, the ``lost`` flag)."""
    overflow = overflow or ("saturate" if result.width == 8 else "overflow")
    values = [(decode(x, formats[0]), decode(y, formats[1])) for x, y in zip(a, b, strict=True)]
    special = _special(values)
    if special is not None:
        return encode(special, result, overflow), False
    anchors = []
    for row, fmt in zip((a, b), formats, strict=True):
        if any(f.is_wide for f in formats):
            exponents = [e for e in (exponent_of(bits, fmt) for bits in row) if e is not None]
            anchors.append(max(exponents, default=fmt.min_exponent))
        else:
            anchors.append(fmt.max_exponent)
    headroom = (max_k - 1).bit_length()
    lsb = Fraction(2) ** (sum(anchors) + 3 + headroom - accumulator_width)
    total, lost = Fraction(0), False
    for x, y in values:
        product = x * y
        steps = abs(product) / lsb
        kept = steps.numerator // steps.denominator
        lost |= kept != steps
        total += (kept if product > 0 else -kept) * lsb
    return encode(total * Fraction(2) ** exponent, result, overflow), lost


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
