"""Calls that a device may be able to serve: their operands, sizes, and what does not fit."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["DTYPES", "Attention", "AttentionBackward", "Call", "LogSoftmax", "LogSoftmaxBackward",
           "Product", "Softmax", "SoftmaxBackward", "format_of_sums"]

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


class LogSoftmax(Softmax):
    """log(softmax(x)) over one dimension."""


class LogSoftmaxBackward(NamedTuple):
    """``g - p * sum(g)`` over one dimension, p the probabilities whose logarithms are given."""

    g: Tensor
    log_p: Tensor
    dim: int
    out: Tensor | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """(rows, length)."""
        return _rows(self.log_p, self.dim)

    @property
    def products(self) -> int:
        """Scalar products to be taken: none are counted here."""
        return 0

    def misfit(self) -> str | None:
        """Why no device serves this call, or None."""
        if self.log_p.shape != self.g.shape:
            return "shapes that do not fit"
        return _dtype_misfit(self.log_p, self.g, self.out) or _row_misfit(self.log_p, self.dim)


class Attention(NamedTuple):
    """``softmax(q @ k^T * scale + mask) @ v``, and the logarithms of the rows' sums.

    Members
    -------
    q, k, v : Tensor
        [B, H, T, D], [B, G, S, D] twice, G a divisor of H. Any strides.
    dropout : float
    causal : bool
    mask : Tensor or None
        Broadcast to [B, H, T, S] and added. PyTorch makes one of -Inf out of a boolean mask.
    scale : float or None
        1 / sqrt(D) if None.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    dropout: float
    causal: bool
    mask: Tensor | None
    scale: float | None

    @property
    def sizes(self) -> tuple[int, ...]:
        """(batch, heads, T, S, D)."""
        return (*self.q.shape[:3], *self.k.shape[2:])

    @property
    def products(self) -> int:
        """Scalar products of both matrix products, causal or not."""
        return _scores(self.q, self.k) + _scores(self.q, self.v)

    @property
    def longest(self) -> int:
        """Of the sums of its matrix products."""
        return max(self.k.shape[2:])

    def misfit(self) -> str | None:
        """Why no device serves this call, or None."""
        q, k, v, mask = self.q, self.k, self.v, self.mask
        if reason := _dtype_misfit(q, k, v):
            return reason
        if mask is not None and mask.dtype not in (q.dtype, torch.float32):
            return f"mask of dtype {str(mask.dtype).removeprefix('torch.')}"
        if self.dropout:
            return "attention with dropout"
        if any(x.dim() != 4 for x in (q, k, v)) or k.shape != v.shape \
                or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] \
                or not k.shape[1] or q.shape[1] % k.shape[1] \
                or (mask is not None and (mask.dim() not in (2, 4) or not _expands(
                    mask.shape, (*q.shape[:3], k.shape[2])))):
            return "shapes that do not fit"
        return None if self.products else "empty operand"


class AttentionBackward(NamedTuple):
    """The gradients of an attention's q, k and v; g is that of its output."""

    g: Tensor
    forward: Attention

    @property
    def sizes(self) -> tuple[int, ...]:
        """(batch, heads, T, S, D)."""
        return self.forward.sizes

    @property
    def products(self) -> int:
        """Scalar products of its five matrix products; the first gives the scores anew."""
        of = self.forward
        return 3 * _scores(of.q, of.k) + 2 * _scores(of.q, of.v)

    @property
    def longest(self) -> int:
        """Of the sums of its matrix products: gradients are summed over the heads of a group."""
        rows = self.forward.q.shape[1] // self.forward.k.shape[1] * self.forward.q.shape[2]
        return max(self.forward.longest, rows)

    def misfit(self) -> str | None:
        """Why no device serves this call, or None."""
        if reason := self.forward.misfit():
            return reason
        if self.g.dtype != self.forward.q.dtype:
            return "operands of different dtypes"
        return None if self.g.shape == self.forward.q.shape else "shapes that do not fit"


Call = (Product | Softmax | SoftmaxBackward | LogSoftmax | LogSoftmaxBackward | Attention
        | AttentionBackward)


def format_of_sums(call: Call) -> str | None:
    """The format of what a backward pass sums over rows by itself, or None if it does not."""
    if isinstance(call, SoftmaxBackward):
        return DTYPES[call.p.dtype]
    return "fp32" if isinstance(call, LogSoftmaxBackward | AttentionBackward) else None


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


def _scores(left: Tensor, right: Tensor) -> int:
    """Scalar products of each row of ``left`` with each of ``right``, head by head."""
    return left.numel() * right.shape[-2]


def _expands(shape: torch.Size, target: tuple[int, ...]) -> bool:
    """Whether a tensor of ``shape`` broadcasts to exactly ``target``."""
    return len(shape) <= len(target) and all(
        have in (1, want) for have, want in zip(reversed(shape), reversed(target), strict=False))
