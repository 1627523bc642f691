"""Cycles of the engine, exactly: a pure function of shapes, formats, masks and configuration.

The count is of the unstalled engine (every input waits at its port, every result is taken at once)
from the cycle in which the first operation is accepted to that of the last result, both included,
for the operations that ``plan`` issues. The benches assert that the gateware takes as many.

For operation t with K indices of its tile in w_t words (``tiling.tile_words``), T = 4 * lanes, and
rows of work c (the sum over the row's 64-element windows of max(1, elements that count); 1 if K
is 0):

- the loader takes it at  s_t = max(s_{t-1} + w_{t-1} + 1, e_{t-2} + RELEASE_LATENCY), the first
  one at START
- its tile is there at  r_t = s_t + w_t + LOAD_LATENCY
- the last operand of a row is issued at  e = max(e_before + c, d + T), where for the first row
  e_before is at least r_t + ISSUE_LATENCY - 1; d is the issue that ended the last row drained
  before, and d + T counts only for rows that are drained
- the last result leaves at  e + L + T - 1, L the latency from issue to a row's first result.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..gen.config import Configuration
from ..hdl.formats import Format, lookup
from ..hdl.geometry import DECODE_LATENCY, LANE_LATENCY, OPERAND_LATENCY
from ..hdl.lane import COLUMNS
from ..hdl.skipper import SKIPPER_LATENCY
from ..hdl.vpcu import ROW_LATENCY
from .masks import WINDOW, NonZeros, count_blocks, packed
from .tiling import MOST_ROWS, pieces, tile_columns, tile_words

__all__ = ["GemmWork", "cycles_of_each", "dots_cycles", "fewest_cycles", "gemm_cycles"]

START = 1                                             # the first operation's way to the loader
LOAD_LATENCY = DECODE_LATENCY + 3                     # last word to tile
ISSUE_LATENCY = SKIPPER_LATENCY + 5                  # tile to the first operand's issue
RELEASE_LATENCY = OPERAND_LATENCY + LANE_LATENCY + 2  # last operand to a free bank
NEVER = -(1 << 62)


@dataclass(frozen=True)
class GemmWork:
    """What a product costs: cycles, and the products performed and skipped (M K N together)."""

    cycles: int
    products: int
    products_skipped: int


def gemm_cycles(config: Configuration, a_nonzero: Tensor | NonZeros, b_special: Tensor | None,
                formats: tuple[str | Format, str | Format], *, columns: int | None = None,
                scaled: bool = False, indices: Tensor | None = None) -> GemmWork:
    """The work of one product on the unstalled engine.

    Parameters
    ----------
    config : Configuration
        The engine's.
    a_nonzero : Tensor or NonZeros
        bool [M, K]: where A is not zero; or [B, M, K], a batch of products one after the other.
    b_special : Tensor or None
        bool [K, N] or [B, K, N]: where B is infinite or NaN; None if nowhere, and then ``columns``
        is N.
    formats : tuple
        Formats of A and B.
    columns : int, optional
        N; needed only without ``b_special``.
    scaled : bool
        Whether an operand has block scales.
    indices : Tensor, optional
        bool [M, K]: the indices that are sent for each row (``columns.row_indices``), where K
        exceeds the tile buffer; None: all. Not for batches.

    Returns
    -------
    GemmWork
        All zero cycles if the result is empty.
    """
    nonzero = a_nonzero if isinstance(a_nonzero, NonZeros) else NonZeros(a_nonzero)
    m, k = nonzero.shape[-2:]
    if b_special is not None:
        n = b_special.shape[-1]
    elif columns is not None:
        n = columns
    else:
        raise ValueError("columns is N of the product where b_special is None; got None")
    if not m or not n:
        return GemmWork(0, 0, 0)
    if b_special is not None and nonzero.values.dim() == 3:
        works = [gemm_cycles(config, *pair, formats, scaled=scaled)
                 for pair in zip(nonzero.mask, b_special.expand(len(nonzero.mask), k, n),
                                 strict=True)]
        return GemmWork(*(sum(getattr(work, name) for work in works)
                          for name in GemmWork.__dataclass_fields__))
    pair = lookup(formats[0]), lookup(formats[1])
    tiles = list(_tiles(config, nonzero, b_special, n, pair, scaled, indices))
    performed = sum(rows.elements * width for rows, width in tiles)
    batch = nonzero.shape[:-2].numel()
    return GemmWork(
        cycles=int(np.sum(_cycles(config, [rows for rows, _ in tiles]))),
        products=performed, products_skipped=batch * m * k * n - performed)


def cycles_of_each(config: Configuration, a_nonzero: NonZeros, columns: int,
                   formats: tuple[Format, Format], scaled: bool) -> Any:
    """The cycles of `gemm_cycles` for a finite B: an int, or of a batch int64 [B] (numpy)."""
    rows = _rows(config, a_nonzero, scaled)
    return _cycles(config, [rows] * -(-columns // tile_columns(config, formats)))


def dots_cycles(config: Configuration, nonzero: NonZeros, special: Tensor | None,
                formats: tuple[Format, Format]) -> int:
    """The cycles of row-wise dot products, as `dots.plan_dots` issues them.

    ``nonzero`` [R, K]: where A is not zero; or [B, R, K], a batch, one after the other.
    ``special``: bool, as large, where B is infinite or NaN, or None if nowhere. ``formats``: of A
    and B.
    """
    columns, rows = tile_columns(config, formats), nonzero.shape[-2]
    if not nonzero.shape[:-1].numel():
        return 0
    if special is not None:
        forced = torch.cat([part.any(-2, keepdim=True).expand(part.shape)
                            for part in special.split(columns, -2)], -2)
        nonzero = NonZeros(nonzero.mask | forced)
    clock = _Clock(_drain_cycles(config))
    whole = rows - rows % columns
    for part, count in ((slice(0, whole), columns), (slice(whole, None), rows - whole)):
        if not count or not (tiles := len(range(rows)[part]) // count):
            continue
        by_tile = NonZeros(*(x[..., part, :].unflatten(-2, (tiles, count))
                             for x in (nonzero.values, nonzero.windows)))
        operations = [(words, np.asarray(first), np.broadcast_to(others, np.shape(first)), drains)
                      for words, first, others, drains in _rows(config, by_tile, False).operations]
        for tile in range(tiles):
            for words, first, others, drains in operations:
                clock.run(words, first[..., tile], others[..., tile], drains)
    return int(np.sum(clock.issued + ROW_LATENCY + clock.drain))


def fewest_cycles(config: Configuration, a_nonzero: NonZeros, columns: int,
                  formats: tuple[Format, Format]) -> Any:
    """No product of these rows takes less, as they are issued and drained in each tile; cheap.

    As of `cycles_of_each`.
    """
    elements = a_nonzero.windows.numpy().sum((-2, -1))
    least = np.maximum(elements, a_nonzero.shape[-2] * _drain_cycles(config))
    return least * -(-columns // tile_columns(config, formats))


@dataclass(frozen=True)
class _Rows:
    """What the rows of A cost in one tile.

    ``operations`` are the issued ones: (words of B, work of the first row, cycles of the others,
    whether it drains); work and cycles are ints, or int64 arrays over a batch. ``elements`` counts
    those of A that are multiplied.
    """

    operations: list[tuple[int, Any, Any, bool]]
    elements: int = 0


def _tiles(config: Configuration, nonzero: NonZeros, special: Tensor | None, n: int,
           formats: tuple[Format, Format], scaled: bool,
           indices: Tensor | None) -> Iterator[tuple[_Rows, int]]:
    """For each tile its rows (the same object for tiles alike) and its columns."""
    width = tile_columns(config, formats)
    widths = [min(width, n - start) for start in range(0, n, width)]
    hits = [False] * len(widths)
    if special is not None:
        padded = torch.nn.functional.pad(special, (0, -n % width))
        forced = padded.reshape(special.shape[0], len(widths), width).any(2)
        hits = forced.any(0).tolist()
    plain = None
    for tile, (hit, columns) in enumerate(zip(hits, widths, strict=True)):
        if hit:
            yield _counted(config, NonZeros(nonzero.mask | forced[:, tile]), scaled,
                           indices), columns
        else:
            plain = plain or _counted(config, nonzero, scaled, indices)
            yield plain, columns


def _counted(config: Configuration, nonzero: NonZeros, scaled: bool,
             indices: Tensor | None) -> _Rows:
    rows = _rows(config, nonzero, scaled) if indices is None else _packed_rows(
        config, nonzero.mask, indices, scaled)
    return replace(rows, elements=int(nonzero.windows.sum()))


def _drain_cycles(config: Configuration) -> int:
    """Cycles that a row's sums take to leave, whatever the formats."""
    return config.vpcu.lanes * COLUMNS


