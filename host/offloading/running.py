"""How a device is asked for a call, with the formats that the policy has chosen."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..numerics import quantize
from ..scaling import scaled_operand
from .calls import (
    DTYPES,
    Attention,
    AttentionBackward,
    Call,
    LogSoftmax,
    LogSoftmaxBackward,
    Product,
    Softmax,
    SoftmaxBackward,
)
from .policy import Choice

if TYPE_CHECKING:
    from ..device import Device

__all__ = ["OPS", "Result", "run"]

Result = Tensor | tuple[Tensor, ...]

OPS = {Product: "gemm", Softmax: "softmax", SoftmaxBackward: "softmax_backward",
       LogSoftmax: "log_softmax", LogSoftmaxBackward: "log_softmax_backward",
       Attention: "attention", AttentionBackward: "attention_backward"}


def run(device: "Device", call: Call, *choices: Choice) -> Result:
    """The result as PyTorch's own kernel would return it, strides included.

    An attention's backward pass has two choices: that of the forward pass, and its own.
    """
    return _RUN[type(call)](device, call, *choices)


def _run_product(device: "Device", call: Product, choice: Choice) -> Tensor:
    """``beta * addend + alpha * (left @ right)``: one rounding, then fp32 arithmetic (rule N5)."""
    left, left_shift = scaled_operand(call.left, choice.formats[0], choice.scaled[0])
    right, right_shift = scaled_operand(call.right, choice.formats[1], choice.scaled[1])
    plain = call.addend is None and call.alpha == 1
    result = device.gemm(left, right, choice.formats, DTYPES[call.left.dtype] if plain else "fp32",
                         exponent=-left_shift - right_shift)
    if call.alpha != 1:
        result.mul_(call.alpha)
    if call.addend is not None and call.beta != 0:
        addend = call.addend.detach().float()
        result.add_(addend if call.beta == 1 else addend * call.beta)
    return _deliver(result, call.left.dtype, call.out)


def _run_softmax(device: "Device", call: Softmax, choice: Choice) -> Tensor:
    x = call.x.detach().movedim(call.dim, -1)
    result = device.softmax(x, choice.formats[0]).movedim(-1, call.dim)
    return _deliver(result, call.x.dtype, call.out)


def _run_softmax_backward(device: "Device", call: SoftmaxBackward, choice: Choice) -> Tensor:
    p, dp = (t.detach().movedim(call.dim, -1) for t in (call.p, call.dp))
    result = device.softmax_backward(p, dp).movedim(-1, call.dim)
    return _deliver(result, call.p.dtype, call.out)


def _run_log_softmax(device: "Device", call: LogSoftmax, choice: Choice) -> Tensor:
    x = call.x.detach().movedim(call.dim, -1)
    result = device.log_softmax(x, choice.formats[0]).movedim(-1, call.dim)
    return _deliver(result, call.x.dtype, call.out)


def _run_log_softmax_backward(device: "Device", call: LogSoftmaxBackward, choice: Choice
                              ) -> Tensor:
    log_p, g = (t.detach().movedim(call.dim, -1) for t in (call.log_p, call.g))
    result = device.log_softmax_backward(log_p, g).movedim(-1, call.dim)
    return _deliver(result, call.log_p.dtype, call.out)


def _run_attention(device: "Device", call: Attention, choice: Choice) -> tuple[Tensor, Tensor]:
    """The output strided as q, the logarithms [B, H, T] stored as [B, T, H]."""
    q = call.q
    out, sums = device.attention(q, call.k, call.v, **_options(call, choice))
    log_sums = torch.empty_permuted(sums.shape, (0, 2, 1), dtype=torch.float32)
    return torch.empty_like(q).copy_(out), log_sums.copy_(sums)


def _run_attention_backward(device: "Device", call: AttentionBackward, forward: Choice,
                            choice: Choice) -> tuple[Tensor, ...]:
    """The gradients [B, H, T, D], stored as [B, T, H, D]."""
    of = call.forward
    found = device.attention_backward(call.g, of.q, of.k, of.v, gradients=choice.formats,
                                      scaled_gradients=choice.scaled, **_options(of, forward))
    return tuple(torch.empty_permuted(x.shape, (0, 2, 1, 3), dtype=x.dtype).copy_(x)
                 for x in found)


def _options(call: Attention, choice: Choice) -> dict[str, Any]:
    return {"mask": call.mask, "causal": call.causal, "scale": call.scale,
            "formats": choice.formats, "scaled": choice.scaled[0],
            "result": DTYPES[call.q.dtype]}


def _deliver(result: Tensor, dtype: torch.dtype, out: Tensor | None) -> Tensor:
    """The result as PyTorch's kernel returns it: of its dtype, contiguous, in ``out`` if given."""
    if result.dtype != dtype:
        name = DTYPES[dtype]
        result = result.to(dtype) if name == "fp32" else quantize(result, name, "overflow")
    if out is None:
        return result.contiguous()
    return out.resize_(result.shape).copy_(result)


_RUN: dict[type, Callable[..., Any]] = {
    Product: _run_product, Softmax: _run_softmax, SoftmaxBackward: _run_softmax_backward,
    LogSoftmax: _run_log_softmax, LogSoftmaxBackward: _run_log_softmax_backward,
    Attention: _run_attention, AttentionBackward: _run_attention_backward}
