"""The golden model of the matrix product: exact sums, rounded once (rules N1 to N4).

One float64 matmul does nearly all the work. Where its result is not proven exact, bounds on its
error tell which outputs round the same way at both ends; only the others are summed again exactly.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..gen.config import Configuration
from ..gen.errors import UsageError
from ..hdl.formats import FP32, Format
from . import kernels
from .mx import Scales, checked_scales, scaled
from .numerics import (
    Operand,
    checked_format,
    checked_overflow,
    checked_tensor,
    encode,
    max_finite,
    operand,
    round_grid,
)
from .window import Window, side

__all__ = ["Product", "check_has", "check_shapes", "default_overflow", "exact_gemm", "product"]

_BLOCK = 1 << 16                                  # results certified at once: they stay in cache
_LARGEST_INTEGER = 2.0 ** 53 * (1 - 2.0 ** -20)   # room for the rounding of the norms


class Product(NamedTuple):
    """Results of a product before they are encoded."""

    grid: Tensor
    """float32 or float64 [..., M, N] on the grid of the result format; beyond its largest finite
    value where the sum overflows."""
    lost: Tensor | None
    """bool [..., M, N], or None when no output lost anything."""


def exact_gemm(a: Tensor, b: Tensor, formats: tuple[str, str] = ("e4m3", "e4m3"),
               result: str = "fp32", *, overflow: str | None = None, exponent: int = 0,
               scales: Scales = None, scale_block: int = 32,
               accumulator_width: int = 100, max_k: int = 32768) -> tuple[Tensor, Tensor]:
    """round(2^exponent * a @ b), every sum exact and rounded once.

    Parameters
    ----------
    a, b : Tensor
        [M, K] and [K, N], or [B, M, K] and [B, K, N]; any float dtype and layout, on the CPU.
        Converted to ``formats`` unless they already have that dtype.
    formats : tuple of str
        The formats of ``a`` and of ``b``.
    result : str
        The format of the result.
    overflow : str, optional
        "saturate" or "overflow"; None: saturate in the 8-bit result formats, overflow in others.
    exponent : int
        Power of two that the sums are scaled by, before the rounding.
    scales : tuple of Tensor or None, optional
        Block scales of ``a`` [..., M, ceil(K / scale_block)] and of ``b``
        [..., ceil(K / scale_block), N], uint8 or float8_e8m0fnu (rule N6), or None for either. A
        scaled operand must have its format's dtype: see `mx.mx_quantize`.
    scale_block : int
        Elements along K that share a scale: 16, 32 or 64.
    accumulator_width, max_k : int
        The window of rule N4.

    Returns
    -------
    tuple of Tensor
        The results in the result format's dtype, [M, N] or [B, M, N], and their ``lost`` flags
        (bool). Not differentiable.

    Numerics
    --------
    docs/numerics.md to the bit, whatever the number of threads. K = 0 gives +0.

    Raises
    ------
    UsageError
        Wrong shapes, dtypes or formats, or K beyond ``max_k``.
    """
    formats_found = checked_format(formats[0]), checked_format(formats[1])
    target = checked_format(result)
    mode = checked_overflow(overflow or default_overflow(target))
    check_shapes(a, b, max_k)
    a, b = checked_tensor(a, "a"), checked_tensor(b, "b")
    known = checked_scales(scales, a, b, formats_found, scale_block)
    left = scaled(operand(a, formats_found[0]), known[0], formats_found[0], -1, scale_block)
    right = scaled(operand(b, formats_found[1], by_columns=True), known[1], formats_found[1], -2,
                   scale_block)
    done = product(left, right, formats_found, target, exponent=exponent,
                   accumulator_width=accumulator_width, max_k=max_k)
    lost = done.lost
    if lost is None:
        lost = torch.zeros(done.grid.shape, dtype=torch.bool)
    return encode(done.grid, target, mode), lost


def default_overflow(fmt: Format) -> str:
    """What a conversion or a result does on overflow unless told otherwise."""
    return "saturate" if fmt.width == 8 else "overflow"


def check_shapes(a: Tensor, b: Tensor, max_k: int) -> None:
    """UsageError unless a [.., M, K] and b [.., K, N] fit together and K is at most ``max_k``."""
    shapes = [list(getattr(x, "shape", ())) for x in (a, b)]
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        legal = len(shapes[0]) == len(shapes[1]) and len(shapes[0]) in (2, 3)
        if not legal or shapes[0][-1] != shapes[1][-2] or shapes[0][:-2] != shapes[1][:-2]:
            raise UsageError("X201", f"a is {shapes[0]} and b is {shapes[1]}; a product takes "
                                     "a [M, K] and b [K, N], or a [B, M, K] and b [B, K, N]")
        if shapes[0][-1] > max_k:
            raise UsageError("X204", f"K is {shapes[0][-1]}; this configuration sums at most "
                                     f"{max_k} products")


def check_has(config: Configuration, fmt: Format) -> None:
    """UsageError unless the configuration's engine has the format."""
    if fmt.name not in config.vpcu.formats:
        raise UsageError("X205", f"{config.name} has the formats {', '.join(config.vpcu.formats)}; "
                         f"got {fmt.name!r}", f"add {fmt.name} to vpcu.formats")