def _cycles(config: Configuration, tiles: Sequence[_Rows]) -> Any:
    """Cycles of a product, or of each of a batch, tile by tile."""
    drain = _drain_cycles(config)
    clock = _Clock(drain)
    for _, alike in groupby(tiles, key=id):
        rows, *others = alike
        clock.repeat(rows.operations, 1 + len(others))
    return clock.issued + ROW_LATENCY + drain


def _rows(config: Configuration, nonzero: NonZeros, scaled: bool) -> _Rows:
    """What rows [M, K], or a batch [B, M, K] of them, cost in one tile."""
    k, cuts = nonzero.shape[-1], pieces(nonzero.shape[-1], config.vpcu.b_depth)
    words = [tile_words(config, high - low, scaled) for low, high in cuts]
    windows = nonzero.windows.numpy()
    work = _work(np.maximum(windows, 1) if k else np.ones((*windows.shape[:-1], 1), int), config)
    operations: list[tuple[int, Any, Any, bool]] = []
    if len(cuts) == 1:
        drain = _drain_cycles(config)
        for start in range(0, work.shape[-2], MOST_ROWS):
            part = work[..., start:start + MOST_ROWS, 0]
            others = np.maximum(part[..., 1:], drain).sum(-1)
            operations.append((words[0], _plain(part[..., 0]), _plain(others), True))
    else:
        drains = [high == k for _, high in cuts]
        for row in _plain(np.moveaxis(work, (-2, -1), (0, 1))):
            operations += zip(words, row, [0] * len(cuts), drains, strict=True)
    return _Rows(operations)


