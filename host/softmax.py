"""Softmax by the contract (docs/softmax.md), vectorised: the golden model, and its backward pass.

Works in float64 and int64, exactly; only the tables and the field widths are the gateware's.
"""

import math
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..gen.config import Configuration
from ..gen.errors import UsageError
from ..hdl.softmax_tables import (
    DISTANCE_WIDTH,
    MAX_LENGTH,
    STEP_WIDTH,
    SUM_GUARD_WIDTH,
    Bipartite,
    exp_table,
    reciprocal_table,
    step_table,
)
from .dots import row_dots
from .elementwise import exact_elementwise
from .numerics import checked_format, checked_tensor, decode, quantize, torch_dtype

__all__ = ["Passed", "Unit", "check_length", "exact_softmax", "normalised", "passed", "rows_of",
           "rows_of_both", "softmax_backward", "softmax_cycles", "table_values"]

_CHUNK = 1 << 16            # elements worked on at once: temporaries stay in the cache
_FP64_BIAS, _FP64_MANTISSA = 1023, 52
_LAST_OCTAVE = 36           # from here on a power adds nothing to a sum
_LATENCY = 18               # cycles of a row beyond those of its three passes


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
        Gives ``softmax.max_length``, the width of values and the entries of both tables. A row
        that is longer goes in blocks of ``max_length``, with the same bits (rule S8).

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
        row longer than 16384 (X208).
    """
    fmt = checked_format(result)
    rows = rows_of(x, "x")
    out = torch.empty(rows.shape, dtype=torch_dtype(fmt))
    for part, found in passed(rows, config):
        out[part] = quantize(normalised(found), fmt, "overflow")
    return out.view(x.shape)


def softmax_backward(p: Tensor, dp: Tensor, *, config: Configuration) -> Tensor:
    """Gradient of the logits over the last dimension, dS = fp32(P * fp32(dP - dot)).

    dot = round_fp32( sum_i p_i * dp_i ), exact products and an exact sum (rules N1 to N4)

    Parameters
    ----------
    p, dp : Tensor
        Probabilities and their gradient: same shape, at least one dimension, any floating-point
        dtypes, on the CPU; float64 is rounded to float32 first.
    config : Configuration
        Gives the window of rule N4.

    Returns
    -------
    Tensor
        float32, same shape, contiguous.

    Raises
    ------
    UsageError
        Wrong kind (X202), shapes that differ (X201), a row longer than ``max_k`` (X204), or a
        format that the configuration lacks (X205).
    """
    p_rows, dp_rows = rows_of_both("softmax_backward", p=p, dp=dp)
    dots = row_dots(p_rows, dp_rows, config=config)
    zero = torch.zeros(1, 1, dtype=torch.float32)
    return exact_elementwise(dp_rows, dots.unsqueeze(-1), p_rows, zero).view(p.shape)


def softmax_cycles(config: Configuration, rows: int, length: int) -> int:
    """Cycles of an unstalled unit from the first element in to the last out, both counted.

    cycles = (rows + 2) * beats + 18, beats = ceil(length / lanes): a row's first beat comes out
    beats + 19 cycles after its last went in, and rows follow without a bubble. A row of more than
    ``max_length`` elements goes in three times, in blocks of that length, and

    cycles = rows * (3 * beats + block - last) + block + last + 18

    with block = ceil(max_length / lanes), and ``last`` beats in the last block.
    """
    beats = -(-length // config.softmax.lanes)
    if not rows or not beats:
        return 0
    if length > config.softmax.max_length:
        block = -(-config.softmax.max_length // config.softmax.lanes)
        last = (beats - 1) % block + 1
        return rows * (3 * beats + block - last) + block + last + _LATENCY
    return (rows + 2) * beats + _LATENCY


def rows_of(x: Tensor, name: str) -> Tensor:
    """The tensor as [R, L], if it is a dense float tensor on the CPU with a dimension."""
    x = checked_tensor(x, name)
    if x.dim() == 0:
        raise UsageError("X201", f"{name} is a scalar; softmax takes at least one dimension")
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def check_length(rows: Tensor) -> None:
    """UsageError if no configuration takes rows of such a length."""
    if rows.shape[-1] > MAX_LENGTH:
        raise UsageError("X208", f"a row of x has {rows.shape[-1]} elements; rows have at most "
                         f"{MAX_LENGTH}, of any configuration", "split the row")


def rows_of_both(taker: str, **tensors: Tensor) -> list[Tensor]:
    """`rows_of` two tensors by their names, if they have one shape; ``taker`` wants that."""
    rows = [rows_of(x, name) for name, x in tensors.items()]
    (first, a), (second, b) = tensors.items()
    if a.shape != b.shape:
        raise UsageError("X201", f"{first} is {list(a.shape)} and {second} is {list(b.shape)}; "
                                 f"{taker} takes two tensors of one shape")
    return rows


def _chunks(rows: Tensor) -> Iterator[slice]:
    """Slices of whole rows, about ``_CHUNK`` elements each; none if there are no elements."""
    step = max(1, _CHUNK // max(1, rows.shape[-1]))
    return (slice(i, i + step) for i in range(0, len(rows) if rows.numel() else 0, step))


def _fp32(x: Tensor) -> Tensor:
    """As float32: float64 rounded, everything else exact."""
    return x.to(torch.float32) if x.dtype == torch.float64 else decode(x)


class Unit(NamedTuple):
    """The parameters that results depend on."""

    exp_entries: int
    reciprocal_entries: int
    value_width: int


class _Powers(NamedTuple):
    """A block of rows in the second pass, e = value * 2^(1 - value_width - octave)."""

    value: Tensor
    octave: Tensor
    is_zero: Tensor


class Passed(NamedTuple):
    """Rows after their first two passes.

    Members
    -------
    unit : Unit
    x : Tensor
        float32 [R, L].
    largest : Tensor
        float64 [R, 1]: the largest of the numbers that are cut off, times 2^value_width. NaN, Inf
        or -Inf in undefined rows.
    place, fraction : Tensor
        int64 [R, 1], S = (1 + fraction * 2^-value_width) * 2^place, what lies below cut off.
    blocks : list of _Powers
    """

    unit: Unit
    x: Tensor
    largest: Tensor
    place: Tensor
    fraction: Tensor
    blocks: list[_Powers]


def passed(rows: Tensor, config: Configuration) -> Iterator[tuple[slice, Passed]]:
    """Rules S1 to S4 and S8 on rows [R, L], some of them at a time, each with its place."""
    check_length(rows)
    limit = config.softmax.max_length
    unit = Unit(config.softmax.exp_entries, config.softmax.reciprocal_entries,
                config.softmax.value_width)
    return ((part, _two_passes(_fp32(rows[part]), unit, limit)) for part in _chunks(rows))


@cache
def _entries(table: Bipartite) -> tuple[Tensor, Tensor]:
    """Bases and falls."""
    return torch.tensor(table.bases), torch.tensor(table.falls)


@cache
def _steps(unit: Unit) -> tuple[Tensor, Tensor]:
    """Octaves and rests."""
    steps = step_table(unit.exp_entries, unit.value_width)
    return torch.tensor(steps.octaves), torch.tensor(steps.rests)


def table_values(x: Tensor, table: Bipartite) -> Tensor:
    """The table's values at x, as integers."""
    bases, falls = _entries(table)
    fall = x >> table.input_width - table.segment_width << table.offset_width
    fall |= x & (1 << table.offset_width) - 1
    return bases[x >> table.offset_width].sub_(falls[fall]) >> table.base_width - table.value_width


