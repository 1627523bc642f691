"""The aten operations that the router stands in front of, and how each one's arguments are read.

``OFFLOADED`` maps an operation to the function that reads its arguments into a call that a device
may be able to serve. ``WATCHED`` lists the operations that do a device's kind of work but are
never offloaded; they are counted with their reason.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["DTYPES", "OFFLOADED", "WATCHED", "Call", "Product", "Softmax", "SoftmaxBackward",
           "Watched"]

# dtypes whose tensors may be offloaded, and the format that a result then has
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class Product(NamedTuple):
    """``beta * addend + alpha * (left @ right)``, [M, K] times [K, N] or with a batch in front.

    Members
    -------
    rank : int
        2, or 3 with a batch.
    left, right : Tensor
        Any strides.
    addend : Tensor or None
        Broadcast to the result; added in fp32 after the product is rounded (rule N5).
    beta, alpha : float
    out : Tensor or None
        Where the caller wants the result.
    """

    rank: int
    left: Tensor
    right: Tensor
    addend: Tensor | None = None
    beta: float = 1
    alpha: float = 1
    out: Tensor | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """(M, K, N), or (batch, M, K, N)."""
        return (*self.left.shape, self.right.shape[-1])

    @property
    def products(self) -> int:
        """Scalar products to be taken, of whatever arguments these are."""
        return self.left.numel() * math.prod(self.right.shape[-1:])

    def misfit(self) -> str | None:
        """Why no device serves this call, or None.

        Malformed arguments are PyTorch's to refuse: it then raises the message the user knows.
        """
        left, right, addend = self.left, self.right, self.addend
        if reason := _dtype_misfit(left, right, addend, self.out):
            return reason
        if left.dim() != self.rank or right.dim() != self.rank \
                or left.shape[-1] != right.shape[-2] or left.shape[:-2] != right.shape[:-2] \
                or (addend is not None and not _expands(addend.shape, self._result_shape)) \
                or (addend is not None and addend is self.out
                    and addend.shape != self._result_shape):  # in place: nothing is broadcast
            return "shapes that do not fit"
        return None if self.products else "empty operand"

    @property
    def _result_shape(self) -> tuple[int, ...]:
        return (*self.left.shape[:-1], self.right.shape[-1])


class Softmax(NamedTuple):
    """softmax(x) over one dimension."""

    x: Tensor
    dim: int
    out: Tensor | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """(rows, length)."""
        return _rows(self.x, self.dim)

    @property
    def products(self) -> int:
        """Scalar products to be taken: none are counted here."""
        return 0

    def misfit(self) -> str | None:
        """Why no device serves this call, or None."""
        return _dtype_misfit(self.x, self.out) or _row_misfit(self.x, self.dim)


class SoftmaxBackward(NamedTuple):
    """``p * (dp - sum(dp * p))`` over one dimension, p the probabilities."""

    dp: Tensor
    p: Tensor
    dim: int
    out: Tensor | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """(rows, length)."""
        return _rows(self.p, self.dim)

    @property
    def products(self) -> int:
        """Scalar products to be taken: none are counted here."""
        return 0

    def misfit(self) -> str | None:
        """Why no device serves this call, or None."""
        if self.p.shape != self.dp.shape:
            return "shapes that do not fit"
        return _dtype_misfit(self.p, self.dp, self.out) or _row_misfit(self.p, self.dim)


Call = Product | Softmax | SoftmaxBackward


def _dtype_misfit(first: Tensor, *others: Tensor | None) -> str | None:
    if first.dtype not in DTYPES:
        return f"dtype {str(first.dtype).removeprefix('torch.')}"
    if any(t is not None and t.dtype != first.dtype for t in others):
        return "operands of different dtypes"
    return None


def _row_misfit(x: Tensor, dim: int) -> str | None:
    if not -x.dim() <= dim < x.dim():
        return "softmax of a single number"
    return None if x.numel() else "empty operand"


def _rows(x: Tensor, dim: int) -> tuple[int, int]:
    length = x.shape[dim]
    return x.numel() // length, length


def _expands(shape: torch.Size, target: tuple[int, ...]) -> bool:
    """Whether a tensor of ``shape`` broadcasts to exactly ``target``."""
    return len(shape) <= len(target) and all(
        have in (1, want) for have, want in zip(reversed(shape), reversed(target), strict=False))


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


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return query.numel() * key.shape[-2] + math.prod(query.shape[:-1]) * math.prod(
        value.shape[-2:])


def _attention_backward(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: Any,
                        **___: Any) -> int:
    return 2 * _attention(query, key, value) + query.numel() * key.shape[-2]


_LOG_SOFTMAX = "log-softmax has no unit in the device"
_CONVOLUTION = "convolution has no unit in the device"
_ATTENTION = ("fused attention kernel; use torch.nn.attention.sdpa_kernel(SDPBackend.MATH) to have "
              "its products offloaded")
_FAST_PATH = ("fused inference kernel; call torch.backends.mha.set_fastpath_enabled(False) to have "
              "its products offloaded")
_VECTOR = "product with a vector"
_RECURRENT = "fused recurrent kernel"
_QUANTISED = "product of quantised tensors"

WATCHED: dict[str, Watched] = {
    "_log_softmax": Watched(_LOG_SOFTMAX, _none),
    "_log_softmax.out": Watched(_LOG_SOFTMAX, _none),
    "_log_softmax_backward_data": Watched(_LOG_SOFTMAX, _none),
    "_masked_softmax": Watched("softmax with a mask of its own", _none),
    "convolution": Watched(_CONVOLUTION, _convolution),
    "convolution_backward": Watched(_CONVOLUTION, _convolution_backward),
    "mkldnn_convolution": Watched(_CONVOLUTION, _onednn_convolution),
    "_scaled_dot_product_flash_attention_for_cpu": Watched(_ATTENTION, _attention),
    "_scaled_dot_product_flash_attention_for_cpu_backward":
        Watched(_ATTENTION, _attention_backward),
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
