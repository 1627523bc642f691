"""A device that is a machine (docs/machine.md): compiled RTL or a board, by whatever bus."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..gen.config import Configuration
from ..hdl.formats import Format, lookup
from .attention import (
    Operands,
    Setup,
    Verbs,
    attend,
    attend_backward,
    zero_where_masked,
)
from .bus import Bus
from .checked import CheckedProduct, checked_product
from .counters import Counters
from .counting import Amounts, count_dots, count_elementwise, count_product, count_rows
from .device import Device
from .dots import check_dots, plan_dots
from .gemm import default_overflow, product
from .log_softmax import log_sums, softmax_and_log_sums
from .machine.attention import Masking, Residence, flows, resident_words
from .machine.runner import Done, Runner
from .machine.works import elementwise_work, engine_work, product_bits, softmax_work
from .mx import Scales
from .numerics import (
    Operand,
    checked_format,
    decode,
    format_of,
    from_bits,
    max_finite,
    quantize,
    to_bits,
    torch_dtype,
)
from .plan import Plan, plan_gemm
from .softmax import check_length, rows_of, rows_of_both
from .tiling import MOST_ROWS

__all__ = ["MachineDevice"]

_Result = TypeVar("_Result")

_LEAST_ROOM = 64    # words for the streams of an attention that stays in the memory


class MachineDevice(Device):
    """The machine behind a bus. Bits and counters are those of the emulator.

    ``cycles`` are measured: the sum of the CYCLES of what the units did. ``lost`` is what LOST
    counted. All other counters are computed from the operands, as the emulator computes them.

    The gateware does not say which 8-bit results it has clamped. Where a result is the largest
    finite one, the golden model's product tells whether it was more: it computes the rows and
    columns that have such a result once again, on the host.

    It has no logarithm either: ln S of log-softmax and of attention is the golden model's, computed
    on the host (`log_sums`). Boolean and causal masks, and rows that are masked as a whole, are
    put in by the host, too.

    Parameters
    ----------
    config : Configuration
        What the machine was built for.
    bus : Bus
        Closed with the device.

    Raises
    ------
    DeviceError
        X414, X408: what answers is not a machine, or one of another configuration.
    """

    def __init__(self, config: Configuration, bus: Bus) -> None:
        super().__init__(config)
        self.runner = Runner(bus, config)

    def close(self) -> None:
        super().close()
        self.runner.bus.close()

    def gemm(self, a: Tensor, b: Tensor, formats: tuple[str, str] = ("e4m3", "e4m3"),
             result: str = "fp32", *, exponent: int = 0, scales: Scales = None,
             orientation: str = "auto", compress: bool = True) -> Tensor:
        self._check_open()
        call = checked_product(self.config, a, b, formats, result, exponent=exponent, scales=scales,
                               orientation=orientation, compress=compress)
        out, cycles, lost = self._product(call)
        self._counters.add(count_product(
            self.config, call, lost=lost, saturated=self._saturated(call, out)
        ) | {"cycles": cycles})
        return out

    def softmax(self, x: Tensor, result: str = "bf16") -> Tensor:
        self._check_open()
        out, counts = self._softmax(x, result)
        self._counters.add(counts)
        return out

    def softmax_backward(self, p: Tensor, dp: Tensor) -> Tensor:
        self._check_open()
        p_rows, dp_rows = rows_of_both("softmax_backward", p=p, dp=dp)
        check_dots(p_rows, dp_rows, config=self.config)
        p, dp = (_carried(x.detach()) for x in (p, dp))
        sums, dots = self._dots(p, dp)
        out, passes = self._elementwise(dp, sums, p, torch.zeros(()))
        self._counters.add({"calls": 1})
        self._counters.add(dots)
        self._counters.add(passes)
        return out

    def log_softmax(self, x: Tensor, result: str = "fp32") -> Tensor:
        self._check_open()
        fmt = checked_format(result)
        _, rows = self._softmax(x, result)
        x = _carried(x.detach())
        largest = decode(x).amax(-1, keepdim=True) if x.shape[-1] else x.new_zeros(())
        sums = log_sums(x, config=self.config).unsqueeze(-1)
        out, passes = self._elementwise(x, largest, torch.ones(()), sums)
        self._counters.add(rows)
        self._counters.add(passes)
        return quantize(out, fmt, "overflow")

    def log_softmax_backward(self, log_p: Tensor, g: Tensor) -> Tensor:
        self._check_open()
        rows, _ = rows_of_both("log_softmax_backward", log_p=log_p, g=g)
        check_length(rows)
        gradients, ones = quantize(g, "fp32", "overflow"), torch.ones(g.shape)
        check_dots(ones.view(rows.shape), gradients.view(rows.shape), config=self.config)
        p, softmax = self._softmax(log_p, "fp32")
        sums, dots = self._dots(ones, gradients)
        out, passes = self._elementwise(p, torch.zeros(()), sums, gradients, negate=True)
        for counts in (softmax, dots, passes):
            self._counters.add(counts)
        return out

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None,
                  causal: bool = False, scale: float | None = None,
                  formats: tuple[str, str] = ("e4m3", "e4m3"), scaled: bool = False,
                  result: str = "fp32") -> tuple[Tensor, Tensor]:
        self._check_open()
        setup = Setup(mask, causal, scale, self._names(formats), scaled, result)
        return self._composed(lambda verbs: attend(verbs, q, k, v, setup))

    def attention_backward(self, g: Tensor, q: Tensor, k: Tensor, v: Tensor, *,
                           mask: Tensor | None = None, causal: bool = False,
                           scale: float | None = None,
                           formats: tuple[str, str] = ("e4m3", "e4m3"), scaled: bool = False,
                           gradients: tuple[str, str] = ("e5m2", "e5m2"),
                           scaled_gradients: tuple[bool, bool] = (False, False),
                           result: str = "fp32") -> tuple[Tensor, Tensor, Tensor]:
        self._check_open()
        setup = Setup(mask, causal, scale, self._names(formats), scaled, result)
        names = self._names(gradients)
        return self._composed(
            lambda verbs: attend_backward(verbs, g, q, k, v, setup, names, scaled_gradients))

    def _composed(self, run: Callable[[Verbs], _Result]) -> _Result:
        """An operation made of others: what they count is added up, as one call."""
        part = copy.copy(self)
        part._counters = Counters()

        def softmax(x: Tensor, result: str) -> tuple[Tensor, Tensor]:
            groups = [self._softmax(one, result) for one in x]
            p = torch.stack([one for one, _ in groups]) if groups else x.to(
                torch_dtype(lookup(result)))
            part._counters.add(count_rows(self.config, x, p, len(x)) | {
                "cycles": sum(counts["cycles"] for _, counts in groups)})
            largest = x.amax(-1) if x.shape[-1] else x.new_zeros(x.shape[:-1])
            sums = largest + log_sums(x, config=self.config)
            return p, sums.masked_fill_(sums.isnan(), math.nan)

        def scores(x: Tensor, factor: float, mask: Tensor | None = None,
                   allowed: Tensor | None = None) -> Tensor:
            out, counts = self._elementwise(
                x, torch.zeros(()), torch.tensor(factor),
                torch.zeros(()) if mask is None else -mask.expand(x.shape))
            part._counters.add(counts)
            return out if allowed is None else out.masked_fill_(~allowed, -math.inf)

        found = run(Verbs(part.gemm, softmax, part.softmax_backward, scores, part._resident))
        self._counters.add({**part.counters, "calls": 1})
        return found

    def _resident(self, of: Operands, part: slice, setup: Setup) -> tuple[Tensor, Tensor] | None:
        """A part of an attention whose scores and probabilities stay in the scratch memory.

        None where that cannot be: they do not fit, a row of them goes in pieces, P's windows are
        anchored by its numbers, or Q or K has rows that are zero.

        The scores are read back, once, for the logarithms of their sums. The host finds P by the
        golden model meanwhile, to count its zeros and to choose how P V is computed; where P is not
        streamed as it is, it is read back, too.
        """
        (data, p_format), (*_, heads, rows, keys) = setup.formats, of.shape
        vpcu, narrow = self.config.vpcu, not (lookup(data).is_wide or lookup(p_format).is_wide)
        if not narrow or not 0 < keys <= min(vpcu.b_depth, self.config.softmax.max_length) \
                or not 0 < heads * rows <= MOST_ROWS \
                or not flows(self.config, keys, lookup(p_format)) \
                or self.runner.room(resident_words(heads, rows, keys)) < keys + _LEAST_ROOM:
            return None
        scores = checked_product(
            self.config, of.q.values[part], of.k.values[part].mT, (data, data), "fp32",
            exponent=-of.q.shift - of.k.shift, scales=None, orientation="auto", compress=True)
        plans = [plan for _, plan in self._plans(scores)]
        mask, allowed = of.cut(of.mask, part), of.cut(of.allowed, part)
        if any(len(plan.places[0]) * len(plan.places[1]) != heads * rows * keys for plan in plans) \
                or (allowed is not None and not _is_bounded(scores, of.factor)):
            return None
        causal = setup.causal and setup.mask is None
        values = checked_product(
            self.config, torch.zeros(len(plans), heads * rows, keys).to(
                torch_dtype(lookup(p_format))), of.v.values[part], (p_format, data), setup.result,
            exponent=-of.v.shift, scales=None, orientation="auto", compress=True)
        spent = {"scores": 0, "elementwise": 0, "softmax": 0, "values": 0}
        lost, xs, ps, sums = [0, 0], [], [], []
        out = torch.zeros(len(plans), heads * rows, of.v.values.shape[-1], dtype=torch.int64)
        for index, plan in enumerate(plans):
            masking = Masking(causal, _subtrahend(*(
                x if x is None or x.dim() <= 2 else x[index] for x in (mask, allowed))))
            with self.runner.lock:
                group = Residence(self.runner, self.config, heads, rows, keys)
                done = group.multiply(plan)
                spent["scores"] += done.cycles
                lost[0] += done.lost
                spent["elementwise"] += group.scale_and_mask(of.factor, masking)
                x = group.x()
                p, logarithms = zero_where_masked(
                    x, *softmax_and_log_sums(x, p_format, config=self.config))
                spent["softmax"] += group.softmax(lookup(p_format))
                masked = (x == -math.inf).all(-1)
                call = values._replace(a=p.view(1, -1, keys), b=values.b[index:index + 1])
                (_, plan), = self._plans(call)
                if plan.plain:
                    done = group.weight(plan, lookup(p_format), values.target, masked.flatten())
                else:
                    p = zero_where_masked(x, group.p(lookup(p_format)).view(p.shape),
                                          logarithms)[0]
                    (_, plan), = self._plans(call._replace(a=p.view(1, -1, keys)))
                    done = self._run(plan, values.target)
            out[index] = product_bits(plan, done.results)
            spent["values"] += done.cycles
            lost[1] += done.lost
            xs.append(x)
            ps.append(p)
            sums.append(logarithms)
        x, p = torch.stack(xs), torch.stack(ps)
        values = checked_product(
            self.config, p.flatten(1, 2), of.v.values[part], (p_format, data), setup.result,
            exponent=-of.v.shift, scales=None, orientation="auto", compress=True)
        found = from_bits(out, values.target)
        for counts, cycles in (
                (count_product(self.config, scores, lost=lost[0], saturated=0), spent["scores"]),
                (count_elementwise(self.config, x), spent["elementwise"]),
                (count_rows(self.config, x, p, len(x)), spent["softmax"]),
                (count_product(self.config, values, lost=lost[1],
                               saturated=self._saturated(values, found)), spent["values"])):
            self._counters.add(counts | {"cycles": cycles})
        return found, torch.stack(sums)

    def _product(self, call: CheckedProduct) -> tuple[Tensor, int, int]:
        """The results of a product or a batch, their cycles, and how many lost bits."""
        out = torch.zeros((*call.a.shape[:-1], call.b.shape[-1]), dtype=torch.int64)
        cycles = lost = 0
        for index, plan in self._plans(call):
            if plan.operations:
                done = self._run(plan, call.target)
                out[index] = product_bits(plan, done.results)
                cycles, lost = cycles + done.cycles, lost + done.lost
        return from_bits(out, call.target), cycles, lost

    def _plans(self, call: CheckedProduct) -> Iterator[tuple[Any, Plan]]:
        """The plan of a product, or of each of a batch, with its index."""
        left, right = (_bits(x, fmt) for x, fmt in zip((call.a, call.b), call.formats, strict=True))
        first, second = call.formats
        for index in range(len(left)) if left.dim() == 3 else (...,):
            yield index, plan_gemm(
                left[index], right[index], (first.name, second.name), call.target.name,
                config=self.config, exponent=call.exponent, orientation=call.orientation,
                scales=(_at(call.scales[0], index), _at(call.scales[1], index)),
                compress=call.compress)

    def _run(self, plan: Plan, result: Format) -> Done:
        return self.runner.run(engine_work(plan, result, self.config))

    def _saturated(self, call: CheckedProduct, out: Tensor) -> int:
        """How many results were clamped to the largest finite one: only 8-bit formats are."""
        target, vpcu, found = call.target, self.config.vpcu, 0
        if target.width != 8:
            return 0
        largest = max_finite(target)
        matrices = decode(out).abs().eq(largest)
        if out.dim() == 2:
            matrices = matrices.unsqueeze(0)
        for index, is_largest in enumerate(matrices):
            rows, columns = is_largest.any(-1), is_largest.any(-2)
            if not rows.any():
                continue
            part = index if out.dim() == 3 else ...
            left = _selected(call.left, part, (rows, slice(None)))
            right = _selected(call.right, part, (slice(None), columns))
            grid, _ = product(left, right, call.formats, target, exponent=call.exponent,
                              accumulator_width=vpcu.accumulator_width, max_k=vpcu.max_k)
            found += int((grid.abs() > largest).sum())
        return found

    def _softmax(self, x: Tensor, result: str) -> tuple[Tensor, Amounts]:
        """The probabilities, and what they count."""
        fmt, rows = checked_format(result), rows_of(x, "x")
        check_length(rows)
        bits, cycles = torch.zeros(rows.numel(), dtype=torch.int64), 0
        if rows.numel():
            done = self.runner.run(softmax_work(_carried(rows), fmt, self.config))
            bits, cycles = torch.from_numpy(done.results.astype("int64")), done.cycles
        out = from_bits(bits, fmt).view(x.shape)
        return out, count_rows(self.config, x, out) | {"cycles": cycles}

    def _dots(self, a: Tensor, b: Tensor) -> tuple[Tensor, Amounts]:
        """Dot products of rows with rows of their own, float32 [..., 1], and what they count."""
        formats = format_of(a.dtype), format_of(b.dtype)
        out, cycles = torch.zeros((*a.shape[:-1], 1), dtype=torch.float32), 0
        for left, right, sums in zip(_matrices(a), _matrices(b), _matrices(out), strict=True):
            if not len(left):
                continue
            plan = plan_dots(to_bits(left.contiguous()), to_bits(right.contiguous()),
                             (formats[0].name, formats[1].name), config=self.config)
            done = self.runner.run(engine_work(plan, lookup("fp32"), self.config))
            sums[:, 0] = from_bits(torch.from_numpy(done.results.astype("int64")), "fp32")
            cycles += done.cycles
        return out, count_dots(self.config, a, b) | {"cycles": cycles}

    def _elementwise(self, x: Tensor, s: Tensor, q: Tensor, t: Tensor, *, negate: bool = False
                     ) -> tuple[Tensor, Amounts]:
        """`exact_elementwise`, matrix by matrix, and what it counts."""
        out, cycles = torch.zeros(x.shape, dtype=torch.float32), 0
        s, q, t = (_spread(value, x) for value in (s, q, t))
        for *operands, found in zip(*map(_matrices, (x, s, q, t, out)), strict=True):
            if found.numel():
                done = self.runner.run(elementwise_work(*operands, negate=negate))
                bits = torch.from_numpy(done.results.astype("int64")).view(found.shape)
                found[:] = from_bits(bits, "fp32")
                cycles += done.cycles
        return out, count_elementwise(self.config, x) | {"cycles": cycles}


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


def _bits(x: Tensor, fmt: Format) -> Tensor:
    """The bit patterns of an operand: as it is in its format's dtype, else converted."""
    if x.dtype != torch_dtype(fmt):
        x = quantize(x, fmt, default_overflow(fmt))
    return to_bits(x)


def _carried(x: Tensor) -> Tensor:
    """float64 rounded to float32; the others as they are."""
    return quantize(x, "fp32", "overflow") if x.dtype == torch.float64 else x


def _matrices(x: Tensor) -> Tensor:
    """[..., R, L] as [B, R, L], a view."""
    x = torch.atleast_2d(x)
    return x.reshape(x.shape[:-2].numel(), *x.shape[-2:])


def _spread(x: Tensor, like: Tensor) -> Tensor:
    """[..., R, L], or a number of each row [..., R, 1], of the shape of another one."""
    if x.dim() and x.shape[-1] == like.shape[-1] != 1:
        return x.expand(like.shape)
    return x.expand((*like.shape[:-1], 1))


def _at(scales: Tensor | None, index: Any) -> Tensor | None:
    return None if scales is None else scales[index]


def _selected(x: Operand, part: Any, place: tuple) -> Operand:
    """Some rows of A's, or columns of B's, of one product."""
    return x._replace(values=x.values[part][place], windows=None,
                      weights=None if x.weights is None else x.weights[part][place])