def _packed_rows(config: Configuration, nonzero: Tensor, indices: Tensor, scaled: bool) -> _Rows:
    """What rows [M, K] cost in one tile, each sent with ``indices`` [M, K] of its own."""
    depth = config.vpcu.b_depth
    lengths = indices.sum(1)
    counts = count_blocks(packed(nonzero, indices)).numpy()
    costs = np.maximum(counts, 1)
    costs[np.arange(counts.shape[1]) >= np.maximum(1, -(-lengths.numpy()[:, None] // WINDOW))] = 0
    work = _work(costs, config)
    operations: list[tuple[int, Any, Any, bool]] = []
    for length, row in zip(lengths.tolist(), work.tolist(), strict=True):
        cuts = pieces(length, depth)
        operations += [(tile_words(config, high - low, scaled), row[place], 0, high == length)
                       for place, (low, high) in enumerate(cuts)]
    return _Rows(operations)


def _work(costs: Any, config: Configuration) -> Any:
    """Cycles of each row and piece, int64 [..., M, pieces], from those of its windows."""
    per_piece = config.vpcu.b_depth // WINDOW
    if costs.shape[-1] <= per_piece:
        return costs.sum(-1, keepdims=True)
    return np.add.reduceat(costs, np.arange(0, costs.shape[-1], per_piece), -1)


def _plain(x: Any) -> Any:
    """Ints, in lists if nested, where there is no batch; else an array, the batch last."""
    return x.tolist() if x.ndim in (0, 2) else x


class _Clock:
    """The recurrence of the module's docstring, operation by operation; in ints, or in arrays."""

    def __init__(self, drain: int) -> None:
        self.drain = drain
        self.accepted: Any = START  # when the loader can take the next operation
        self.issued: Any = NEVER    # last operand of the last operation
        self.before: Any = NEVER    # and of the one before
        self.drained: Any = NEVER   # last operand of the last row drained

    def run(self, words: int, first: Any, others: Any, drains: bool) -> None:
        """One operation: words of its tile, work of its first row, cycles of its other rows."""
        start = _later(self.accepted, self.before + RELEASE_LATENCY)
        self.accepted = start + words + 1
        ready = start + words + LOAD_LATENCY
        end = _later(self.issued, ready + ISSUE_LATENCY - 1) + first
        if drains:
            end = _later(end, self.drained + self.drain)
            self.drained = end + others
        self.before, self.issued = self.issued, end + others

    def repeat(self, operations: Sequence[tuple[int, Any, Any, bool]], times: int) -> None:
        """The operations of a tile, for so many tiles alike.

        All that `run` does is to add and to take the later one. So once a tile has moved all four
        times by as much, each further one does.
        """
        for left in reversed(range(times)):
            before = self._times()
            for operation in operations:
                self.run(*operation)
            moved = [after - time for after, time in zip(self._times(), before, strict=True)]
            if left and all(_same(moved[0], other) for other in moved[1:]):
                self.accepted, self.issued, self.before, self.drained = (
                    time + left * moved[0] for time in self._times())
                return

    def _times(self) -> tuple[Any, Any, Any, Any]:
        return self.accepted, self.issued, self.before, self.drained


def _same(a: Any, b: Any) -> bool:
    same = a == b
    return same if isinstance(same, bool) else bool(same.all())


def _later(a: Any, b: Any) -> Any:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else np.maximum(a, b)
