"""Cycles of the engine, exactly: a pure function of shapes, formats, masks and configuration.

The count is of the unstalled engine (every input waits at its port, every result is taken at once)
from the cycle in which the first operation is accepted to that of the last result, both included,
for the operations that ``plan`` issues. The benches assert that the gateware takes as many.

For operation t with K indices of its tile in w_t words (``plan.tile_words``), T = 4 * lanes, and
rows of work c (the sum over the row's 64-element windows of max(1, elements that count); 1 if K
is 0):

- it is accepted at  s_t = max(s_{t-1} + w_{t-1} + 1, e_{t-2} + RELEASE_LATENCY)
- its tile is there at  r_t = s_t + w_t + LOAD_LATENCY
- the last operand of a row is issued at  e = max(e_before + c, d + T), where for the first row
  e_before is at least r_t + ISSUE_LATENCY - 1; d is the issue that ended the last row drained
  before, and d + T counts only for rows that are drained
- the last result leaves at  e + L + T - 1, L the latency from issue to a row's first result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..gen.config import Configuration
from ..hdl.drain import DRAIN_LATENCY
from ..hdl.formats import Format, lookup
from ..hdl.geometry import DECODE_LATENCY, LANE_LATENCY, OPERAND_LATENCY, ROUND_LATENCY
from ..hdl.lane import COLUMNS
from ..hdl.results import RESULTS_LATENCY
from .masks import WINDOW, NonZeros
from .plan import MOST_ROWS, pieces, tile_columns

__all__ = ["GemmWork", "gemm_cycles"]

LOAD_LATENCY = DECODE_LATENCY + 2                     # last word to tile
ISSUE_LATENCY = 13                                   # tile to the first operand's issue
RELEASE_LATENCY = OPERAND_LATENCY + LANE_LATENCY + 2  # last operand to a free bank
NEVER = -(1 << 62)


@dataclass(frozen=True)
class GemmWork:
    """What a product costs: cycles, and the products performed and skipped (M K N together)."""

    cycles: int
    products: int
    products_skipped: int


def gemm_cycles(config: Configuration, a_nonzero: Tensor | NonZeros, b_special: Tensor | None,
                formats: tuple[str | Format, str | Format], *,
                columns: int | None = None, scaled: bool = False) -> GemmWork:
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
    total = nonzero.shape[:-2].numel() * m * k * n
    if b_special is None:
        width = tile_columns(config, (lookup(formats[0]), lookup(formats[1])))
        rows = _rows(nonzero.windows, pieces(k, config.vpcu.b_depth), _drain_cycles(config))
        cycles = _cycles(config, k, [rows] * -(-n // width), scaled)
        return GemmWork(cycles, rows.elements * n, total - rows.elements * n)
    batch = nonzero.mask if nonzero.mask.dim() == 3 else nonzero.mask.unsqueeze(0)
    specials = b_special.expand(len(batch), k, n)
    works = [_with_specials(config, *pair, formats, scaled)
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
                   formats: tuple[str | Format, str | Format], scaled: bool) -> GemmWork:
    """The work of one product [M, K] whose B [K, N] may hold infinities and NaN."""
    (m, k), n = counts.shape, special.shape[1]
    width = tile_columns(config, (lookup(formats[0]), lookup(formats[1])))
    cuts, drain = pieces(k, config.vpcu.b_depth), _drain_cycles(config)
    padded = torch.nn.functional.pad(special, (0, -n % width))
    forced = padded.reshape(k, -(-n // width), width).any(2)
    plain = None
    tiles, performed = [], 0
    for tile, hit in enumerate(forced.any(0).tolist()):
        if hit:
            rows = _rows(NonZeros(counts | forced[:, tile]).windows, cuts, drain)
        else:
            rows = plain = plain or _rows(NonZeros(counts).windows, cuts, drain)
        tiles.append(rows)
        performed += rows.elements * min(width, n - tile * width)
    return GemmWork(_cycles(config, k, tiles, scaled), performed, m * k * n - performed)


def _drain_cycles(config: Configuration) -> int:
    """Cycles that a row's sums take to leave, whatever the formats."""
    return config.vpcu.lanes * COLUMNS


def _cycles(config: Configuration, k: int, tiles: Sequence[_Rows], scaled: bool) -> int:
    """Cycles of a product, or of a batch of them one after the other, tile by tile."""
    drain = _drain_cycles(config)
    clock = _Clock(drain)
    words = [tile_words(config, high - low, scaled) for low, high in
             pieces(k, config.vpcu.b_depth)]
    for rows in tiles:
        for place, (first, others, drains) in enumerate(rows.operations):
            clock.run(words[place % len(words)], first, others, drains=drains)
    latency = (OPERAND_LATENCY + LANE_LATENCY + DRAIN_LATENCY + ROUND_LATENCY
               + RESULTS_LATENCY)
    return int(np.sum(clock.issued + latency + drain))


def tile_words(config: Configuration, k: int, scaled: bool) -> int:
    """Words of B that a tile of ``k`` indices loads: anchors, those of each block, elements."""
    blocks = -(-k // config.vpcu.scale_block) if scaled else 0
    return config.vpcu.lanes * (1 + blocks + k)


def _rows(found: Tensor, cuts: list[tuple[int, int]], drain: int) -> _Rows:
    """What rows cost in one tile, their windows [M, windows], or a batch [B, M, windows], counted.
    """
    windows = found.shape[-1] or 1
    costs = torch.nn.functional.pad(found, (0, windows - found.shape[-1])).clamp(min=1)
    per_piece = windows if len(cuts) == 1 else cuts[0][1] // WINDOW
    costs = torch.nn.functional.pad(costs, (0, -windows % per_piece))
    work = costs.unflatten(-1, (-1, per_piece)).sum(-1)
    operations: list[tuple[Any, Any, bool]] = []
    if len(cuts) == 1:
        for part in work[..., 0].split(MOST_ROWS, -1):
            others = part[..., 1:].clamp(min=drain).sum(-1)
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

    def __init__(self, drain: int) -> None:
        self.drain = drain
        self.accepted: Any = 0      # when the loader can take the next operation
        self.issued: Any = NEVER    # last operand of the last operation
        self.before: Any = NEVER    # and of the one before
        self.drained: Any = NEVER   # last operand of the last row drained

    def run(self, words: int, first: Any, others: Any, *, drains: bool = True) -> None:
        """One operation: words of its tile, work of its first row, cycles of its other rows."""
        start = _later(self.accepted, self.before + RELEASE_LATENCY)
        self.accepted = start + words + 1
        ready = start + words + LOAD_LATENCY
        end = _later(self.issued, ready + ISSUE_LATENCY - 1) + first
        if drains:
            end = _later(end, self.drained + self.drain)
            self.drained = end + others
        self.before, self.issued = self.issued, end + others


def _later(a: Any, b: Any) -> Any:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else np.maximum(a, b)
