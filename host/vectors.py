"""An operand as the engine is told of it: bit patterns along K, their scales and anchors."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..hdl.formats import Format
from ..hdl.layouts import UNSCALED
from .columns import Factor
from .masks import NonZeros
from .mx import NAN_SCALE, spread

__all__ = ["Vectors", "anchors", "factor", "is_finite", "is_nonzero", "vectors"]

NEVER = -(1 << 40)  # below every exponent


class Vectors(NamedTuple):
    """The rows of A or the columns of B: bit patterns, int64 [R, K], and what goes with them."""

    bits: Tensor
    powers: Tensor | None
    """Exponents of the elements' scales [R, K]; None if neither operand has any."""
    anchors: Tensor
    """[R], of whole rows: an index that is not sent may hold the largest element (rule N4)."""
    fmt: Format
    is_fixed: bool
    """Whether all anchors are the format's largest exponent."""

    @property
    def factor(self) -> Factor:
        """Where they are zero, infinite or NaN."""
        return factor(self.bits, self.fmt)

    def at(self, inner: Tensor) -> "Vectors":
        """All rows at some indices (bool [K])."""
        return self.select(slice(None), inner)

    def select(self, rows: Tensor | slice, inner: Tensor | slice) -> "Vectors":
        """Some rows (bool [R]) at some indices (bool [K]), or slices of them."""
        powers = None if self.powers is None else self.powers[rows][:, inner]
        return self._replace(bits=self.bits[rows][:, inner], powers=powers,
                             anchors=self.anchors[rows])

    def padded(self, width: int) -> "Vectors":
        """With rows of zeros up to a multiple of ``width``."""
        more = -len(self.bits) % width
        blank = self.fmt.max_exponent if self.is_fixed else self.fmt.min_exponent
        pad = torch.nn.functional.pad
        powers = None if self.powers is None else pad(self.powers, (0, 0, 0, more))
        return self._replace(bits=pad(self.bits, (0, 0, 0, more)), powers=powers,
                             anchors=pad(self.anchors, (0, more), value=blank))


def vectors(bits: Tensor, fmt: Format, scales: Tensor | None, *, block: int, is_scaled: bool,
            is_fixed: bool) -> Vectors:
    """Those of bit patterns [R, K] and block scales [R, ceil(K / block)], uint8.

    ``is_scaled``: either operand has scales; ``is_fixed``: see `anchors`.
    """
    powers = None
    if is_scaled:
        bits, powers = _scaled(bits, scales, fmt, block)
    return Vectors(bits, powers, anchors(bits, 1, fmt, is_fixed, powers), fmt, is_fixed)


def factor(bits: Tensor, fmt: Format) -> Factor:
    """Where bit patterns [R, K] are zero, infinite or NaN."""
    special = ~is_finite(bits, fmt)
    return Factor(NonZeros(is_nonzero(bits, fmt)), special if special.any() else None)


def is_nonzero(bits: Tensor, fmt: Format) -> Tensor:
    """Whether the values are neither +0 nor -0."""
    return (bits & (1 << fmt.width - 1) - 1) != 0


def is_finite(bits: Tensor, fmt: Format) -> Tensor:
    """Whether the values are neither infinite nor NaN."""
    return (bits & (1 << fmt.width - 1) - 1) <= fmt.max_finite_bits


def anchors(bits: Tensor, dim: int, fmt: Format, is_fixed: bool,
            powers: Tensor | None = None) -> Tensor:
    """Rule N4's exponent for each row along ``dim``, int64.

    ``is_fixed``: both formats have at most 5 exponent bits and there are no scales, so it is the
    format's largest. ``powers``: the exponents of the elements' scales, int64 like ``bits``.
    """
    shape = [size for place, size in enumerate(bits.shape) if place != dim]
    if is_fixed:
        return torch.full(shape, fmt.max_exponent)
    biased = bits >> fmt.mantissa_width & (1 << fmt.exponent_width) - 1
    counts = is_nonzero(bits, fmt) & is_finite(bits, fmt)
    if not bits.shape[dim]:
        return torch.full(shape, fmt.min_exponent)
    exponents = biased.clamp(min=1) - fmt.bias + (0 if powers is None else powers)
    largest = exponents.masked_fill(~counts, NEVER).amax(dim)
    return torch.where(largest == NEVER, fmt.min_exponent, largest)


def _scaled(bits: Tensor, scales: Tensor | None, fmt: Format,
            block: int) -> tuple[Tensor, Tensor]:
    """(bits [R, K], the exponent of each element's scale); NaN where the scale is."""
    if scales is None:
        return bits, torch.zeros_like(bits)
    each = spread(scales.to(torch.int64), 1, block, bits.shape[1])
    unknown = each == NAN_SCALE
    return (bits.masked_fill(unknown, fmt.nan_bits),
            (each - UNSCALED).masked_fill_(unknown, 0))
