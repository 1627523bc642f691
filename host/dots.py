"""Dot products of rows with rows of their own, d_r = sum_k a[r, k] b[r, k], on the engine.

It multiplies each tile's T rows of A with the T rows of B that stand in it as columns, and the
diagonal counts: T times the products, in the cycles in which a unit of one multiplier would take
the dot products alone (docs/attention.md, "The sums of the backward pass").
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..gen.config import Configuration
from ..gen.errors import UsageError
from ..hdl.formats import Format, lookup
from .gemm import check_has, product
from .numerics import Operand, encode, format_of, operand
from .plan import Plan, operation_settings, streams
from .tiling import tile_columns
from .vectors import vectors

__all__ = ["DotsPlan", "check_dots", "exact_dots", "plan_dots", "row_dots"]

_CHUNK = 1 << 16  # elements worked on at once: temporaries stay in the cache


def check_dots(a: Tensor, b: Tensor, *, config: Configuration) -> tuple[Format, Format]:
    """The formats of tensors [R, K], if the configuration takes their rows' dot products.

    Raises
    ------
    UsageError
        The configuration lacks one of the formats (X205), or K is beyond its ``max_k`` (X204).
    """
    formats = format_of(a.dtype), format_of(b.dtype)
    for fmt in formats:
        check_has(config, fmt)
    if a.shape[1] > config.vpcu.max_k:
        raise UsageError("X204", f"a row has {a.shape[1]} elements; this configuration sums at "
                         f"most {config.vpcu.max_k} products")
    return formats


def row_dots(a: Tensor, b: Tensor, *, config: Configuration) -> Tensor:
    """`exact_dots` of tensors [R, K], each in the format of its dtype: float32 [R].

    Raises
    ------
    UsageError
        As `check_dots`.
    """
    formats = check_dots(a, b, config=config)
    out = torch.zeros(len(a), dtype=torch.float32)
    step = max(1, _CHUNK // max(1, a.shape[1]))
    for start in range(0, len(a) if a.shape[1] else 0, step):
        part = slice(start, start + step)
        out[part], _ = exact_dots(
            operand(a[part], formats[0]), operand(b[part], formats[1]),
            (formats[0].name, formats[1].name),
            accumulator_width=config.vpcu.accumulator_width, max_k=config.vpcu.max_k)
    return out


@torch.no_grad()
def exact_dots(a: Operand, b: Operand, formats: tuple[str, str], *,
               accumulator_width: int = 100, max_k: int = 32768) -> tuple[Tensor, Tensor]:
    """round_fp32(sum_k a[r, k] * b[r, k]) by rules N1 to N4, each sum exact and rounded once.

    Parameters
    ----------
    a, b : Operand
        [R, K] each, converted to ``formats``.
    formats : tuple of str
    accumulator_width, max_k : int
        The window of rule N4.

    Returns
    -------
    tuple of Tensor
        float32 [R], and the ``lost`` flags, bool [R].
    """
    pair, target = (lookup(formats[0]), lookup(formats[1])), lookup("fp32")
    left, right = a._replace(values=a.values.unsqueeze(-2)), b._replace(
        values=b.values.unsqueeze(-1))
    done = product(left, right, pair, target, exponent=0, accumulator_width=accumulator_width,
                   max_k=max_k)
    shape = a.values.shape[:-1]
    lost = torch.zeros(shape, dtype=torch.bool) if done.lost is None else done.lost.view(shape)
    return encode(done.grid, target, "overflow").view(shape), lost


@dataclass(frozen=True, kw_only=True)
class DotsPlan(Plan):
    """The streams of row-wise dot products; of the results (R, 1) the diagonals count."""

    @property
    def results(self) -> int:
        """Items that will come out of ``o``."""
        return self.shape[0] * self.columns

    def gather(self, items: list[int]) -> tuple[Tensor, Tensor]:
        """The bit patterns [R, 1] (int64) and the lost flags [R, 1] (bool) from ``o``'s items."""
        rows = torch.arange(self.shape[0])
        found = torch.tensor(items, dtype=torch.int64).reshape(-1, self.columns)
        return self.split(found[rows, rows % self.columns].unsqueeze(1))


def plan_dots(a: Tensor, b: Tensor, formats: tuple[str, str], *,
              config: Configuration) -> DotsPlan:
    """The plan of the dot products of the rows of a and b, in fp32.

    Parameters
    ----------
    a, b : Tensor
        Bit patterns [R, K] each, int64 (``numerics.to_bits``); a's zeros are skipped.
    formats : tuple of str
        Their formats, among those of ``config``.
    config : Configuration
        The engine's.
    """
    pair = lookup(formats[0]), lookup(formats[1])
    is_fixed = not (pair[0].is_wide or pair[1].is_wide)
    left, right = (vectors(bits, fmt, None, block=0, is_scaled=False, is_fixed=is_fixed)
                   for bits, fmt in zip((a, b), pair, strict=True))
    settings = operation_settings(pair, lookup("fp32"), saturate=False, exponent=0, scaled=False)
    columns, whole = tile_columns(config, pair), slice(None)
    sent: dict[str, Any] = {
        name: [] for name in ("operations", "b", "rows", "masks", "values")}
    for start in range(0, len(a), columns):
        part = slice(start, start + columns)
        block = streams(left.select(part, whole), right.select(part, whole), settings, None, config)
        for name, items in sent.items():
            items += block[name]
    return DotsPlan(shape=(len(a), 1), columns=columns,
                    places=(torch.arange(len(a)), torch.arange(1)), **sent)
