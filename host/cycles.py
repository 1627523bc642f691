"""Cycles of the engine, exactly: a pure function of shapes, formats, masks and configuration.

The count is of the unstalled engine (every input waits at its port, every result is taken at once)
from the cycle in which the first operation is accepted to that of the last result, both included,
for the operations that ``plan`` issues. The benches assert that the gateware takes as many.

For operation t with K indices of its tile, T columns, and rows of work c (the sum over the row's
64-element windows of max(1, elements that count); 1 if K is 0):

- it is accepted at  s_t = max(s_{t-1} + lanes (K_{t-1} + 1) + 1, e_{t-2} + 9)
- its tile is there at  r_t = s_t + lanes (K_t + 1) + 3
- the last operand of a row is issued at  e = max(e_before + c, d + T), where for the first row
  e_before is at least r_t + 2; d is the issue that ended the last row drained before, and d + T
  counts only for rows that are drained
- the last result leaves at  e + 13 + T.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..gen.config import Configuration
from ..hdl.formats import Format, lookup
from ..hdl.geometry import DECODE_LATENCY, LANE_LATENCY, ROUND_LATENCY
from .masks import count_blocks
from .plan import MOST_ROWS, pieces, tile_columns

__all__ = ["GemmWork", "gemm_cycles"]

WINDOW = 64
LOAD_LATENCY = DECODE_LATENCY + 1                    # last word to tile
ISSUE_LATENCY = 3                                    # tile to the first operand's issue
RELEASE_LATENCY = DECODE_LATENCY + LANE_LATENCY + 1  # last operand to a free bank
RESULT_LATENCY = RELEASE_LATENCY + ROUND_LATENCY     # last operand to the row's first result
NEVER = -(1 << 62)


@dataclass(frozen=True)
class GemmWork:
    """What a product costs: cycles, and the products performed and skipped (M K N together)."""

    cycles: int
    products: int
    products_skipped: int


def gemm_cycles(config: Configuration, a_nonzero: Tensor, b_special: Tensor | None,
                formats: tuple[str | Format, str | Format], *,
                columns: int | None = None) -> GemmWork:
    """The work of one product on the unstalled engine.

    Parameters
    ----------
    config : Configuration
        The engine's.
    a_nonzero : Tensor
        bool [M, K]: where A is not zero; or [B, M, K], a batch of products one after the other.
    b_special : Tensor or None
        bool [K, N] or [B, K, N]: where B is infinite or NaN; None if nowhere, and then ``columns``
        is N.
    formats : tuple
        Formats of A and B.
    columns : int, optional
        N; needed only without ``b_special``.

    Returns
    -------
    GemmWork
        All zero cycles if the result is empty.
    """
    m, k = a_nonzero.shape[-2:]
    if b_special is not None:
        n = b_special.shape[-1]
    elif columns is not None:
        n = columns
    else:
        raise ValueError("columns is N of the product where b_special is None; got None")
    if not m or not n:
        return GemmWork(0, 0, 0)
    total = a_nonzero.shape[:-2].numel() * m * k * n
    if b_special is None:
        width = tile_columns(config, (lookup(formats[0]), lookup(formats[1])))
        rows = _rows(a_nonzero, pieces(k, config.vpcu.b_depth), width)
        cycles = _cycles(config, k, [rows] * -(-n // width), width)
        return GemmWork(cycles, rows.elements * n, total - rows.elements * n)
    batch = a_nonzero if a_nonzero.dim() == 3 else a_nonzero.unsqueeze(0)
    specials = b_special.expand(len(batch), k, n)
    works = [_with_specials(config, *pair, formats)
             for pair in zip(batch, specials, strict=True)]
    performed = sum(work.products for work in works)
    return GemmWork(sum(work.cycles for work in works), performed, total - performed)


@dataclass(frozen=True)
class _Rows:
    """What the rows of A cost in one tile.

    ``operations`` are the issued ones: (work of the first row, cycles of the others, whether it
    drains); work and cycles are ints, or int64 arrays over a batch. ``elements`` counts those of A
    that are multiplied.
    """

    operations: list[tuple[Any, Any, bool]]
    elements: int


def _with_specials(config: Configuration, counts: Tensor, special: Tensor,
                   formats: tuple[str | Format, str | Format]) -> GemmWork:
    """The work of one product [M, K] whose B [K, N] may hold infinities and NaN."""
    (m, k), n = counts.shape, special.shape[1]
    width = tile_columns(config, (lookup(formats[0]), lookup(formats[1])))
    cuts = pieces(k, config.vpcu.b_depth)
    padded = torch.nn.functional.pad(special, (0, -n % width))
    forced = padded.reshape(k, -(-n // width), width).any(2)
    plain = None
    tiles, performed = [], 0
    for tile, hit in enumerate(forced.any(0).tolist()):
        if hit:
            rows = _rows(counts | forced[:, tile], cuts, width)
        else:
            rows = plain = plain or _rows(counts, cuts, width)
        tiles.append(rows)
        performed += rows.elements * min(width, n - tile * width)
    return GemmWork(_cycles(config, k, tiles, width), performed, m * k * n - performed)


def _cycles(config: Configuration, k: int, tiles: Sequence[_Rows], width: int) -> int:
    """Cycles of a product, or of a batch of them one after the other, tile by tile."""
    clock = _Clock(config.vpcu.lanes, width)
    depth = [high - low for low, high in pieces(k, config.vpcu.b_depth)]
    for rows in tiles:
        for place, (first, others, drains) in enumerate(rows.operations):
            clock.run(depth[place % len(depth)], first, others, drains=drains)
    return int(np.sum(clock.issued + RESULT_LATENCY + width))


def _rows(counts: Tensor, cuts: list[tuple[int, int]], width: int) -> _Rows:
    """What the rows [M, K] cost in one tile, or those of a batch [B, M, K]."""
    k = counts.shape[-1]
    windows = -(-k // WINDOW) or 1
    padded = torch.nn.functional.pad(counts, (0, windows * WINDOW - k))
    found = count_blocks(padded, WINDOW)
    costs = found.clamp(min=1)
    per_piece = windows if len(cuts) == 1 else cuts[0][1] // WINDOW
    costs = torch.nn.functional.pad(costs, (0, -windows % per_piece))
    work = costs.unflatten(-1, (-1, per_piece)).sum(-1)
    operations: list[tuple[Any, Any, bool]] = []
    if len(cuts) == 1:
        for part in work[..., 0].split(MOST_ROWS, -1):
            others = part[..., 1:].clamp(min=width).sum(-1)
            operations.append((_plain(part[..., 0]), _plain(others), True))
    else:
        drains = [high == cuts[-1][1] for _, high in cuts]
        for row in _plain(work.movedim((-2, -1), (0, 1))):
            operations += zip(row, [0] * len(cuts), drains, strict=True)
    return _Rows(operations, int(found.sum()))


def _plain(x: Tensor) -> Any:
    """Ints, in lists if nested, where there is no batch; else an array, the batch last."""
    return x.tolist() if x.dim() in (0, 2) else x.numpy()


class _Clock:
    """The recurrence of the module's docstring, operation by operation; in ints, or in arrays."""

    def __init__(self, lanes: int, width: int) -> None:
        self.lanes, self.width = lanes, width
        self.accepted: Any = 0      # when the loader can take the next operation
        self.issued: Any = NEVER    # last operand of the last operation
        self.before: Any = NEVER    # and of the one before
        self.drained: Any = NEVER   # last operand of the last row drained

    def run(self, k: int, first: Any, others: Any, *, drains: bool = True) -> None:
        """One operation: work of its first row, and cycles of its other rows."""
        start = _later(self.accepted, self.before + RELEASE_LATENCY)
        words = self.lanes * (k + 1)
        self.accepted = start + words + 1
        ready = start + words + LOAD_LATENCY
        end = _later(self.issued, ready + ISSUE_LATENCY - 1) + first
        if drains:
            end = _later(end, self.drained + self.width)
            self.drained = end + others
        self.before, self.issued = self.issued, end + others


def _later(a: Any, b: Any) -> Any:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else np.maximum(a, b)
