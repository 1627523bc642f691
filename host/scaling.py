"""Powers of two that bring a tensor just under the largest number of a format."""

import math

import torch
from torch import Tensor

from ..hdl.formats import FP32, lookup
from .numerics import max_finite

__all__ = ["scale_exponent", "scaled_operand"]


def scale_exponent(x: Tensor, name: str) -> int:
    """The largest s for which 2^s times the largest finite magnitude of x does not overflow.

    0 for a tensor of zeros.
    """
    if not x.numel():
        return 0
    low, high = (float(v) for v in torch.aminmax(x.detach()))
    largest = max(-low, high)
    if not math.isfinite(largest):
        finite = x[torch.isfinite(x)]
        largest = float(finite.abs().amax()) if finite.numel() else 0.0
    if largest == 0:
        return 0
    mantissa, exponent = math.frexp(largest)
    top_mantissa, top_exponent = math.frexp(max_finite(lookup(name)))
    return top_exponent - exponent - (mantissa > top_mantissa)


def scaled_operand(x: Tensor, name: str, scaled: bool) -> tuple[Tensor, int]:
    """An operand times a power of two if it is to be ``scaled``, and that power's exponent."""
    x = x.detach()
    shift = scale_exponent(x, name) if scaled else 0
    if not shift:
        return x, 0
    x = x.float() * 2.0 ** min(shift, FP32.max_exponent)
    if shift > FP32.max_exponent:  # of a tensor of fp32 subnormals: not one fp32 factor
        x.mul_(2.0 ** (shift - FP32.max_exponent))
    return x, shift
