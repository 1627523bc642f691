"""Attention as one operation, forward and backward: a composition of the contract's operations.

The rules are in docs/attention.md. Nothing is computed here but which operation takes what.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..gen.errors import UsageError
from .numerics import checked_tensor, format_of, from_bits, to_bits
from .scaling import scaled_operand

__all__ = ["Operands", "Scaled", "Setup", "Verbs", "attend", "attend_backward", "scale_and_mask",
           "zero_where_masked"]

_HELD = 1 << 24     # scores worked on at once; some 30 bytes each, 60 in backward


class Verbs(NamedTuple):
    """The operations that attention is made of.

    Members
    -------
    gemm, softmax_backward : callable
        As those of a device.
    softmax : callable
        Of (x, format): the probabilities, and of each row its maximum plus ln S. The rows of each
        x[i] are an operation of the unit's.
    scale_and_mask : callable
        As `scale_and_mask`.
    at_once : callable, optional
        Of (operands, slice, setup): output and logarithms of a part of an attention, from one that
        does all of it; or None, if it cannot. The bits are the same.
    """

    gemm: Callable[..., Tensor]
    softmax: Callable[[Tensor, str], tuple[Tensor, Tensor]]
    softmax_backward: Callable[[Tensor, Tensor], Tensor]
    scale_and_mask: Callable[..., Tensor]
    at_once: Callable[..., tuple[Tensor, Tensor] | None] | None = None


class Setup(NamedTuple):
    """What an attention is told beside its operands; see `device.Device.attention`."""

    mask: Tensor | None
    causal: bool
    scale: float | None
    formats: tuple[str, str]
    scaled: bool
    result: str


class Scaled(NamedTuple):
    """An operand by groups [batch * groups, rows, width], times 2^shift."""

    values: Tensor
    shift: int


class Operands(NamedTuple):
    """What forward and backward begin with.

    ``mask`` is added to the scores, ``allowed`` tells which keys may be seen; either may be None,
    and is broadcast to [B, H, T, S]. ``shape`` is (B, G, H / G, T, S).
    """

    q: Scaled
    k: Scaled
    v: Scaled
    factor: float
    mask: Tensor | None
    allowed: Tensor | None
    shape: tuple[int, ...]

    def parts(self) -> Iterator[slice]:
        """Slices of batch * groups, of about ``_HELD`` scores each; at least one."""
        batch, groups, *scores = self.shape
        step = max(1, _HELD // max(1, math.prod(scores)))
        return (slice(i, i + step) for i in range(0, max(1, batch * groups), step))

    def cut(self, mask: Tensor | None, part: slice) -> Tensor | None:
        """What of a mask belongs to such a slice, to be broadcast to its scores."""
        if mask is None or mask.dim() <= 2:
            return mask
        batch, groups, heads, *scores = self.shape
        index = torch.arange(batch * groups)[part]
        mask = mask.expand(batch, groups * heads, *scores).unflatten(1, (groups, heads))
        return mask[index // groups, index % groups]


def attend(verbs: Verbs, q: Tensor, k: Tensor, v: Tensor, setup: Setup) -> tuple[Tensor, Tensor]:
    """The output [B, H, T, E] and the logarithms of the rows' sums, float32 [B, H, T]."""
    of, outs, sums = _operands(q, k, v, setup), [], []
    for part in of.parts():
        done = verbs.at_once(of, part, setup) if verbs.at_once else None
        if done is None:
            p, log_sums = _probabilities(verbs, of, part, setup)
            done = verbs.gemm(p.flatten(1, 2), of.v.values[part], setup.formats[::-1],
                              setup.result, exponent=-of.v.shift), log_sums
        outs.append(done[0])
        sums.append(done[1])
    return (torch.cat(outs).view(*q.shape[:3], v.shape[3]), torch.cat(sums).view(q.shape[:3]))


