"""The aten operations that the router stands in front of, and how each one's arguments are read.

``OFFLOADED`` maps an operation to the function that reads its arguments into a call that a device
may be able to serve. ``WATCHED`` lists the operations that do a device's kind of work but are
never offloaded; they are counted with their reason.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .calls import (
    Attention,
    AttentionBackward,
    Call,
    LogSoftmax,
    LogSoftmaxBackward,
    Product,
    Softmax,
    SoftmaxBackward,
)

__all__ = ["OFFLOADED", "WATCHED", "Watched"]


def _mm(left: Tensor, right: Tensor, *, out: Tensor | None = None) -> Call:
    return Product(2, left, right, out=out)


def _bmm(left: Tensor, right: Tensor, *, out: Tensor | None = None) -> Call:
    return Product(3, left, right, out=out)


def _addmm(addend: Tensor, left: Tensor, right: Tensor, **options: Any) -> Call:
    return _added(2, addend, left, right, **options)


def _baddbmm(addend: Tensor, left: Tensor, right: Tensor, **options: Any) -> Call:
    return _added(3, addend, left, right, **options)


def _addmm_(addend: Tensor, left: Tensor, right: Tensor, **options: Any) -> Call:
    return _added(2, addend, left, right, out=addend, **options)


def _baddbmm_(addend: Tensor, left: Tensor, right: Tensor, **options: Any) -> Call:
    return _added(3, addend, left, right, out=addend, **options)


def _added(rank: int, addend: Tensor, left: Tensor, right: Tensor, *, beta: float = 1,
           alpha: float = 1, out: Tensor | None = None) -> Call:
    return Product(rank, left, right, addend, beta, alpha, out)


def _softmax(x: Tensor, dim: int, half_to_float: bool, *, out: Tensor | None = None) -> Call:
    return Softmax(x, dim, out)


def _softmax_backward(dp: Tensor, p: Tensor, dim: int, input_dtype: torch.dtype, *,
                      grad_input: Tensor | None = None) -> Call:
    return SoftmaxBackward(dp, p, dim, grad_input)


def _log_softmax(x: Tensor, dim: int, half_to_float: bool, *, out: Tensor | None = None) -> Call:
    return LogSoftmax(x, dim, out)


def _log_softmax_backward(g: Tensor, log_p: Tensor, dim: int, input_dtype: torch.dtype, *,
                          out: Tensor | None = None) -> Call:
    return LogSoftmaxBackward(g, log_p, dim, out)


def _attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, causal: bool = False, *,
               attn_mask: Tensor | None = None, scale: float | None = None) -> Call:
    return Attention(q, k, v, dropout, causal, attn_mask, scale)


def _attention_backward(g: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sums: Tensor,
                        dropout: float, causal: bool, *, attn_mask: Tensor | None = None,
                        scale: float | None = None) -> Call:
    return AttentionBackward(g, Attention(q, k, v, dropout, causal, attn_mask, scale))


OFFLOADED: dict[str, Callable[..., Call]] = {
    "mm": _mm,
    "mm.out": _mm,
    "bmm": _bmm,
    "bmm.out": _bmm,
    "addmm": _addmm,
    "addmm.out": _addmm,
    "addmm_": _addmm_,
    "baddbmm": _baddbmm,
    "baddbmm.out": _baddbmm,
    "baddbmm_": _baddbmm_,
    "_softmax": _softmax,
    "_softmax.out": _softmax,
    "_softmax_backward_data": _softmax_backward,
    "_softmax_backward_data.out": _softmax_backward,
    "_log_softmax": _log_softmax,
    "_log_softmax.out": _log_softmax,
    "_log_softmax_backward_data": _log_softmax_backward,
    "_log_softmax_backward_data.out": _log_softmax_backward,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
}


@dataclass(frozen=True)
class Watched:
    """An operation that stays in PyTorch.

    Members
    -------
    reason : str
    products : callable
        Gives, from the operation's arguments, how many products it takes; None if unknown.
    whole : bool
        PyTorch runs all of it. Otherwise the operations that it calls are met on their own.
    """

    reason: str
    products: Callable[..., int | None]
    whole: bool = True


def _none(*_: Any, **__: Any) -> int:
    return 0


def _unknown(*_: Any, **__: Any) -> None:
    return None


def _matrices(left: Tensor, right: Tensor, *_: Any, **__: Any) -> int:
    return left.numel() * right.shape[-1]


def _activated(_: Tensor, left: Tensor, right: Tensor, **__: Any) -> int:
    return _matrices(left, right)


def _vector(first: Tensor, *_: Any, **__: Any) -> int:
    return first.numel()


def _added_vector(_: Tensor, matrix: Tensor, *__: Any, **___: Any) -> int:
    return matrix.numel()


def _recurrent(x: Tensor, for_input: Tensor, for_state: Tensor, *_: Any) -> int:
    return math.prod(x.shape[:-1]) * (for_input.numel() + for_state.numel())


def _recurrent_backward(*arguments: Any) -> int:
    return 2 * _recurrent(*arguments)


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int],
                 padding: list[int], dilation: list[int], transposed: bool, *_: Any) -> int:
    taps = weight[0].numel()
    if transposed:
        return x.numel() * taps
    kernel = weight.shape[2:]
    steps, pads, reaches = (values * len(kernel) if len(values) == 1 else values
                            for values in (stride, padding, dilation))
    pixels = math.prod(
        (size + 2 * pad - reach * (taken - 1) - 1) // step + 1
        for size, taken, step, pad, reach in zip(x.shape[2:], kernel, steps, pads, reaches,
                                                 strict=True))
    return x.shape[0] * weight.shape[0] * pixels * taps


def _convolution_backward(gradient: Tensor, x: Tensor, weight: Tensor, _: Any, stride: list[int],
                          padding: list[int], dilation: list[int], transposed: bool,
                          output_padding: list[int], groups: int, mask: list[bool]) -> int:
    return sum(mask[:2]) * _convolution(x, weight, None, stride, padding, dilation, transposed)


def _onednn_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int],
                        stride: list[int], dilation: list[int], *_: Any) -> int:
    return _convolution(x, weight, bias, stride, padding, dilation, False)


_CONVOLUTION = "convolution has no unit in the device"
_FAST_PATH = ("fused inference kernel; call torch.backends.mha.set_fastpath_enabled(False) to have "
              "its products offloaded")
_VECTOR = "product with a vector"
_RECURRENT = "fused recurrent kernel"
_QUANTISED = "product of quantised tensors"

WATCHED: dict[str, Watched] = {
    "_masked_softmax": Watched("softmax with a mask of its own", _none),
    "convolution": Watched(_CONVOLUTION, _convolution),
    "convolution_backward": Watched(_CONVOLUTION, _convolution_backward),
    "mkldnn_convolution": Watched(_CONVOLUTION, _onednn_convolution),
    "_native_multi_head_attention": Watched(_FAST_PATH, _unknown, whole=False),
    "_transformer_encoder_layer_fwd": Watched(_FAST_PATH, _unknown, whole=False),
    "_addmm_activation": Watched("product fused with an activation", _activated),
    "_addmm_activation.out": Watched("product fused with an activation", _activated),
    "mkldnn_rnn_layer": Watched(_RECURRENT, _recurrent),
    "mkldnn_rnn_layer_backward": Watched(_RECURRENT, _recurrent_backward),
    "_int_mm": Watched(_QUANTISED, _matrices),
    "_int_mm.out": Watched(_QUANTISED, _matrices),
    "_scaled_mm": Watched(_QUANTISED, _matrices),
    "_weight_int8pack_mm": Watched(_QUANTISED, _unknown),
    "mv": Watched(_VECTOR, _vector),
    "mv.out": Watched(_VECTOR, _vector),
    "addmv": Watched(_VECTOR, _added_vector),
    "addmv.out": Watched(_VECTOR, _added_vector),
    "addmv_": Watched(_VECTOR, _added_vector),
    "dot": Watched(_VECTOR, _vector),
    "dot.out": Watched(_VECTOR, _vector),
    "vdot": Watched(_VECTOR, _vector),
    "vdot.out": Watched(_VECTOR, _vector),
}
