"""Log-softmax by rule S7 of docs/softmax.md: the golden model, and its backward pass."""

import math
from functools import cache

import torch
from torch import Tensor

from ..gen.config import Configuration
from ..hdl.softmax_tables import LOG_GUARD_WIDTH, log_octaves, log_table
from .dots import row_dots
from .elementwise import exact_elementwise
from .numerics import checked_format, quantize, torch_dtype
from .softmax import Passed, exact_softmax, normalised, passed, rows_of, rows_of_both, table_values

__all__ = ["exact_log_softmax", "log_softmax_backward", "log_sums", "softmax_and_log_sums"]


def exact_log_softmax(x: Tensor, result: str = "fp32", *, config: Configuration) -> Tensor:
    """Log-softmax over the last dimension by the contract, converted to ``result``.

    log p_i = fp32(fp32(x_i - max x) - ln S), S = sum of e^(x_j - max x)

    Parameters
    ----------
    x, result, config
        As `softmax.exact_softmax` takes them.

    Returns
    -------
    Tensor
        Same shape, contiguous, in the dtype of ``result``. NaN is canonical; -Inf stays -Inf, but
        in e4m3, which has none, it becomes NaN.

    Numerics
    --------
    ln S errs by at most ``softmax_tables.log_error``; beside that there are its rounding to fp32
    and those of the two differences. Never above 0, and exactly 0 in a row of one element.

    Raises
    ------
    UsageError
        As `softmax.exact_softmax`.
    """
    fmt = checked_format(result)
    rows = rows_of(x, "x")
    out = torch.empty(rows.shape, dtype=torch_dtype(fmt))
    for part, found in passed(rows, config):
        logs = exact_elementwise(found.x, found.x.amax(-1, keepdim=True),
                                 torch.ones(1, 1, dtype=torch.float32), _log_sums(found))
        out[part] = quantize(torch.where(found.largest.isfinite(), logs, math.nan), fmt, "overflow")
    return out.view(x.shape)


def log_softmax_backward(log_p: Tensor, g: Tensor, *, config: Configuration) -> Tensor:
    """Gradient of the logits over the last dimension, dx = fp32(g - fp32(p * sum g)).

    The sum is exact and rounded once to fp32 (rules N1 to N4, the other factor being ones). p is
    the unit's softmax of ``log_p``, in fp32: softmax does not see that the whole row is shifted.

    Parameters
    ----------
    log_p, g : Tensor
        Log-probabilities and their gradient: same shape, at least one dimension, any
        floating-point dtypes, on the CPU; float64 is rounded to float32 first.
    config : Configuration

    Returns
    -------
    Tensor
        float32, same shape, contiguous.

    Raises
    ------
    UsageError
        Wrong kind (X202), shapes that differ (X201), a row longer than 16384 (X208) or than
        ``max_k`` (X204), or a configuration without fp32 (X205).
    """
    rows, gradients = rows_of_both("log_softmax_backward", log_p=log_p, g=g)
    p = exact_softmax(rows, "fp32", config=config)
    gradients = quantize(gradients, "fp32", "overflow")
    sums = row_dots(gradients, torch.ones_like(gradients), config=config)
    zero = torch.zeros(1, 1, dtype=torch.float32)
    return exact_elementwise(p, zero, sums.unsqueeze(-1), gradients, negate=True).view(g.shape)


def softmax_and_log_sums(x: Tensor, result: str, *, config: Configuration
                         ) -> tuple[Tensor, Tensor]:
    """`softmax.exact_softmax`, and of each row fp32(max x + ln S), NaN in undefined rows.

    The second is float32, of the shape of ``x`` without its last dimension.
    """
    fmt = checked_format(result)
    rows = rows_of(x, "x")
    out = torch.empty(rows.shape, dtype=torch_dtype(fmt))
    sums = torch.zeros(len(rows), dtype=torch.float32)
    for part, found in passed(rows, config):
        out[part] = quantize(normalised(found), fmt, "overflow")
        total = found.x.amax(-1, keepdim=True) + _log_sums(found)
        sums[part] = torch.where(found.largest.isfinite(), total, math.nan)[:, 0]
    return out.view(x.shape), sums.view(x.shape[:-1])


def log_sums(x: Tensor, *, config: Configuration) -> Tensor:
    """ln S of each row by rule S7, NaN in undefined rows: what log-softmax takes off x - max x.

    float32, of the shape of ``x`` without its last dimension.
    """
    rows = rows_of(x, "x")
    sums = torch.zeros(len(rows), dtype=torch.float32)
    for part, found in passed(rows, config):
        sums[part] = torch.where(found.largest.isfinite(), _log_sums(found), math.nan)[:, 0]
    return sums.view(x.shape[:-1])


@cache
def _octaves(value_width: int) -> Tensor:
    return torch.tensor(log_octaves(value_width))


def _log_sums(rows: Passed) -> Tensor:
    """ln S of rule S7, float32 [R, 1]; of undefined rows anything."""
    width = rows.unit.value_width
    table = log_table(rows.unit.reciprocal_entries, width)
    logs = table.value(0) - table_values(rows.fraction, table) << LOG_GUARD_WIDTH
    logs += _octaves(width)[rows.place.clamp(min=0)]
    return logs.double().mul_(2.0 ** -(width + LOG_GUARD_WIDTH)).float()
