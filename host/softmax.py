"""Softmax by the contract (docs/softmax.md), vectorised: the golden model, and its backward pass.

Works in float64 and int64, exactly; only the tables and the field widths are the gateware's.
"""

import math
import struct
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from ..gen.config import Configuration
from ..gen.errors import UsageError
from ..hdl.softmax_tables import (
    BIN_WIDTH,
    CODE_BASE,
    CODE_EXPONENT,
    CODE_SHIFT,
    FRACTION_WIDTH,
    LOG2E,
    LOG2E_FRACTION,
    ROW_FRACTION_WIDTH,
    VALUE_WIDTH,
    Table,
    exp2_table,
    reciprocal_table,
)
from .numerics import checked_format, checked_tensor, decode, quantize, torch_dtype

__all__ = ["exact_softmax", "softmax_backward", "softmax_cycles"]

_CHUNK = 1 << 16            # elements worked on at once: temporaries stay in the cache
_CODE_START = 0x4F000000    # fp32's bits of 2^CODE_EXPONENT
_FP64_BIAS, _FP64_MANTISSA = 1023, 52
_NOWHERE = -(1 << 40)       # the bin of an element that is not in the sum


def exact_softmax(x: Tensor, result: str = "bf16", *,
                  config: Configuration) -> Tensor:
    """Softmax over the last dimension by the contract, rounded once to ``result``.

    p_i = T_i 2^(n_i) R(S), S = sum of T_j 2^(n_j), t_j = x_j log2(e) = n_j + f_j, T_j = 2^(f_j)

    Parameters
    ----------
    x : Tensor
        Logits, at least one dimension, any floating-point dtype, on the CPU. float64 is rounded to
        float32 first; the others are taken exactly. Any strides; never written to.
    result : str
        Format of the probabilities.
    config : Configuration
        Gives ``softmax.max_length`` and the number of segments of both tables.

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
    exp2 = exp2_table(config.softmax.exp_segments)
    reciprocal = reciprocal_table(config.softmax.reciprocal_segments)
    out = torch.empty(rows.shape, dtype=torch_dtype(fmt))
    for part in _chunks(rows):
        out[part] = quantize(_probabilities(_fp32(rows[part]), exp2, reciprocal), fmt, "overflow")
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

    cycles = (rows + 1) * beats + 10 + log2(lanes), beats = ceil(length / lanes): a row's first beat
    comes out 11 + log2(lanes) cycles after its last went in, and rows follow without a bubble.
    """
    lanes = config.softmax.lanes
    beats = -(-length // lanes)
    return (rows + 1) * beats + 9 + lanes.bit_length() if rows and beats else 0


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


def _logarithms(x: Tensor) -> Tensor:
    """Rule S2: t of finite fp32 logits, as an integer with ``FRACTION_WIDTH`` fraction bits."""
    scale = math.ldexp(LOG2E, FRACTION_WIDTH - LOG2E_FRACTION)
    magnitude = x.abs()
    t = (magnitude.double() * scale + 0.5).floor_().long()  # 48-bit products: no rounding but this
    huge = magnitude >= 2.0 ** CODE_EXPONENT
    if huge.any():
        above = magnitude.view(torch.int32).long() - _CODE_START
        t = torch.where(huge, (above << CODE_SHIFT) + CODE_BASE << FRACTION_WIDTH, t)
    return torch.where(x < 0, -t, t)


@cache
def _entries(table: Table) -> tuple[Tensor, Tensor]:
    """Bases, scaled to the lines' last bit, and signed slopes."""
    slopes = torch.tensor(table.slopes)
    return torch.tensor(table.bases) << table.low_width, -slopes if table.falling else slopes


def _values(fraction: Tensor, table: Table) -> Tensor:
    """The table's values for fractions in its last bit, as integers."""
    bases, slopes = _entries(table)
    index = fraction >> table.low_width
    low = fraction & (1 << table.low_width) - 1
    return slopes[index].mul_(low).add_(bases[index]) >> table.drop_width


def _probabilities(x: Tensor, exp2: Table, reciprocal: Table) -> Tensor:
    """Rules S1 to S5 on float32 [R, L]: unrounded float64 probabilities, NaN in undefined rows."""
    counted = x.isfinite()
    all_counted = bool(counted.all())
    logits = x if all_counted else x.masked_fill(~counted, 0.0)
    t = _logarithms(logits)
    octave = t >> FRACTION_WIDTH
    value = _values(t & (1 << FRACTION_WIDTH) - 1, exp2)
    bins = octave >> BIN_WIDTH
    if not all_counted:
        value *= counted
        bins.masked_fill_(~counted, _NOWHERE)

    top = bins.amax(-1, keepdim=True)
    terms = value << (octave & (1 << BIN_WIDTH) - 1)
    depth = top - bins
    high = (terms * (depth == 0)).sum(-1, keepdim=True)
    low = (terms * (depth == 1)).sum(-1, keepdim=True)
    fraction, place = _normalised(high, low)
    scale = (top - 1 << BIN_WIDTH) + place + VALUE_WIDTH

    exponent = (octave - scale).clamp_(min=-400, max=0)  # of what counts it is negative
    power = (exponent + _FP64_BIAS << _FP64_MANTISSA).view(torch.float64)
    p = (value * _values(fraction, reciprocal)).double().mul_(power).clamp_(max=1.0)
    if not all_counted:
        p.masked_fill_(~(x < math.inf).all(-1, keepdim=True) | ~counted.any(-1, keepdim=True),
                       math.nan)
    return p


def _normalised(high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """S = high * 2^32 + low as (1 + fraction / 2^20) * 2^place, the fraction truncated."""
    span = 1 << BIN_WIDTH
    high, low = high + (low >> span), low & (1 << span) - 1
    length = _bit_lengths(high)
    surplus = length - (ROW_FRACTION_WIDTH + 1)
    short = (-surplus).clamp_(min=0, max=span)
    leading = torch.where(surplus < 0, (high << short) | (low >> span - short),
                          high >> surplus.clamp(min=0))
    return leading & (1 << ROW_FRACTION_WIDTH) - 1, length + span - 1


def _bit_lengths(x: Tensor) -> Tensor:
    """Bits of non-negative int64 numbers."""
    length = torch.zeros_like(x)
    for step in (32, 16, 8, 4, 2, 1):
        upper = x >> step
        length += step * (upper > 0)
        x = torch.where(upper > 0, upper, x)
    return length + (x > 0)


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
