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

from dataclasses import dataclass

import torch
from torch import Tensor

from ..gen.config import Configuration
from ..hdl.formats import Format, lookup
from ..hdl.geometry import DECODE_LATENCY, LANE_LATENCY, ROUND_LATENCY
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
        bool [M, K]: where A is not zero.
    b_special : Tensor or None
        bool [K, N]: where B is infinite or NaN; None if nowhere, and then ``columns`` is N.
    formats : tuple
        Formats of A and B.
    columns : int, optional
        N; needed only without ``b_special``.

    Returns
    -------
    GemmWork
        All zero cycles if the result is empty.
    """
    m, k = a_nonzero.shape
    if b_special is not None:
        n = b_special.shape[1]
    elif columns is not None:
        n = columns
    else:
        raise ValueError("columns is N of the product where b_special is None; got None")
    width = tile_columns(config, (lookup(formats[0]), lookup(formats[1])))
    if not m or not n:
        return GemmWork(0, 0, 0)
    tiles = -(-n // width)
    cuts = pieces(k, config.vpcu.b_depth)
    forced = None
    if b_special is not None and bool(b_special.any()):
        padded = torch.nn.functional.pad(b_special, (0, tiles * width - n))
        forced = padded.reshape(k, tiles, width).any(2)

    clock = _Clock(config.vpcu.lanes, width)
    plain = _work(a_nonzero, cuts) if forced is None or not forced.any(0).all() else None
    performed = 0
    for tile in range(tiles):
        row_work = plain
        if forced is not None and forced[:, tile].any():
            row_work = _work(a_nonzero | forced[:, tile], cuts)
        assert row_work is not None
        work, elements = row_work
        performed += elements * min(width, n - tile * width)
        if len(cuts) == 1:
            for part in work[:, 0].split(MOST_ROWS):
                clock.run(k, int(part[0]), int(part[1:].clamp(min=width).sum()))
        else:
            for row in work.tolist():
                for (low, high), cost in zip(cuts, row, strict=True):
                    clock.run(high - low, cost, 0, drains=high == k)
    return GemmWork(clock.issued + RESULT_LATENCY + width, performed, m * k * n - performed)


def _work(counts: Tensor, cuts: list[tuple[int, int]]) -> tuple[Tensor, int]:
    """Cycles of each row in each piece [M, pieces], and how many elements count in all."""
    m, k = counts.shape
    windows = -(-k // WINDOW) or 1
    padded = torch.nn.functional.pad(counts, (0, windows * WINDOW - k))
    found = padded.reshape(m, windows, WINDOW).sum(2)
    costs = found.clamp(min=1)
    per_piece = windows if len(cuts) == 1 else cuts[0][1] // WINDOW
    costs = torch.nn.functional.pad(costs, (0, -windows % per_piece))
    return costs.reshape(m, -1, per_piece).sum(2), int(found.sum())


class _Clock:
    """The recurrence of the module's docstring, operation by operation."""

    def __init__(self, lanes: int, width: int) -> None:
        self.lanes, self.width = lanes, width
        self.accepted = 0        # when the loader can take the next operation
        self.issued = NEVER      # last operand of the last operation
        self.before = NEVER      # and of the one before
        self.drained = NEVER     # last operand of the last row drained

    def run(self, k: int, first: int, others: int, *, drains: bool = True) -> None:
        """One operation: work of its first row, and cycles of its other rows."""
        start = max(self.accepted, self.before + RELEASE_LATENCY)
        words = self.lanes * (k + 1)
        self.accepted = start + words + 1
        ready = start + words + LOAD_LATENCY
        end = max(self.issued, ready + ISSUE_LATENCY - 1) + first
        if drains:
            end = max(end, self.drained + self.width)
            self.drained = end + others
        self.before, self.issued = self.issued, end + others
