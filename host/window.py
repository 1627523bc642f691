"""Rule N4 of docs/numerics.md: where the accumulator's window lies, what it drops, what it holds.

Weights and scales are float64 powers of two throughout, so every product with one is exact.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..hdl.formats import Format
from .numerics import power_of_two

__all__ = ["Side", "Window", "side"]

_LIMB_BITS = 36                  # 36 + log2 of 4 parts of 32768 terms are float64's 53
_CHUNK_PRODUCTS = 1 << 19        # products in flight of the exact sum: 4 MB each of a few copies


class Side(NamedTuple):
    """What the rows of one operand allow; each a float64 tensor [..., rows], rows of A or
    columns of B. The values are finite."""

    anchor: Tensor
    """2^e, e the exponent that rule N4 adds up for the window."""
    grain: Tensor
    """A power of two that divides every element of the row; Inf if all are zero."""
    norm: Tensor
    """Euclidean norm."""


def side(x: Tensor, dim: int, fmt: Format, anchored: bool, weights: Tensor | None = None) -> Side:
    """The `Side` of float64 values ``x`` on the grid of ``fmt``, reduced along ``dim``.

    ``weights``: `Operand.weights` if the values carry block scales; they are ``anchored`` then.
    """
    magnitude = x.abs()
    norm = torch.linalg.vecdot(x, x, dim=dim).sqrt_()
    if weights is not None:
        least = torch.where(weights > 0, weights, math.inf).amin(dim)
        largest = weights.amax(dim)
        anchor = torch.where(largest > 0, largest, 2.0 ** fmt.min_exponent)
        return Side(anchor, least.mul_(2.0 ** -fmt.mantissa_width), norm)
    smallest = torch.where(magnitude.to(torch.bool), magnitude, math.inf).amin(dim)
    grain = power_of_two(smallest).clamp_(min=2.0 ** fmt.min_exponent)
    grain.mul_(2.0 ** -fmt.mantissa_width)
    if anchored:
        anchor = power_of_two(magnitude.amax(dim)).clamp_(min=2.0 ** fmt.min_exponent)
    else:
        anchor = torch.full_like(grain, 2.0 ** fmt.max_exponent)
    return Side(anchor, grain, norm)


class Window:
    """The windows of all outputs of one product ``a @ b``.

    Parameters
    ----------
    a, b : Tensor
        float64 [..., M, K] and [..., K, N], finite, on the grids of their formats.
    rows, columns : Side
        What `side` says of the rows of ``a`` and of the columns of ``b``.
    depth : int
        Bits from the weight of the anchor down to the window's lowest bit:
        accumulator_width - 3 - log2(max_k).
    formats : tuple of Format
        Of ``a`` and ``b``. If one of them is fp32, products are dropped from in four parts.
    weights : tuple of Tensor or None
        `Operand.weights` of both.
    """

    def __init__(self, a: Tensor, b: Tensor, rows: Side, columns: Side, *, depth: int,
                 formats: tuple[Format, Format],
                 weights: tuple[Tensor | None, Tensor | None] = (None, None)) -> None:
        self.a, self.b, self.rows, self.columns, self.depth = a, b, rows, columns, depth
        self.formats, self.weights = formats, weights

    @property
    def parts(self) -> int:
        """Of a product, that are truncated each on its own: 4 if either format is fp32, else 1."""
        return 4 if any(fmt.width == 32 for fmt in self.formats) else 1

    def lost(self) -> Tensor | None:
        """bool [..., M, N]: whether any product has bits under the window. None: none has.

        Row-wise bounds settle most cases. For the rest one matmul of powers of two decides all
        products of an output at once: each becomes at least 1 if it loses a bit, else so little
        that all of them together stay under 1/2.

        It does not matter that fp32 products are dropped from in parts. With S = H 2^16 + L, the
        lowest set bit of S S' is that of S plus that of S', so it is the lowest set bit of that
        part which takes from either operand the half with the lowest set bit, and no part's lies
        lower. So a part loses a bit if and only if the product has one under the window.
        """
        depths = [_exponent(s.anchor / s.grain) for s in (self.rows, self.columns)]
        if not all(depth.numel() for depth in depths):
            return None
        rows = _somewhere(depths[0] + depths[1].amax() > self.depth)
        columns = _somewhere(depths[1] + depths[0].amax() > self.depth)
        if not len(rows) or not len(columns):
            return None
        found = self._losing(rows, columns)
        if not found.any():
            return None
        lost = torch.zeros(*self.a.shape[:-1], self.b.shape[-1], dtype=torch.bool)
        lost[..., rows[:, None], columns] = found
        return lost

    def _losing(self, rows: Tensor, columns: Tensor) -> Tensor:
        """`lost` for some rows and columns, product by product."""
        a = _depths(self.a[..., rows, :], self.rows.anchor[..., rows, None])
        b = _depths(self.b[..., :, columns], self.columns.anchor[..., None, columns])
        limit = self.depth + 1                     # depths of a and b that add up to it lose bits
        base = min(16, 2000 // limit)              # each bit of depth weighs 2^base
        step = 1 << base - 1                       # products that together stay under 1/2
        found = torch.zeros(*a.shape[:-1], b.shape[-1], dtype=torch.bool)
        for start in range(0, a.shape[-1], step):
            part = slice(start, start + step)
            weight_a = _weights(a[..., part].clamp(max=limit) - limit // 2, base)
            weight_b = _weights(b[..., part, :].clamp(max=limit) - (limit - limit // 2), base)
            found |= torch.matmul(weight_a, weight_b) > 0.75
        return found

    def lowest(self, rows: Any) -> Tensor:
        """Weight of the lowest bit of each window, float64 [..., M, N], of some rows (an index)."""
        weight = self.rows.anchor[rows].unsqueeze(-1) * self.columns.anchor.unsqueeze(-2)
        return weight.mul_(2.0 ** -self.depth)

    def sums(self, where: Tensor, *, lost: bool) -> Tensor:
        """What the windows hold after all products, for some outputs.

        Parameters
        ----------
        where : Tensor
            bool [..., M, N]: the outputs wanted.
        lost : bool
            Whether they lose bits. If not, it does not matter what products are made of.

        Returns
        -------
        Tensor
            float64 [count], in the order of ``where.nonzero()``. Exact, but rounded to odd where
            53 bits do not hold it: rounding it again to 51 bits or less is a single rounding.
        """
        *batch, row, column = where.nonzero(as_tuple=True)
        anchors = self.rows.anchor[*batch, row] * self.columns.anchor[*batch, column]
        lowest = anchors.mul_(2.0 ** -self.depth)
        out = torch.empty_like(lowest)
        right = self.b.transpose(-1, -2).contiguous()
        weight_a, weight_b = self.weights
        weight_b = None if weight_b is None else weight_b.mT
        parts = self.parts if lost else 1
        step = max(1, _CHUNK_PRODUCTS // max(1, parts * self.a.shape[-1]))
        for start in range(0, len(out), step):
            part = slice(start, start + step)
            at = [index[part] for index in batch]
            places = (*at, row[part]), (*at, column[part])
            left_parts: tuple[Tensor, ...]
            right_parts: tuple[Tensor, ...]
            if parts == 1:
                left_parts, right_parts = (self.a[places[0]],), (right[places[1]],)
            else:
                left_parts = _halves(self.a, self.rows, self.formats[0], weight_a, places[0])
                right_parts = _halves(right, self.columns, self.formats[1], weight_b, places[1])
            scale = (1 / lowest[part]).unsqueeze(-1)
            products = [_truncate((x * y).mul_(scale)) for x in left_parts for y in right_parts]
            out[part] = _sum_to_odd(torch.cat(products, -1), self.depth + 3)
        return out.mul_(lowest)


def _truncate(products: Tensor) -> Tensor:
    """Drop the bits under the window, toward zero, in place; the lowest bit kept weighs 1."""
    return products.trunc_()


def _halves(values: Tensor, of: Side, fmt: Format, weights: Tensor | None,
            place: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Rows of values [rows, K] as the sum of two 16-bit integers' worth each: (high, low).

    An element d below its anchor is S * 2^(anchor - 24 - 8 g), g = ceil(d / 8), S of 32 bits; the
    halves of S are split at 2^(anchor - 8 - 8 g).
    """
    x = values[place]
    if weights is None:
        weight = power_of_two(x.abs()).clamp_(min=2.0 ** fmt.min_exponent)
    else:
        weight = weights[place]
    top = _exponent(of.anchor[place]).unsqueeze(-1)
    group = torch.where(weight > 0, top - _exponent(weight) + 7 >> 3, 0)
    grid = (top - 8 - 8 * group + 1023 << 52).view(torch.float64)
    high = (x / grid).trunc_().mul_(grid)
    return high, x - high


