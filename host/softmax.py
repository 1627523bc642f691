"""Softmax by the contract (docs/softmax.md), vectorised: the golden model, and its backward pass.

Works in float64 and int64, exactly; only the tables and the field widths are the gateware's.
"""

import math
import struct
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..gen.config import Configuration
from ..gen.errors import UsageError
from ..hdl.softmax_tables import (
    DISTANCE_WIDTH,
    STEP_WIDTH,
    SUM_GUARD_WIDTH,
    Bipartite,
    exp_table,
    reciprocal_table,
    step_table,
)
from .numerics import checked_format, checked_tensor, decode, quantize, torch_dtype

__all__ = ["exact_softmax", "softmax_backward", "softmax_cycles"]

_CHUNK = 1 << 16            # elements worked on at once: temporaries stay in the cache
_FP64_BIAS, _FP64_MANTISSA = 1023, 52
_LAST_OCTAVE = 36           # from here on a power adds nothing to a sum


def exact_softmax(x: Tensor, result: str = "bf16", *,
                  config: Configuration) -> Tensor:
    """Softmax over the last dimension by the contract, rounded once to ``result``.

    p_i = e_i R(S), S = sum of e_j, e_j = e^(x_j - max x)

    Parameters
    ----------
    x : Tensor
        Logits, at least one dimension, any floating-point dtype, on the CPU. float64 is rounded to
        float32 first; the others are taken exactly. Any strides; never written to.
    result : str
        Format of the probabilities.
    config : Configuration
        Gives ``softmax.max_length``, the width of values and the entries of both tables.

    Returns
    -------
    Tensor
        Same shape, contiguous, in the dtype of ``result``. NaN is canonical.

    Numerics
    --------
    Relative error before the rounding at most ``softmax_tables.probability_error``. Does not depend
    on the order of a row's elements.

    Raises
    ------
    UsageError
        Not a floating-point CPU tensor (X202), no dimension (X201), an unknown format (X203) or a
        row longer than ``max_length`` (X208).
    """
    fmt = checked_format(result)
    rows = _rows(x, "x")
    length = rows.shape[-1]
    if length > config.softmax.max_length:
        raise UsageError("X208", f"a row of x has {length} elements; this configuration's rows "
                         f"have at most {config.softmax.max_length}", "raise softmax.max_length")
    unit = _Unit(config.softmax.exp_entries, config.softmax.reciprocal_entries,
                 config.softmax.value_width)
    out = torch.empty(rows.shape, dtype=torch_dtype(fmt))
    for part in _chunks(rows):
        out[part] = quantize(_probabilities(_fp32(rows[part]), unit), fmt, "overflow")
    return out.view(x.shape)


def softmax_backward(p: Tensor, dp: Tensor) -> Tensor:
    """Gradient of the logits over the last dimension, dS = fp32(P * fp32(dP - dot)).

    dot = round_fp32( sum_i p_i * dp_i ), exact products and an exact sum (rules N1 to N3)

    Parameters
    ----------
    p, dp : Tensor
        Probabilities and their gradient: same shape, at least one dimension, any floating-point
        dtypes, on the CPU; float64 is rounded to float32 first.

    Returns
    -------
    Tensor
        float32, same shape, contiguous.

    Raises
    ------
    UsageError
        Wrong kind (X202) or shapes that differ (X201).
    """
    p_rows, dp_rows = _rows(p, "p"), _rows(dp, "dp")
    if p.shape != dp.shape:
        raise UsageError("X201", f"p is {list(p.shape)} and dp is {list(dp.shape)}; "
                                 "softmax_backward takes two tensors of one shape")
    out = torch.empty(p_rows.shape, dtype=torch.float32)
    for part in _chunks(p_rows):
        left, right = _fp32(p_rows[part]), _fp32(dp_rows[part])
        out[part] = left * (right - _row_dot(left, right))
    return out.view(p.shape)


