"""Operands for products: bit patterns for every format, directed and at random."""

import torch

from ..hdl.formats import Format

__all__ = ["directed", "edges", "random_bits", "sparse_bits"]


def edges(fmt: Format) -> torch.Tensor:
    """Zeros, subnormals, ones, the largest values, infinities and NaNs, of both signs."""
    one = fmt.bias << fmt.mantissa_width
    least_normal = 1 << fmt.mantissa_width
    found = [0, 1, least_normal - 1, least_normal, one, one + 1, fmt.max_finite_bits - 1,
             fmt.max_finite_bits, fmt.nan_bits]
    if fmt.ieee:
        found += [fmt.infinity_bits, fmt.infinity_bits + 1]
    return torch.tensor(found + [x | 1 << fmt.width - 1 for x in found])


def directed(fmt: Format, k: int = 9) -> torch.Tensor:
    """Rows [R, k] (k >= 6) that are hard in a sum, bit patterns in int64; crossed, they make
    cancellation, one huge among many tiny terms, all zero, all subnormal, overflow, ties, and NaN
    and Inf under a zero and under each other.
    """
    sign = 1 << fmt.width - 1
    one, tiny, huge = fmt.bias << fmt.mantissa_width, 1, fmt.max_finite_bits
    infinity = fmt.infinity_bits if fmt.ieee else fmt.nan_bits
    heads = [
        [0, sign],                                           # all zero, of both signs
        [tiny, sign | tiny, (1 << fmt.mantissa_width) - 1],  # all subnormal
        [one] * k,                                           # counts the other operand's
        [one, sign | one] * (k // 2),                        # cancels
        [huge, sign | huge, tiny, tiny],                     # cancels but for the tiny
        [huge] + [tiny] * (k - 1),                           # one huge, many tiny
        [tiny] * (k - 1) + [sign | huge],
        [huge] * k,                                          # overflows
        [one, one + 1, one + 1, one, 0, tiny],               # ties and their neighbours
        [0, fmt.nan_bits],                                   # one special among zeros
        [0, 0, sign | infinity],
        [one, infinity, one],
        [one, infinity, sign | infinity],                    # opposite infinities
        [one, one, one, sign | fmt.nan_bits],
    ]
    return torch.tensor([head + [0] * (k - len(head)) for head in heads])


def random_bits(fmt: Format, shape: tuple[int, ...], generator: torch.Generator, *,
                octaves: int | None = None) -> torch.Tensor:
    """Finite values: any bit pattern, or only those with exponents in some ``octaves`` around 0."""
    fields = [torch.randint(0, high, shape, generator=generator)
              for high in (2, 1 << fmt.exponent_width, 1 << fmt.mantissa_width)]
    sign, biased, mantissa = fields
    if octaves is not None:
        biased = (biased % octaves + fmt.bias - octaves // 2).clamp(min=0)
    magnitude = (biased << fmt.mantissa_width | mantissa).clamp(max=fmt.max_finite_bits)
    return sign << fmt.width - 1 | magnitude


def sparse_bits(bits: torch.Tensor, density: float, generator: torch.Generator) -> torch.Tensor:
    """The same with all but a fraction ``density`` replaced by zeros."""
    return torch.where(torch.rand(bits.shape, generator=generator) < density, bits, 0)
