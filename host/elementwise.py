"""The elementwise unit by its contract (docs/elementwise.md), vectorised: the golden model."""

import math

import torch
from torch import Tensor

from ..gen.config import Configuration
from ..gen.errors import UsageError
from ..hdl.elementwise import ELEMENTWISE_LATENCY
from .numerics import checked_tensor, decode

__all__ = ["elementwise_cycles", "exact_elementwise"]


def exact_elementwise(x: Tensor, s: Tensor, q: Tensor, t: Tensor, *,
                      negate: bool = False) -> Tensor:
    """Three fp32 operations on each element: u = x - s, v = u * q, w = v - t.

    Parameters
    ----------
    x : Tensor
        Elements, any shape, any floating-point dtype, on the CPU. float64 is rounded to float32
        first; the others are taken exactly. Any strides; never written to.
    s, q, t : Tensor
        The same, of shapes that broadcast to that of ``x``; numbers of a row are [..., 1].
    negate : bool
        w = t - v.

    Returns
    -------
    Tensor
        float32 in the shape of ``x``, contiguous. NaN is canonical.

    Numerics
    --------
    Each operation is rounded once to nearest even, subnormals honoured (IEEE 754).

    Raises
    ------
    UsageError
        Not a floating-point CPU tensor (X202), a shape that does not broadcast (X201), or a thread
        that flushes subnormals (X216).
    """
    x = _fp32(x, "x")
    numbers = []
    for name, value in (("s", s), ("q", q), ("t", t)):
        value = _fp32(value, name)
        try:
            numbers.append(value.expand(x.shape))
        except RuntimeError:
            raise UsageError("X201", f"{name} is {list(value.shape)} and x is {list(x.shape)}; "
                             "the shape of s, q and t broadcasts to that of x") from None
    v = (x - numbers[0]).mul_(numbers[1])
    w = numbers[2] - v if negate else v.sub_(numbers[2])
    return w.masked_fill_(w.isnan(), math.nan).contiguous()


def elementwise_cycles(config: Configuration, rows: int, length: int) -> int:
    """Cycles from the first element in to the last result out, both included, without stalls.

    rows * ceil(length / lanes) + ELEMENTWISE_LATENCY, since every beat comes out so much later than
    it went in. Nothing is sent, and no cycle taken, if there are no elements.
    """
    beats = rows * -(-length // config.elementwise.lanes)
    return beats + ELEMENTWISE_LATENCY if beats else 0


def _fp32(x: Tensor, name: str) -> Tensor:
    """As float32: float64 rounded, everything else exact."""
    x = checked_tensor(x, name)
    return x.to(torch.float32) if x.dtype == torch.float64 else decode(x)