def _sum_to_odd(terms: Tensor, width: int) -> Tensor:
    """Sum over the last dimension of integers below 2^width in float64, rounded to odd."""
    limbs = []
    for low in range((width - 1) // _LIMB_BITS * _LIMB_BITS, 0, -_LIMB_BITS):
        upper = (terms * 2.0 ** -low).trunc_()
        terms = torch.sub(terms, upper, alpha=2.0 ** low)
        limbs.append(upper.sum(-1))
    limbs.append(terms.sum(-1))                # highest first; each sum is exact
    negative = _normalise(limbs)[0] < 0
    magnitudes = _normalise([torch.where(negative, -limb, limb) for limb in limbs])
    total = magnitudes[0]
    for limb in magnitudes[1:]:
        total = _add_to_odd(total * 2.0 ** _LIMB_BITS, limb)
    return torch.where(negative, -total, total)


def _normalise(limbs: list[Tensor]) -> list[Tensor]:
    """Carry upwards, until every limb but the highest is in [0, 2^36)."""
    done: list[Tensor] = []
    carry = torch.zeros_like(limbs[0])
    for limb in reversed(limbs[1:]):
        limb = limb + carry
        carry = (limb * 2.0 ** -_LIMB_BITS).floor_()
        done.append(torch.sub(limb, carry, alpha=2.0 ** _LIMB_BITS))
    return [limbs[0] + carry, *reversed(done)]


def _add_to_odd(high: Tensor, low: Tensor) -> Tensor:
    """high + low, both >= 0, low in the limb below: truncated, last bit set if inexact."""
    total = high + low
    back = total - high
    error = (high - (total - back)) + (low - back)     # two-sum: exact
    bits = total.view(torch.int64)
    truncated = torch.where(error < 0, bits - 1, bits)
    return torch.where(error == 0, bits, truncated | 1).view(torch.float64)


def _somewhere(mask: Tensor) -> Tensor:
    """Indices along the last dimension at which [..., L] holds in any of the leading ones."""
    return mask.reshape(-1, mask.shape[-1]).any(0).nonzero()[:, 0]


def _exponent(x: Tensor) -> Tensor:
    """floor(log2 x) of positive float64 as int64 (zero: below all)."""
    return (x.view(torch.int64) >> 52) - 1023


def _depths(x: Tensor, anchor: Tensor) -> Tensor:
    """Bits from the anchor down to the lowest set bit of each element; very negative for zeros."""
    bits = x.abs().view(torch.int64)
    fraction = bits & (1 << 52) - 1
    trailing = (fraction & -fraction) | (fraction == 0).to(torch.int64) << 52
    lowest = (bits >> 52) - 1075 + _exponent(trailing.to(torch.float64))
    return torch.where(bits == 0, -10_000, _exponent(anchor) - lowest)


def _weights(exponent: Tensor, base: int) -> Tensor:
    """2^(base * exponent), zero under the float64 range."""
    biased = (exponent * base + 1023).clamp_(min=0)
    return (biased << 52).view(torch.float64)