@torch.no_grad()
def product(a: Operand, b: Operand, formats: tuple[Format, Format], result: Format, *,
            exponent: int, accumulator_width: int, max_k: int) -> Product:
    """`exact_gemm` on converted operands, up to the encoding of the results."""
    special = None
    left, right = a.values, b.values
    if not (a.finite and b.finite):
        special = _special(left, right)
        left, right = (x.masked_fill(~x.isfinite(), 0.0) for x in (left, right))
    sums = torch.matmul(left, right)
    depth = accumulator_width - 3 - (max_k - 1).bit_length()
    scale = 2.0 ** max(-1000, min(1000, exponent))     # beyond, every result is 0 or overflows
    lost = None
    weights = a.weights, b.weights
    terms = left.shape[-1]
    if not terms or (weights[0] is weights[1] is None and _always_exact(formats, terms, depth)):
        grid = _scaled_grid(sums, scale, result)
    else:
        grid, lost = _certified(left, right, sums, formats, weights, result, depth, scale)
    if special is not None:
        known = special != 0
        grid = torch.where(known, special.to(grid.dtype), grid)
        lost = None if lost is None else lost & ~known
    return Product(grid, lost)


def _always_exact(formats: tuple[Format, Format], terms: int, depth: int) -> bool:
    """Whether any operands of these formats sum exactly in float64 and lose nothing."""
    if any(fmt.is_wide for fmt in formats):
        return False
    spans = [fmt.max_exponent + 1 - (fmt.min_exponent - fmt.mantissa_width) for fmt in formats]
    return (sum(spans) + max(0, terms - 1).bit_length() <= 53
            and sum(span - 1 for span in spans) <= depth)


def _certified(a: Tensor, b: Tensor, sums: Tensor, formats: tuple[Format, Format],
               weights: tuple[Tensor | None, Tensor | None], result: Format, depth: int,
               scale: float) -> tuple[Tensor, Tensor | None]:
    """Results on the grid, each proven: by range, by its error bound, or summed again."""
    anchored = any(fmt.is_wide for fmt in formats) or any(w is not None for w in weights)
    rows = side(a, -1, formats[0], anchored, weights[0])
    columns = side(b, -2, formats[1], anchored, weights[1])
    window = Window(a, b, rows, columns, depth=depth, formats=formats, weights=weights)
    lost = window.lost()
    # By Cauchy and Schwarz, no partial sum exceeds this many grains of its row and column.
    row_span, column_span = rows.norm / rows.grain, columns.norm / columns.grain
    if lost is None and _largest(row_span) * _largest(column_span) <= _LARGEST_INTEGER:
        return _scaled_grid(sums, scale, result), None
    terms = a.shape[-1]
    row_norm = rows.norm * (1.01 * (terms + 2) * 2.0 ** -53)     # of the worst order of summation
    grid = torch.empty(sums.shape, dtype=torch.float32 if result is FP32 else torch.float64)
    uncertain = torch.empty(sums.shape, dtype=torch.bool)
    step = max(1, _BLOCK // max(1, sums.shape[-1] * math.prod(sums.shape[:-2])))
    for start in range(0, sums.shape[-2], step):
        part = (..., slice(start, start + step), slice(None))
        bound = row_norm[part[:-1]].unsqueeze(-1) * columns.norm.unsqueeze(-2)
        span = row_span[part[:-1]].unsqueeze(-1) * column_span.unsqueeze(-2)
        bound.masked_fill_(span <= _LARGEST_INTEGER, 0.0)
        if lost is not None:
            bound += torch.where(lost[part], window.lowest(part[:-1]) * (window.parts * terms),
                                 0.0)
        low = _scaled_grid(sums[part] - bound, scale, result)
        high = _scaled_grid(bound.add_(sums[part]), scale, result)
        bits = torch.int32 if result is FP32 else torch.int64
        torch.ne(low.view(bits), high.view(bits), out=uncertain[part])
        grid[part] = low
    for loses, where in ((False, uncertain if lost is None else uncertain & ~lost),
                         (True, None if lost is None else uncertain & lost)):
        if where is not None and where.any():
            grid[where] = _scaled_grid(window.sums(where, lost=loses), scale, result)
    return grid, lost


def _largest(x: Tensor) -> float:
    return x.max().item() if x.numel() else 0.0


def _scaled_grid(x: Tensor, scale: float, fmt: Format) -> Tensor:
    """Rounded once to the grid, with overflow as Inf; an exact zero is +0, others keep their sign.
    """
    if fmt is FP32:
        rounded = kernels.round_sums(x, scale)
        if rounded is not None:
            return rounded
    x = x + 0.0
    if scale != 1.0:
        x *= scale
    grid = round_grid(x, fmt)
    if grid.dtype == torch.float64:
        grid = torch.copysign(grid, x)
        grid.masked_fill_(grid > max_finite(fmt), math.inf)
        grid.masked_fill_(grid < -max_finite(fmt), -math.inf)
    return grid


def _special(a: Tensor, b: Tensor) -> Tensor:
    """Rule N3, float64 [..., M, N]: NaN, +-Inf, or 0 where every product is finite.

    The counts are float64: autocast would lower products of float32 to bfloat16.
    """
    infinite_a, infinite_b = (torch.where(x.isinf(), x.sign(), 0.0) for x in (a, b))
    sign_a, sign_b = (torch.where(x.isnan(), 0.0, x.sign()) for x in (a, b))
    finite_a = sign_a - infinite_a
    balance = torch.matmul(infinite_a, sign_b) + torch.matmul(finite_a, infinite_b)
    by_a = torch.matmul(infinite_a.abs(), sign_b.abs())
    by_b = torch.matmul(sign_a.abs(), infinite_b.abs())
    count = by_a + torch.matmul(finite_a.abs(), infinite_b.abs())
    nan = a.isnan().any(-1).unsqueeze(-1) | b.isnan().any(-2).unsqueeze(-2)
    nan |= by_a < infinite_a.abs().sum(-1).unsqueeze(-1)             # Inf x 0
    nan |= by_b < infinite_b.abs().sum(-2).unsqueeze(-2)             # 0 x Inf
    nan |= balance.abs() < count                                     # +Inf and -Inf
    return torch.where(nan, math.nan, torch.where(count > 0, balance.sign() * math.inf, 0.0))