def _two_passes(x: Tensor, unit: Unit, limit: int) -> Passed:
    """The maximum and the sum of float32 rows, over blocks of ``limit`` elements."""
    width = unit.value_width
    cuts = [block.double().mul_(2.0 ** width).trunc_() for block in x.split(limit, -1)]
    largest = torch.cat([cut.amax(-1, keepdim=True) for cut in cuts], -1).amax(-1, keepdim=True)
    blocks = [_powers(cut, largest, unit) for cut in cuts]
    total = torch.cat([_terms(block, unit) for block in blocks], -1).sum(-1, keepdim=True)
    place = torch.frexp(total.double()).exponent.long() - (width + SUM_GUARD_WIDTH + 1)
    fraction = total >> (place + SUM_GUARD_WIDTH).clamp_(min=0)
    fraction &= (1 << width) - 1
    return Passed(unit, x, largest, place, fraction, blocks)


def _powers(cut: Tensor, largest: Tensor, unit: Unit) -> _Powers:
    """Rules S2 and S3: the powers of a block's numbers, cut off, below the row's largest."""
    width = unit.value_width
    distance = largest - cut  # where it is below the limit nothing is rounded
    limit = 2.0 ** (width + DISTANCE_WIDTH - 1)
    is_zero = ~(distance < limit)
    distance = distance.masked_fill_(is_zero, limit - 1).long()
    octaves, rests = _steps(unit)
    step = distance >> width - STEP_WIDTH
    rest = (distance & (1 << width - STEP_WIDTH) - 1).mul_(2).add_(rests[step])
    value = table_values(rest, exp_table(unit.exp_entries, width)).masked_fill_(is_zero, 0)
    return _Powers(value, octaves[step], is_zero)


def _terms(powers: _Powers, unit: Unit) -> Tensor:
    """Rule S4: the sums of a block's terms, halves upwards; a bit more is kept to round by."""
    shift = powers.octave.clamp(max=_LAST_OCTAVE) + (31 - SUM_GUARD_WIDTH)
    return ((powers.value << 33 >> shift) + 1 >> 1).sum(-1, keepdim=True)


def normalised(rows: Passed) -> Tensor:
    """Rule S5: unrounded float64 probabilities [R, L], NaN in undefined rows."""
    unit = rows.unit
    inverse = table_values(rows.fraction,
                           reciprocal_table(unit.reciprocal_entries, unit.value_width))
    parts = []
    for value, octave, is_zero in rows.blocks:
        product = value * inverse >> unit.value_width
        exponent = 1 - (unit.value_width + 2) - rows.place - octave
        power = (exponent + _FP64_BIAS << _FP64_MANTISSA).view(torch.float64)
        parts.append((product << 2 | 3).double().mul_(power).masked_fill_(is_zero, 0.0))
    p = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
    return torch.where(rows.largest.isfinite(), p, math.nan)
