"""A device that is a machine (docs/machine.md): compiled RTL or a board, by whatever bus."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from ..gen.config import Configuration
from ..hdl.formats import lookup
from .attention import Operands, Setup, Verbs
from .bus import Bus
from .checked import CheckedProduct, checked_product
from .codec import Compressed, compress
from .counters import Counters
from .counting import (
    Amounts,
    count_codec,
    count_dots,
    count_elementwise,
    count_product,
    count_rows,
)
from .device import ComposingDevice, verbs_shown
from .dots import check_dots, plan_dots
from .log_softmax import log_sums
from .machine.runner import Runner
from .machine.works import (
    compress_work,
    decompress_work,
    elementwise_work,
    engine_work,
    from_plain_words,
    log_sums_of,
    product_bits,
    softmax_work,
)
from .machine_attention import attend_resident
from .machine_products import plans_of, saturated_results
from .mx import Scales
from .numerics import (
    checked_format,
    decode,
    format_of,
    from_bits,
    quantize,
    to_bits,
    torch_dtype,
)
from .softmax import check_length, rows_of, rows_of_both

__all__ = ["MachineDevice"]

_Result = TypeVar("_Result")


@verbs_shown
class MachineDevice(ComposingDevice):
    """The machine behind a bus. Bits and counters are those of the emulator.

    ``cycles`` are measured: the sum of the CYCLES of what the units did. ``lost`` is what LOST
    counted. All other counters are computed from the operands, as the emulator computes them.

    The gateware does not say which 8-bit results it has clamped. Where a result is the largest
    finite one, the golden model tells whether it was more: it computes the rows and columns that
    have such a result once again, on the host (`saturated_results`).

    Without ``softmax.logarithms`` it has no logarithm either: then ln S of log-softmax and of
    attention is the golden model's, computed on the host (`log_sums`). An attention whose scores
    fit the scratch memory stays there (`attend_resident`); otherwise its parts go in and out one by
    one, and the host puts in boolean and causal masks, and zeros in rows that are masked as a
    whole.

    Parameters
    ----------
    config : Configuration
        What the machine was built for.
    bus : Bus
        Closed with the device, and if this raises.

    Raises
    ------
    DeviceError
        X414, X408: what answers is not a machine, or one of another configuration.
    """

    def __init__(self, config: Configuration, bus: Bus) -> None:
        super().__init__(config)
        try:
            self.runner = Runner(bus, config)
        except BaseException:
            bus.close()
            raise

    def reopen(self) -> None:
        """Open the device anew, after its link was lost or somebody else took it.

        Raises
        ------
        DeviceError
            As `open_device`.
        """
        self._check_open()
        with self.runner.lock:
            self.runner.bus.reopen()
            self.runner = Runner(self.runner.bus, self.config)

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
            self.config, call, lost=lost, saturated=saturated_results(self.config, call, out)
        ) | {"cycles": cycles})
        return out

    def softmax(self, x: Tensor, result: str = "bf16") -> Tensor:
        self._check_open()
        out, _, counts = self._softmax(x, result)
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
        _, found, rows = self._softmax(x, result)
        x = _carried(x.detach())
        largest = decode(x).amax(-1, keepdim=True) if x.shape[-1] else x.new_zeros(())
        sums = self._log_sums(x, found).unsqueeze(-1)
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
        p, _, softmax = self._softmax(log_p, "fp32")
        sums, dots = self._dots(ones, gradients)
        out, passes = self._elementwise(p, torch.zeros(()), sums, gradients, negate=True)
        for counts in (softmax, dots, passes):
            self._counters.add(counts)
        return out

    def compress(self, x: Tensor) -> Compressed:
        self._check_open()
        # The model says how many words there will be; which ones they are, the hardware.
        shape = compress(x)
        work = compress_work(x, len(shape.words))
        cycles = self.runner.run(work).cycles if len(shape.words) else 0
        words = torch.from_numpy(work.results.gathered_words()[:, 0].copy())
        found = replace(shape, words=words)
        self._counters.add(count_codec(decode(x) != 0, found) | {"cycles": cycles})
        return found

    def decompress(self, compressed: Compressed) -> Tensor:
        self._check_open()
        work, cycles = decompress_work(compressed), 0
        if compressed.blocks:
            cycles = self.runner.run(work).cycles
        x = from_plain_words(compressed, work.results.gathered_words())
        self._counters.add(count_codec(decode(x) != 0, compressed, back=True) | {"cycles": cycles})
        return x

    def _composed(self, run: Callable[[Verbs], _Result]) -> _Result:
        part = copy.copy(self)
        part._counters = Counters()

        def softmax(x: Tensor, result: str) -> tuple[Tensor, Tensor]:
            groups = [self._softmax(one, result) for one in x]
            p = torch.stack([one for one, _, _ in groups]) if groups else x.to(
                torch_dtype(lookup(result)))
            part._counters.add(count_rows(self.config, x, p, len(x)) | {
                "cycles": sum(counts["cycles"] for _, _, counts in groups)})
            largest = x.amax(-1) if x.shape[-1] else x.new_zeros(x.shape[:-1])
            logs = [one for _, one, _ in groups if one is not None]
            sums = largest + self._log_sums(x, torch.stack(logs) if logs else None)
            return p, sums.masked_fill_(sums.isnan(), math.nan)

        def scores(x: Tensor, factor: float, mask: Tensor | None = None,
                   allowed: Tensor | None = None) -> Tensor:
            out, counts = self._elementwise(
                x, torch.zeros(()), torch.tensor(factor),
                torch.zeros(()) if mask is None else -mask.expand(x.shape))
            part._counters.add(counts)
            return out if allowed is None else out.masked_fill_(~allowed, -math.inf)

        def at_once(of: Operands, of_part: slice, setup: Setup) -> tuple[Tensor, Tensor] | None:
            done = attend_resident(self.runner, self.config, of, of_part, setup)
            if done is None:
                return None
            for counts in done.counts:
                part._counters.add(counts)
            return done.out, done.log_sums

        found = run(Verbs(part.gemm, softmax, part.softmax_backward, scores, at_once))
        self._counters.add({**part.counters, "calls": 1})
        return found

    def _product(self, call: CheckedProduct) -> tuple[Tensor, int, int]:
        """The results of a product or a batch, their cycles, and how many lost bits."""
        out = torch.zeros((*call.a.shape[:-1], call.b.shape[-1]), dtype=torch.int64)
        cycles = lost = 0
        for index, plan in plans_of(self.config, call):
            if plan.operations:
                done = self.runner.run(engine_work(plan, call.target, self.config))
                out[index] = product_bits(plan, done.results)
                cycles, lost = cycles + done.cycles, lost + done.lost
        return from_bits(out, call.target), cycles, lost

    def _softmax(self, x: Tensor, result: str) -> tuple[Tensor, Tensor | None, Amounts]:
        """The probabilities, ln S if the unit has logarithms, and what they count."""
        fmt, rows = checked_format(result), rows_of(x, "x")
        check_length(rows)
        bits, cycles, sums = torch.zeros(rows.numel(), dtype=torch.int64), 0, None
        if rows.numel():
            work = softmax_work(_carried(rows), fmt, self.config)
            done = self.runner.run(work)
            bits, cycles = torch.from_numpy(done.results.astype("int64")), done.cycles
            sums = log_sums_of(work)
        out = from_bits(bits, fmt).view(x.shape)
        return (out, None if sums is None else sums.view(x.shape[:-1]),
                count_rows(self.config, x, out) | {"cycles": cycles})

    def _log_sums(self, x: Tensor, found: Tensor | None) -> Tensor:
        """ln S of each row: what the unit has found, else the golden model's."""
        return log_sums(x, config=self.config) if found is None else found

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
