"""Attention on a machine whose scratch memory holds the scores of a group of heads."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..gen.config import Configuration
from ..hdl.formats import Format, lookup
from .attention import Operands, Setup, scale_and_mask, zero_where_masked
from .checked import CheckedProduct, checked_product
from .counting import Amounts, count_elementwise, count_product, count_rows
from .gemm import product
from .log_softmax import softmax_and_log_sums
from .machine.attention import Masking, Residence, resident_words
from .machine.runner import Done, Runner
from .machine.works import engine_work, product_bits
from .machine_products import plans_of, saturated_results
from .numerics import encode, from_bits, torch_dtype
from .plan import Plan
from .tiling import MOST_ROWS

__all__ = ["Resident", "attend_resident"]

_LEAST_ROOM = 64    # words for the streams beside what stays in the memory


class Resident(NamedTuple):
    """What an attention gave, and what its operations count."""

    out: Tensor
    log_sums: Tensor
    counts: list[Amounts]


class _Group(NamedTuple):
    """What the heads that share keys gave.

    Members
    -------
    x : Tensor
        [heads, rows, keys].
    p : Tensor
        The same, in its format.
    log_sums : Tensor
        [heads, rows].
    out : Tensor
        int64 [heads * rows, width]: bit patterns.
    cycles : tuple of int
        Of Q K^T, of scale and masks, of softmax, of P V.
    lost : tuple of int
        Of both products.
    """

    x: Tensor
    p: Tensor
    log_sums: Tensor
    out: Tensor
    cycles: tuple[int, int, int, int]
    lost: tuple[int, int]


def attend_resident(runner: Runner, config: Configuration, of: Operands, part: slice, setup: Setup
                    ) -> Resident | None:
    """A part of an attention whose scores and probabilities stay in the scratch memory.

    None where that cannot be: they do not fit, a row of them goes in pieces, P's windows are
    anchored by its numbers, Q or K has rows that are zero, or a score may not be finite where a
    mask forbids keys.

    The host finds P by the golden model, to count its zeros and to choose how P V is computed. If P
    is streamed as it is, and operands and results fit the memory beside it, a single list of
    commands does everything, and nothing but the results is read back. Else the units are told one
    by one; x is read back, once, for the logarithms of its sums, and P where it is not streamed as
    it is.
    """
    if not _fits(runner, config, of, setup):
        return None
    (data, p_name), (*_, heads, rows, keys) = setup.formats, of.shape
    options: dict[str, Any] = {"scales": None, "orientation": "auto", "compress": True}
    scores = checked_product(
        config, of.q.values[part], of.k.values[part].mT, (data, data), "fp32",
        exponent=-of.q.shift - of.k.shift, **options)
    plans = [plan for _, plan in plans_of(config, scores)]
    mask, allowed = of.cut(of.mask, part), of.cut(of.allowed, part)
    are_whole = all(len(plan.places[0]) * len(plan.places[1]) == heads * rows * keys
                    for plan in plans)
    if not plans or not are_whole or (
            allowed is not None and not _is_bounded(scores, of.factor)):
        return None

    def values(p: Tensor) -> CheckedProduct:
        return checked_product(config, p.flatten(1, 2), of.v.values[part], (p_name, data),
                               setup.result, exponent=-of.v.shift, **options)

    nothing = values(torch.zeros(len(plans), heads, rows, keys).to(torch_dtype(lookup(p_name))))
    is_causal = setup.causal and setup.mask is None
    vpcu, groups = config.vpcu, []
    grid, _ = product(scores.left, scores.right, scores.formats, scores.target,
                      exponent=scores.exponent, accumulator_width=vpcu.accumulator_width,
                      max_k=vpcu.max_k)
    x = scale_and_mask(encode(grid, scores.target, "overflow").view(len(plans), heads, rows, keys),
                       of.factor, mask, allowed)
    for index, plan in enumerate(plans):
        t = _subtrahend(*(x if x is None or x.dim() <= 2 else x[index] for x in (mask, allowed)))
        with runner.lock:
            groups.append(_group(
                Residence(runner, config, heads, rows, keys), plan, of.factor,
                Masking(is_causal, t), lookup(p_name), nothing._replace(
                    b=nothing.b[index:index + 1]), x[index]))
    x, p, log_sums, out = (torch.stack(found) for found in zip(
        *(group[:4] for group in groups), strict=True))
    call, found = values(p), from_bits(out, nothing.target)
    spent = [sum(cycles) for cycles in zip(*(group.cycles for group in groups), strict=True)]
    lost = [sum(flags) for flags in zip(*(group.lost for group in groups), strict=True)]
    counts = [count_product(config, scores, lost=lost[0], saturated=0),
              count_elementwise(config, x), count_rows(config, x, p, len(x)),
              count_product(config, call, lost=lost[1],
                            saturated=saturated_results(config, call, found))]
    return Resident(found, log_sums, [
        one | {"cycles": cycles} for one, cycles in zip(counts, spent, strict=True)])


def _group(group: Residence, plan: Plan, factor: float, masking: Masking, p_format: Format,
           values: CheckedProduct, x: Tensor) -> _Group:
    """One group of heads; ``values``: P times V, of which P is to be put in.

    ``x``: by the golden model.
    """
    at_once = _at_once(group, plan, factor, masking, p_format, values, x)
    if at_once is not None:
        return at_once
    scores = group.multiply(plan)
    scaling = group.scale_and_mask(factor, masking)
    x = group.x()
    p, log_sums = zero_where_masked(
        x, *softmax_and_log_sums(x, p_format.name, config=group.config))
    softmax, logs = group.softmax(p_format)
    if logs is not None:
        sums = x.amax(-1) + logs.view(log_sums.shape)
        _, log_sums = zero_where_masked(x, p, sums.masked_fill(sums.isnan(), math.nan))
    plan = _weighting(group.config, values, p)
    done = Done(np.zeros(0, np.uint32), 0, 0)
    if plan.operations and plan.plain:
        done = group.weight(plan, p_format, values.target, (x == -math.inf).all(-1).flatten())
    elif plan.operations:
        p, _ = zero_where_masked(x, group.p(p_format).view(p.shape), log_sums)
        plan = _weighting(group.config, values, p)
        done = group.runner.run(engine_work(plan, values.target, group.config))
    return _Group(x, p, log_sums, product_bits(plan, done.results),
                  (scores.cycles, scaling, softmax, done.cycles), (scores.lost, done.lost))


def _at_once(group: Residence, plan: Plan, factor: float, masking: Masking, p_format: Format,
             values: CheckedProduct, x: Tensor) -> _Group | None:
    """The same by one list of commands, if P is streamed as it is and all of it fits at once."""
    p, log_sums = zero_where_masked(
        x, *softmax_and_log_sums(x, p_format.name, config=group.config))
    weighting = _weighting(group.config, values, p)
    if not weighting.operations or not weighting.plain:
        return None
    done = group.together(plan, factor, masking, p_format, weighting, values.target,
                          (x == -math.inf).all(-1).flatten())
    if done is None:
        return None
    if done.log_sums is not None:
        sums = x.amax(-1) + done.log_sums.view(log_sums.shape)
        _, log_sums = zero_where_masked(x, p, sums.masked_fill(sums.isnan(), math.nan))
    return _Group(x, p, log_sums, product_bits(weighting, done.results), (done.cycles, 0, 0, 0),
                  (done.lost, 0))


def _weighting(config: Configuration, values: CheckedProduct, p: Tensor) -> Plan:
    (_, plan), = plans_of(config, values._replace(a=p.view(1, -1, p.shape[-1])))
    return plan


def _fits(runner: Runner, config: Configuration, of: Operands, setup: Setup) -> bool:
    """Whether scores and P of a group of heads can stay in the memory, by their shape."""
    (data, p_format), (*_, heads, rows, keys) = map(lookup, setup.formats), of.shape
    return (not (data.is_wide or p_format.is_wide)
            and 0 < keys <= min(config.vpcu.b_depth, config.softmax.max_length)
            and 0 < heads * rows <= MOST_ROWS
            and runner.room(resident_words(heads, rows, keys)) >= keys + _LEAST_ROOM)


def _is_bounded(call: CheckedProduct, factor: float) -> bool:
    """Whether no result times the factor can be infinite or NaN."""
    if not (call.left.finite and call.right.finite) or call.exponent > 1000:
        return False
    largest = [float(x.values.abs().max()) if x.values.numel() else 0.0
               for x in (call.left, call.right)]
    terms = call.a.shape[-1] * largest[0] * largest[1] * 2.0 ** max(-1000, call.exponent)
    return terms * max(1.0, abs(factor)) < 2.0 ** 127


def _subtrahend(mask: Tensor | None, allowed: Tensor | None) -> Tensor:
    """What is taken off the scaled scores: -mask, and +Inf where it is not ``allowed``.

    That makes a number -Inf, as rule A3 has it, but +Inf and NaN it makes NaN.
    """
    t = torch.zeros(()) if mask is None else -mask
    return t if allowed is None else torch.where(allowed, t, math.inf)