def attend_backward(verbs: Verbs, g: Tensor, q: Tensor, k: Tensor, v: Tensor, setup: Setup,
                    gradients: tuple[str, str], scaled_gradients: tuple[bool, bool]
                    ) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, given that of the output [B, H, T, E].

    ``gradients``: the formats in which dO and dS enter the products that give dP and dQ, and those
    that give dV and dK.
    """
    of, g = _operands(q, k, v, setup), checked_tensor(g, "g")
    wanted = [*q.shape[:3], v.shape[3]]
    if list(g.shape) != wanted:
        raise UsageError("X201", f"g is {list(g.shape)}; the gradient of this attention's output "
                                 f"is {wanted}")
    data, result = setup.formats[0], setup.result

    def scaled(x: Tensor) -> list[Scaled]:
        return [Scaled(*scaled_operand(x, name, on))
                for name, on in zip(gradients, scaled_gradients, strict=True)]

    left, right = scaled(_by_group(g, k))
    dvs, scores = [], []
    for part in of.parts():
        p, _ = _probabilities(verbs, of, part, setup)
        dvs.append(verbs.gemm(p.flatten(1, 2).mT, right.values[part],
                              (setup.formats[1], gradients[1]), result, exponent=-right.shift))
        dp = verbs.gemm(left.values[part], of.v.values[part].mT, (gradients[0], data), "fp32",
                        exponent=-left.shift - of.v.shift)
        ds = verbs.softmax_backward(p, dp.view(p.shape))
        scores.append(verbs.scale_and_mask(ds, of.factor).flatten(1, 2))
    left, right = scaled(torch.cat(scores))  # by the largest of them all
    dqs, dks = [], []
    for part in of.parts():
        dqs.append(verbs.gemm(left.values[part], of.k.values[part], (gradients[0], data), result,
                              exponent=-left.shift - of.k.shift))
        dks.append(verbs.gemm(right.values[part].mT, of.q.values[part], (gradients[1], data),
                              result, exponent=-right.shift - of.q.shift))
    return (torch.cat(dqs).view(q.shape), torch.cat(dks).view(k.shape),
            torch.cat(dvs).view(v.shape))


def scale_and_mask(x: Tensor, factor: float, mask: Tensor | None = None,
                   allowed: Tensor | None = None) -> Tensor:
    """fp32(fp32(x * factor) + mask), or -Inf where it is not ``allowed``."""
    x = x * factor
    if mask is not None:
        x += mask
    return x if allowed is None else x.masked_fill_(~allowed, -math.inf)


def _operands(q: Tensor, k: Tensor, v: Tensor, setup: Setup) -> Operands:
    q, k, v = (checked_tensor(x, name) for x, name in ((q, "q"), (k, "k"), (v, "v")))
    _check_shapes(q, k, v)
    left, right, values = (
        Scaled(*scaled_operand(_by_group(x, k), setup.formats[0], setup.scaled))
        for x in (q, k, v))
    factor = 1 / math.sqrt(q.shape[3]) if setup.scale is None else setup.scale
    factor = float(torch.tensor(factor, dtype=torch.float32))
    (batch, heads, rows), (groups, keys) = q.shape[:3], k.shape[1:3]
    mask, allowed = _masks(setup, (batch, heads, rows, keys))
    return Operands(left, right, values, factor, mask, allowed,
                     (batch, groups, heads // groups, rows, keys))


def _probabilities(verbs: Verbs, of: Operands, part: slice, setup: Setup
                   ) -> tuple[Tensor, Tensor]:
    """P [part, H / G, T, S] and the logarithms of its rows' sums: the same bits each time."""
    data, p_format = setup.formats
    scores = verbs.gemm(of.q.values[part], of.k.values[part].mT, (data, data), "fp32",
                        exponent=-of.q.shift - of.k.shift)
    x = verbs.scale_and_mask(scores.view(len(scores), *of.shape[2:]), of.factor,
                             of.cut(of.mask, part), of.cut(of.allowed, part))
    p, log_sums = verbs.softmax(x, p_format)
    return zero_where_masked(x, p, log_sums)


def zero_where_masked(x: Tensor, p: Tensor, log_sums: Tensor) -> tuple[Tensor, Tensor]:
    """P and logarithms, 0 in rows of which everything is masked.

    As PyTorch has it: such a row takes nothing, and gives no gradient.
    """
    masked = (x == -math.inf).all(-1)
    if masked.any():
        p = from_bits(to_bits(p).masked_fill_(masked.unsqueeze(-1), 0), format_of(p.dtype))
        log_sums = log_sums.masked_fill(masked, 0.0)
    return p, log_sums


def _by_group(x: Tensor, k: Tensor) -> Tensor:
    """[B, H, T, width] with the heads that share keys one below the other: [B G, H/G T, width]."""
    rows = x.shape[1] // k.shape[1] * x.shape[2]
    return x.reshape(k.shape[0] * k.shape[1], rows, x.shape[3])


def _masks(setup: Setup, shape: tuple[int, ...]) -> tuple[Tensor | None, Tensor | None]:
    """What is added to the scores, and which of them are allowed; None if nothing or all."""
    mask, allowed = setup.mask, None
    if mask is not None:
        is_bool = isinstance(mask, Tensor) and mask.dtype == torch.bool
        mask = mask if is_bool else checked_tensor(mask, "mask").float()
        legal = mask.dim() <= len(shape) and all(
            have in (1, want) for have, want in zip(reversed(mask.shape), reversed(shape),
                                                    strict=False))
        if not legal:
            raise UsageError("X201", f"mask is {list(mask.shape)}; it is added to scores of "
                                     f"{list(shape)}")
        if is_bool:
            mask, allowed = None, mask
    if setup.causal:
        causal = torch.ones(shape[2:], dtype=torch.bool).tril_()
        allowed = causal if allowed is None else allowed & causal
    return mask, allowed


def _check_shapes(q: Tensor, k: Tensor, v: Tensor) -> None:
    """UsageError unless q [B, H, T, D], k [B, G, S, D] and v [B, G, S, E] fit together."""
    shapes = [list(x.shape) for x in (q, k, v)]
    legal = all(len(shape) == 4 for shape in shapes)
    if not legal or q.shape[0] != k.shape[0] or k.shape[:3] != v.shape[:3] \
            or q.shape[3] != k.shape[3] or not k.shape[1] or q.shape[1] % k.shape[1]:
        raise UsageError("X201", f"q is {shapes[0]}, k is {shapes[1]} and v is {shapes[2]}; "
                                 "attention takes q [B, H, T, D], k [B, G, S, D] and "
                                 "v [B, G, S, E], G a divisor of H")
