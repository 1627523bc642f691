"""Attention's forward pass with scores and probabilities staying in the scratch memory.

Of the heads that share keys: Q K^T, as fp32, row by row; in the same place x = score * scale - t;
softmax of it, packed, in the same place again; from there the engine's rows of P, times V.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...gen.config import Configuration
from ...hdl.formats import FP32, Format
from ...hdl.machine_layouts import Channel
from ..numerics import torch_dtype
from ..plan import Plan
from .commands import Move, number
from .memory import WORD_BYTES
from .runner import Done, Runner
from .streams import Feed, Kept, Resident, Work
from .works import elementwise_work, engine_work, log_sums_of, softmax_work

__all__ = ["Masking", "Residence", "resident_words"]

_FP32_BYTES = 4


class Masking(NamedTuple):
    """What is taken off the scaled scores, t.

    Members
    -------
    causal : bool
        Whether t is 0 where query r may see key i <= r, +Inf elsewhere: hardly anything is sent
        for it.
    t : Tensor
        float32, broadcast to [heads, rows, keys], if it is not causal; 0: nothing is taken off.
    """

    causal: bool
    t: Tensor


class Together(NamedTuple):
    """What one list gave: cycles of all units, LOST, ln S of the rows, results of P V."""

    cycles: int
    lost: int
    log_sums: Tensor | None
    results: NDArray[np.uint32]


def resident_words(heads: int, rows: int, keys: int) -> int:
    """Words of the scratch memory that stay taken: scores, a row of zeros, a causal mask."""
    return sum(map(_words, (heads * rows * keys, keys, rows + keys)))


class Residence:
    """A group of heads at work: scores [heads * rows, keys] near the end of the scratch memory.

    Parameters
    ----------
    runner : Runner
        Whose lock is held meanwhile.
    config : Configuration
    heads, rows, keys : int
        H / G, T and S; `resident_words` must fit the memory.
    """

    def __init__(self, runner: Runner, config: Configuration, heads: int, rows: int, keys: int
                 ) -> None:
        self.runner, self.config = runner, config
        self.heads, self.rows, self.keys = heads, rows, keys
        self.words = resident_words(heads, rows, keys)
        self._scores = (config.device.memory_words - self.words) * WORD_BYTES
        self._zeros = self._scores + _words(heads * rows * keys) * WORD_BYTES
        self._causal = self._zeros + _words(keys) * WORD_BYTES

    def multiply(self, plan: Plan) -> Done:
        """The scores, Q K^T, by a plan that leaves out no row and no column."""
        return self._run(self.multiply_work(plan))

    def together(self, scores: Plan, factor: float, masking: Masking, p_format: Format,
                 weighting: Plan, result: Format, masked: Tensor) -> "Together | None":
        """All of it by one list, without the host in between; None if it does not fit at once.

        The arguments are those of the single steps.
        """
        self._write_masks(masking, masked)
        softmax, weight = self.softmax_work(p_format), self.weight_work(
            weighting, p_format, result, masked)
        found = self.runner.run_together(
            [self.multiply_work(scores), *self.scaling_works(factor, masking), softmax, weight],
            resident=self.words)
        if found is None:
            return None
        return Together(*found, log_sums_of(softmax), weight.results.gathered())

    def multiply_work(self, plan: Plan) -> Work:
        """What `multiply` runs."""
        pitch = self.keys * _FP32_BYTES
        down, right = (_FP32_BYTES, pitch) if plan.turned else (pitch, _FP32_BYTES)
        rows, columns = map(len, plan.places)
        moves = []
        for start in range(0, columns, plan.columns):
            count = min(plan.columns, columns - start)
            moves.append(Move(
                channel=number(Channel.ENGINE_RESULT), address=self._scores + start * right,
                inner=count, outer=rows, size=2, step=right, stride=down,
                drop=plan.columns - count))
        return replace(engine_work(plan, FP32, self.config), results=Kept(moves))

    def scale_and_mask(self, factor: float, masking: Masking) -> int:
        """x = score * factor - t; the cycles of the elementwise unit."""
        self._write_masks(masking, None)
        return sum(self._run(work).cycles for work in self.scaling_works(factor, masking))

    def _write_masks(self, masking: Masking, masked: Tensor | None) -> None:
        """What the works take of masks from the scratch memory: a causal one, a row of zeros."""
        if masking.causal:
            mask = np.zeros(2 * _words(self.rows + self.keys), np.float32)
            mask[self.rows:] = np.inf
            self.runner.bus.write(self._causal // WORD_BYTES, mask.view(np.uint64))
        if masked is not None and masked.any():
            self.runner.bus.write(self._zeros // WORD_BYTES, np.zeros(_words(self.keys), np.uint64))

    def scaling_works(self, factor: float, masking: Masking) -> Iterator[Work]:
        """What `scale_and_mask` runs, head by head."""
        heads, rows, keys = self.heads, self.rows, self.keys
        zero = torch.zeros(1, 1)
        for head in range(heads):
            at = self._scores + head * rows * keys * _FP32_BYTES
            t, own = zero, dict[int, Feed]()
            if masking.causal:
                t = zero.expand(rows, keys)
                own[number(Channel.ELEMENTWISE_T)] = Resident([replace(self._matrix(
                    Channel.ELEMENTWISE_T, self._causal + (rows - 1) * _FP32_BYTES),
                    stride=-_FP32_BYTES)])
            elif masking.t.dim():
                t = masking.t.expand(heads, rows, keys)[head]
            work = elementwise_work(zero.expand(rows, keys), zero, torch.full((1, 1), factor), t)
            own[number(Channel.ELEMENTWISE_X)] = Resident([replace(
                self._matrix(Channel.ELEMENTWISE_X, at), with_t=t is not zero)])
            yield _with(work, own, Kept([self._matrix(Channel.ELEMENTWISE_RESULT, at)]))

    def x(self) -> Tensor:
        """float32 [heads, rows, keys], read back: for what the gateware has no unit for."""
        return self._read(self.heads * self.rows * self.keys, FP32).view(
            self.heads, self.rows, self.keys)

    def softmax(self, result: Format) -> tuple[int, Tensor | None]:
        """P in the place of x, packed; the unit's cycles, and ln S of its rows if it gives them."""
        work = self.softmax_work(result)
        return self._run(work).cycles, log_sums_of(work)

    def softmax_work(self, result: Format) -> Work:
        """What `softmax` runs."""
        rows, size = self.heads * self.rows, result.width // 16
        work = softmax_work(torch.zeros(1, 1).expand(rows, self.keys), result, self.config)
        x = replace(self._matrix(Channel.SOFTMAX_ROW, self._scores), outer=rows)
        p = Move(channel=number(Channel.SOFTMAX_RESULT), address=self._scores, inner=self.keys,
                 outer=rows, size=size, step=1 << size, stride=self.keys << size)
        return _with(work, {x.channel: Resident([x])}, Kept([p]))

    def p(self, fmt: Format) -> Tensor:
        """P [heads * rows, keys], read back: for a plan that does not stream it as it is."""
        return self._read(self.heads * self.rows * self.keys, fmt).view(-1, self.keys)

    def weight(self, plan: Plan, p_format: Format, result: Format, masked: Tensor) -> Done:
        """P times V by a plain plan, whose masks and values are not sent.

        ``masked``: bool [heads * rows], of which rows zeros take the place.
        """
        self._write_masks(Masking(False, torch.zeros(())), masked)
        return self._run(self.weight_work(plan, p_format, result, masked))

    def weight_work(self, plan: Plan, p_format: Format, result: Format, masked: Tensor) -> Work:
        """What `weight` runs."""
        size = p_format.width // 16
        moves, row = [], 0
        for is_masked, group in groupby(masked.tolist()):
            count, pitch = len(list(group)), self.keys << size
            moves.append(Move(
                channel=number(Channel.ENGINE_A), inner=self.keys, outer=count, size=size,
                step=1 << size, address=self._zeros if is_masked else self._scores + row * pitch,
                stride=0 if is_masked else pitch))
            row += count
        tiles = -(-len(plan.places[1]) // plan.columns)
        work = engine_work(plan, result, self.config)
        masks = {number(Channel.ENGINE_MASK), number(Channel.ENGINE_VALUES)}
        feeds = [feed for feed in work.feeds if feed.channel not in masks]
        return replace(work, feeds=[*feeds, Resident(moves * tiles)])

    def _matrix(self, channel: object, address: int) -> Move:
        """fp32 elements [rows, keys], one row behind the other."""
        return Move(channel=number(channel), address=address, inner=self.keys, outer=self.rows,
                    size=2, step=_FP32_BYTES, stride=self.keys * _FP32_BYTES)

    def _run(self, work: Work) -> Done:
        return self.runner.run(work, resident=self.words)

    def _read(self, count: int, fmt: Format) -> Tensor:
        size = count * fmt.width // 8
        words = self.runner.bus.read(self._scores // WORD_BYTES, -(-size // WORD_BYTES))
        found: NDArray[np.uint8] = words.astype("<u8").view(np.uint8)[:size].copy()
        return torch.from_numpy(found).view(torch_dtype(fmt))


def _with(work: Work, own: dict[int, Feed], results: Kept) -> Work:
    """The work with some feeds of its own in place of others."""
    return replace(work, feeds=[own.get(feed.channel, feed) for feed in work.feeds],
                   results=results)


def _words(elements: int) -> int:
    """That so many fp32 elements take."""
    return -(-elements * _FP32_BYTES // WORD_BYTES)
