"""Attention as one operation, forward and backward: a composition of the contract's operations.

The rules are in docs/attention.md. Nothing is computed here but which operation takes what.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..gen.errors import UsageError
from .numerics import checked_tensor, from_bits, to_bits
from .scaling import scaled_operand

__all__ = ["Setup", "Verbs", "attend", "attend_backward", "scale_and_mask"]


class Verbs(NamedTuple):
    """The operations that attention is made of.

    Members
    -------
    gemm, softmax_backward : callable
        As those of a device.
    softmax : callable
        Of (x, format): the probabilities, and of each row its maximum plus ln S.
    scale_and_mask : callable
        As `scale_and_mask`.
    """

    gemm: Callable[..., Tensor]
    softmax: Callable[[Tensor, str], tuple[Tensor, Tensor]]
    softmax_backward: Callable[[Tensor, Tensor], Tensor]
    scale_and_mask: Callable[[Tensor, float, Tensor | None], Tensor]


class Setup(NamedTuple):
    """What an attention is told beside its operands; see `device.Device.attention`."""

    mask: Tensor | None
    causal: bool
    scale: float | None
    formats: tuple[str, str]
    scaled: bool
    result: str


class _Scaled(NamedTuple):
    """An operand by groups [batch * groups, rows, width], times 2^shift."""

    values: Tensor
    shift: int


class _Scores(NamedTuple):
    """What forward and backward begin with."""

    q: _Scaled
    k: _Scaled
    v: _Scaled
    factor: float
    p: Tensor
    log_sums: Tensor


def attend(verbs: Verbs, q: Tensor, k: Tensor, v: Tensor, setup: Setup) -> tuple[Tensor, Tensor]:
    """The output [B, H, T, E] and the logarithms of the rows' sums, float32 [B, H, T]."""
    found = _scores(verbs, q, k, v, setup)
    out = verbs.gemm(_by_group(found.p, k), found.v.values, setup.formats[::-1], setup.result,
                     exponent=-found.v.shift)
    return out.view(*q.shape[:3], v.shape[3]), found.log_sums


def attend_backward(verbs: Verbs, g: Tensor, q: Tensor, k: Tensor, v: Tensor, setup: Setup,
                    gradients: tuple[str, str], scaled_gradients: tuple[bool, bool]
                    ) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, given that of the output [B, H, T, E].

    ``gradients``: the formats in which dO and dS enter the products that give dP and dQ, and those
    that give dV and dK.
    """
    g = checked_tensor(g, "g")
    wanted = [*q.shape[:3], v.shape[3]]
    if list(g.shape) != wanted:
        raise UsageError("X201", f"g is {list(g.shape)}; the gradient of this attention's output "
                                 f"is {wanted}")
    found, data, result = _scores(verbs, q, k, v, setup), setup.formats[0], setup.result

    def scaled(x: Tensor) -> list[_Scaled]:
        return [_Scaled(*scaled_operand(_by_group(x, k), name, on))
                for name, on in zip(gradients, scaled_gradients, strict=True)]

    left, right = scaled(g)
    dv = verbs.gemm(_by_group(found.p, k).mT, right.values, (setup.formats[1], gradients[1]),
                    result, exponent=-right.shift)
    dp = verbs.gemm(left.values, found.v.values.mT, (gradients[0], data), "fp32",
                    exponent=-left.shift - found.v.shift)
    ds = verbs.softmax_backward(found.p, dp.view(found.p.shape))
    left, right = scaled(verbs.scale_and_mask(ds, found.factor, None))
    dq = verbs.gemm(left.values, found.k.values, (gradients[0], data), result,
                    exponent=-left.shift - found.k.shift)
    dk = verbs.gemm(right.values.mT, found.q.values, (gradients[1], data), result,
                    exponent=-right.shift - found.q.shift)
    return dq.view(q.shape), dk.view(k.shape), dv.view(v.shape)


def scale_and_mask(x: Tensor, factor: float, mask: Tensor | None) -> Tensor:
    """fp32(fp32(x * factor) + mask), or -Inf where a boolean mask is False."""
    x = x * factor
    if mask is None:
        return x
    if mask.dtype == torch.bool:
        return x.masked_fill_(~mask, -math.inf)
    return x.add_(mask)


def _scores(verbs: Verbs, q: Tensor, k: Tensor, v: Tensor, setup: Setup) -> _Scores:
    """The operands by groups, and the probabilities: the same bits in both directions."""
    q, k, v = (checked_tensor(x, name) for x, name in ((q, "q"), (k, "k"), (v, "v")))
    _check_shapes(q, k, v)
    data = setup.formats[0]
    left, right, values = (_Scaled(*scaled_operand(_by_group(x, k), data, setup.scaled))
                           for x in (q, k, v))
    factor = 1 / math.sqrt(q.shape[3]) if setup.scale is None else setup.scale
    factor = float(torch.tensor(factor, dtype=torch.float32))
    scores = verbs.gemm(left.values, right.values.mT, (data, data), "fp32",
                        exponent=-left.shift - right.shift)
    shape = (*q.shape[:3], k.shape[2])
    x = verbs.scale_and_mask(scores.view(shape), factor, _mask(setup, shape))
    p, log_sums = verbs.softmax(x, setup.formats[1])
    masked = (x == -math.inf).all(-1)
    if masked.any():  # as PyTorch has it: such a row takes nothing, and gives no gradient
        p = from_bits(to_bits(p).masked_fill_(masked.unsqueeze(-1), 0), setup.formats[1])
        log_sums = log_sums.masked_fill(masked, 0.0)
    return _Scores(left, right, values, factor, p, log_sums)


def _by_group(x: Tensor, k: Tensor) -> Tensor:
    """[B, H, T, width] with the heads that share keys one below the other: [B G, H/G T, width]."""
    rows = x.shape[1] // k.shape[1] * x.shape[2]
    return x.reshape(k.shape[0] * k.shape[1], rows, x.shape[3])


def _mask(setup: Setup, shape: tuple[int, ...]) -> Tensor | None:
    """The mask, with False or -Inf where causality forbids, or None where nothing is masked."""
    mask = setup.mask
    if mask is not None:
        is_bool = isinstance(mask, Tensor) and mask.dtype == torch.bool
        mask = mask if is_bool else checked_tensor(mask, "mask").float()
        legal = mask.dim() <= len(shape) and all(
            have in (1, want) for have, want in zip(reversed(mask.shape), reversed(shape),
                                                    strict=False))
        if not legal:
            raise UsageError("X201", f"mask is {list(mask.shape)}; it is added to scores of "
                                     f"{list(shape)}")
    if not setup.causal:
        return mask
    allowed = torch.ones(shape[2:], dtype=torch.bool).tril_()
    if mask is None:
        return allowed
    if mask.dtype == torch.bool:
        return mask & allowed
    return torch.where(allowed, mask, -math.inf)


def _check_shapes(q: Tensor, k: Tensor, v: Tensor) -> None:
    """UsageError unless q [B, H, T, D], k [B, G, S, D] and v [B, G, S, E] fit together."""
    shapes = [list(x.shape) for x in (q, k, v)]
    legal = all(len(shape) == 4 for shape in shapes)
    if not legal or q.shape[0] != k.shape[0] or k.shape[:3] != v.shape[:3] \
            or q.shape[3] != k.shape[3] or not k.shape[1] or q.shape[1] % k.shape[1]:
        raise UsageError("X201", f"q is {shapes[0]}, k is {shapes[1]} and v is {shapes[2]}; "
                                 "attention takes q [B, H, T, D], k [B, G, S, D] and "
                                 "v [B, G, S, E], G a divisor of H")