def softmax_cycles(config: Configuration, rows: int, length: int) -> int:
    """Cycles of an unstalled unit from the first element in to the last out, both counted.

    cycles = (rows + 2) * beats + 17, beats = ceil(length / lanes): a row's first beat comes out
    beats + 18 cycles after its last went in, and rows follow without a bubble. A row of more than
    ``max_length`` elements goes in three times, in blocks of that length, and

    cycles = rows * (3 * beats + block - last) + block + last + 17

    with block = ceil(max_length / lanes), and ``last`` beats in the last block.
    """
    beats = -(-length // config.softmax.lanes)
    if not rows or not beats:
        return 0
    if length > config.softmax.max_length:
        block = -(-config.softmax.max_length // config.softmax.lanes)
        last = (beats - 1) % block + 1
        return rows * (3 * beats + block - last) + block + last + 17
    return (rows + 2) * beats + 17


def _rows(x: Tensor, name: str) -> Tensor:
    """The tensor as [R, L], if it is a dense float tensor on the CPU with a dimension."""
    x = checked_tensor(x, name)
    if x.dim() == 0:
        raise UsageError("X201", f"{name} is a scalar; softmax takes at least one dimension")
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _chunks(rows: Tensor) -> Iterator[slice]:
    """Slices of whole rows, about ``_CHUNK`` elements each; none if there are no elements."""
    step = max(1, _CHUNK // max(1, rows.shape[-1]))
    return (slice(i, i + step) for i in range(0, len(rows) if rows.numel() else 0, step))


def _fp32(x: Tensor) -> Tensor:
    """As float32: float64 rounded, everything else exact."""
    return x.to(torch.float32) if x.dtype == torch.float64 else decode(x)


class _Unit(NamedTuple):
    """The parameters that results depend on."""

    exp_entries: int
    reciprocal_entries: int
    value_width: int


@cache
def _entries(table: Bipartite) -> tuple[Tensor, Tensor]:
    """Bases and falls."""
    return torch.tensor(table.bases), torch.tensor(table.falls)


@cache
def _steps(unit: _Unit) -> tuple[Tensor, Tensor]:
    """Octaves and rests."""
    steps = step_table(unit.exp_entries, unit.value_width)
    return torch.tensor(steps.octaves), torch.tensor(steps.rests)


def _values(x: Tensor, table: Bipartite) -> Tensor:
    """The table's values at x, as integers."""
    bases, falls = _entries(table)
    fall = x >> table.input_width - table.segment_width << table.offset_width
    fall |= x & (1 << table.offset_width) - 1
    return bases[x >> table.offset_width].sub_(falls[fall]) >> table.base_width - table.value_width


def _probabilities(x: Tensor, unit: _Unit) -> Tensor:
    """Rules S1 to S5 on float32 [R, L]: unrounded float64 probabilities, NaN in undefined rows."""
    width = unit.value_width
    cut = x.double().mul_(2.0 ** width).trunc_()
    largest = cut.amax(-1, keepdim=True)
    distance = largest - cut  # where it is below the limit nothing is rounded
    limit = 2.0 ** (width + DISTANCE_WIDTH - 1)
    is_zero = ~(distance < limit)
    distance = distance.masked_fill_(is_zero, limit - 1).long()

    octaves, rests = _steps(unit)
    step = distance >> width - STEP_WIDTH
    octave = octaves[step]
    rest = (distance & (1 << width - STEP_WIDTH) - 1).mul_(2).add_(rests[step])
    value = _values(rest, exp_table(unit.exp_entries, width)).masked_fill_(is_zero, 0)

    # Terms, halves upwards; a bit more is kept to round by.
    sum_width = width + SUM_GUARD_WIDTH
    shift = octave.clamp(max=_LAST_OCTAVE) + (width - 1 - sum_width + 32)
    total = ((value << 33 >> shift) + 1 >> 1).sum(-1, keepdim=True)
    place = torch.frexp(total.double()).exponent.long() - (sum_width + 1)
    fraction = total >> (place + SUM_GUARD_WIDTH).clamp_(min=0)
    fraction &= (1 << width) - 1
    inverse = _values(fraction, reciprocal_table(unit.reciprocal_entries, width))

    product = value.mul_(inverse) >> width
    exponent = 1 - (width + 2) - place - octave
    power = (exponent + _FP64_BIAS << _FP64_MANTISSA).view(torch.float64)
    p = (product << 2 | 3).double().mul_(power).masked_fill_(is_zero, 0.0)
    return torch.where(largest.isfinite(), p, math.nan)


def _row_dot(a: Tensor, b: Tensor) -> Tensor:
    """Exact dot products of float32 rows, [R, 1], rounded once.

    Products are exact in float64. They are added by pairs together with the rounding errors of
    every addition; where what that may miss leaves the result in doubt, the row is summed exactly.
    """
    products = a.double() * b.double()
    plain = products.sum(-1)
    total, error, lost = products, torch.zeros_like(plain), torch.zeros_like(plain)
    while total.shape[-1] > 1:
        if total.shape[-1] % 2:
            total = torch.nn.functional.pad(total, (0, 1))
        left, right = total[:, 0::2], total[:, 1::2]
        total = left + right
        part = total - left
        part = (left - (total - part)) + (right - part)
        error += part.sum(-1)
        lost += part.abs_().sum(-1)
    best = total.squeeze(-1) + error
    slack = lost * (a.shape[-1] * 2.0 ** -52) + best.abs() * 2.0 ** -52 * (lost > 0)
    lowest, dot = (best - slack).float(), best.float()
    doubtful = (lost > 0) & ((lowest != (best + slack).float()) | (lowest == 0))
    for i in doubtful.nonzero().flatten().tolist():
        dot[i] = _rounded_to_odd(products[i].tolist())
    return torch.where(plain.isfinite(), dot, plain.float()).unsqueeze(-1)


def _rounded_to_odd(terms: list[float]) -> float:
    """The exact sum in float64, the odd neighbour if inexact: to be rounded again, to float32."""
    total = math.fsum(terms)
    rest = math.fsum([*terms, -total])
    even = struct.pack("<d", total)[0] % 2 == 0
    return math.nextafter(total, math.copysign(math.inf, rest)) if rest and even else total + 0.0
