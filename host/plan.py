"""How a matrix product becomes the engine's streams, and its results a matrix again.

The order: tiles of B from left to right; within one the rows of A, whole if K fits the tile buffer,
else row by row in pieces of ``b_depth``, the sums staying in the accumulators (docs/vpcu.md).
``orientation`` decides which operand takes the part of A, and what need not be sent.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..gen.config import Configuration
from ..hdl.formats import Format, lookup
from ..hdl.layouts import UNSCALED, WORD_WIDTH, Operation, Result
from .orientation import choose
from .tiling import MOST_ROWS, pieces, tile_columns
from .vectors import Vectors, is_nonzero, vectors

__all__ = ["Plan", "operation_settings", "plan_gemm", "streams"]

WORD_MASK = (1 << WORD_WIDTH) - 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to send into each stream of the engine, as packed ints, and what to expect.

    Parameters
    ----------
    operations, b, rows, masks, values : list of int
        The items of ``i_operation``, ``i_b``, ``i_row``, ``i_mask`` and ``i_values``.
    shape : tuple of int
        (M, N) of the product.
    columns : int
        Columns of a tile.
    places : tuple of Tensor
        int64: the rows and columns whose results come back, of C, or if ``turned`` of its
        transpose. All others are +0.
    turned : bool
        Whether B is streamed and the results are those of C^T = B^T A^T.
    plain : bool
        Whether A is streamed and nothing left out but its zeros.
    """

    operations: list[int]
    b: list[int]
    rows: list[int]
    masks: list[int]
    values: list[int]
    shape: tuple[int, int]
    columns: int
    places: tuple[Tensor, Tensor]
    turned: bool = False
    plain: bool = False

    @property
    def results(self) -> int:
        """Items that will come out of ``o``."""
        rows, columns = map(len, self.places)
        return rows * -(-columns // self.columns) * self.columns

    def gather(self, items: list[int]) -> tuple[Tensor, Tensor]:
        """The bit patterns [M, N] (int64) and the lost flags [M, N] (bool) from ``o``'s items."""
        m, n = map(len, self.places)
        tiles = -(-n // self.columns)
        found = torch.tensor(items, dtype=torch.int64).reshape(tiles, m, self.columns)
        return self.split(self.place(
            found.permute(1, 0, 2).reshape(m, tiles * self.columns)[:, :n]))

    def place(self, sent: Tensor) -> Tensor:
        """[M, N] of what the engine gave for the rows and columns that were sent (int64)."""
        matrix = torch.zeros(self.shape[::-1] if self.turned else self.shape, dtype=torch.int64)
        matrix[self.places[0][:, None], self.places[1]] = sent
        return matrix.mT.contiguous() if self.turned else matrix

    @staticmethod
    def split(items: Tensor) -> tuple[Tensor, Tensor]:
        """The bit patterns (int64) and the lost flags (bool) of items of ``o``."""
        lost = Result["lost"].offset
        return items & (1 << Result["data"].width) - 1, (items >> lost & 1).to(torch.bool)


def plan_gemm(a: Tensor, b: Tensor, formats: tuple[str, str], result: str, *,
              config: Configuration, saturate: bool | None = None, exponent: int = 0,
              scales: tuple[Tensor | None, Tensor | None] = (None, None),
              orientation: str = "auto", compress: bool = True) -> Plan:
    """The plan of round(2^exponent * a @ b).

    Parameters
    ----------
    a, b : Tensor
        Bit patterns [M, K] and [K, N], int64 (``numerics.to_bits``).
    formats : tuple of str
        Their formats, among those of ``config``.
    result : str
        Format of the result.
    config : Configuration
        The engine's.
    saturate : bool, optional
        Overflow gives the largest finite value; None: in the 8-bit formats.
    exponent : int
        Power of two that the sums are scaled by, -2048 to 2047.
    scales : tuple of Tensor or None
        Block scales, uint8 [M, ceil(K / block)] of ``a`` and [ceil(K / block), N] of ``b``, for
        the configuration's block; None where an operand has none.
    orientation : str
        Which operand is streamed: ``"a"``, ``"b"``, or ``"auto"``: that which takes fewer cycles.
    compress : bool
        Whether zeros may be left out (``columns``), where that takes no more cycles.

    Raises
    ------
    ValueError
        Scales for a configuration that has none.
    """
    format_a, format_b, target = lookup(formats[0]), lookup(formats[1]), lookup(result)
    block, is_scaled = config.vpcu.scale_block, any(x is not None for x in scales)
    if is_scaled and not block:
        raise ValueError("this configuration has no block scales: its vpcu.scale_block is 0")
    is_fixed = not (format_a.is_wide or format_b.is_wide or is_scaled)
    left, right = (
        vectors(bits, fmt, given, block=block, is_scaled=is_scaled, is_fixed=is_fixed)
        for bits, fmt, given in ((a, format_a, scales[0]), (
            b.mT, format_b, None if scales[1] is None else scales[1].mT)))
    way = choose(config, left.factor, right.factor, (format_a, format_b), scaled=is_scaled,
                 orientation=orientation, compress=compress)
    if way.turned:
        left, right = right, left
    places = torch.arange(len(left.bits)), torch.arange(len(right.bits))
    if way.kept is not None:
        rows, inner, columns = way.kept
        left, right = left.select(rows, inner), right.select(columns, inner)
        places = places[0][rows], places[1][columns]
    settings = operation_settings((left.fmt, right.fmt), target, saturate=saturate,
                                  exponent=exponent, scaled=is_scaled)
    return Plan(shape=(a.shape[0], b.shape[1]), places=places, turned=way.turned,
                plain=not way.turned and way.kept is None,
                **streams(left, right, settings, way.indices, config))


def operation_settings(formats: tuple[Format, Format], result: Format, *, saturate: bool | None,
                       exponent: int, scaled: bool) -> dict[str, int]:
    """What all operations of a product have in common; ``saturate`` as in `plan_gemm`."""
    return {
        "format_a": formats[0].code, "format_b": formats[1].code, "result": result.code,
        "saturate": result.width == 8 if saturate is None else saturate, "exponent": exponent,
        "scaled": scaled}


def streams(left: Vectors, right: Vectors, settings: dict[str, int], indices: Tensor | None,
            config: Configuration) -> dict[str, Any]:
    """The streams of the rows of ``left`` times the columns in ``right``, and the tile's width.

    ``indices``: bool [R, K], those that each row is sent with; None: all.
    """
    (m, k), n = left.bits.shape, len(right.bits)
    columns = tile_columns(config, (left.fmt, right.fmt))
    right = right.padded(columns)
    tiles = range(0, n if m else 0, columns)
    operations: list[int] = []
    words: list[int] = []
    if indices is None:
        cuts = [pieces(k, config.vpcu.b_depth)] * m
        masks, values = _compressed(left.bits, left.fmt, pieces(k, config.vpcu.b_depth))
        if config.vpcu.scale_block:
            masks = _with_scales(masks, left.powers, m, k, config.vpcu.scale_block)
    else:
        cuts, masks, values = _rows_alone(left, indices, config)
    for start in tiles:
        tile = right.select(slice(start, start + columns), slice(None))
        if indices is not None:
            for row, own in zip(cuts, indices, strict=True):
                operations += [_operation(settings, 1, piece, row) for piece in row]
                words += _loads(tile.at(own), row, config)
            continue
        loads = _loads(tile, cuts[0], config)
        if len(cuts[0]) == 1:
            for first in range(0, m, MOST_ROWS):
                operations.append(_operation(settings, min(MOST_ROWS, m - first), (0, k), cuts[0]))
                words += loads
        else:
            operations += [_operation(settings, 1, piece, cuts[0]) for piece in cuts[0]] * m
            words += loads * m
    row_items = [anchor & 0xFFFF for anchor, row in zip(left.anchors.tolist(), cuts, strict=True)
                 for _ in row]
    return {"operations": operations, "b": words, "rows": row_items * len(tiles),
            "masks": masks * len(tiles), "values": values * len(tiles), "columns": columns}


def _rows_alone(left: Vectors, indices: Tensor, config: Configuration
                ) -> tuple[list[list[tuple[int, int]]], list[int], list[int]]:
    """For each row, sent with indices (bool [R, K]) of its own, its pieces; masks and values."""
    cuts, masks, values = [], [], []
    for row, own in enumerate(indices):
        alone = left.select(slice(row, row + 1), own)
        k = alone.bits.shape[1]
        cuts.append(pieces(k, config.vpcu.b_depth))
        found, more = _compressed(alone.bits, left.fmt, cuts[-1])
        if config.vpcu.scale_block:
            found = _with_scales(found, alone.powers, 1, k, config.vpcu.scale_block)
        masks += found
        values += more
    return cuts, masks, values


def _with_scales(masks: list[int], powers: Tensor | None, m: int, k: int, block: int) -> list[int]:
    """Mask words with the scales of each window of each row [M, K] as their bytes."""
    windows, places = -(-k // WORD_WIDTH) or 1, WORD_WIDTH // block
    found = torch.full((m, windows * places), UNSCALED)
    if powers is not None and k:
        found[:, :-(-k // block)] += powers[:, ::block]
    scales = (found.reshape(-1, places) << 8 * torch.arange(places)).sum(1).tolist()
    return [mask | word << WORD_WIDTH for mask, word in zip(masks, scales, strict=True)]


def _loads(tile: Vectors, cuts: list[tuple[int, int]], config: Configuration) -> list[int]:
    """The words of a tile [columns, k], piece by piece: its anchors, then its elements, index by
    index.

    Where there are scales, before each block of indices come its effective anchors: the exponents
    that, times the scale, are those of the tile.
    """
    block, heads = config.vpcu.scale_block, tile.anchors[None]
    words: list[int] = []
    for low, high in cuts:
        rows = [heads]
        if tile.powers is None:
            rows.append(tile.bits[:, low:high].mT)
        else:
            for start in range(low, high, block):
                rows += [heads - tile.powers[:, start],
                         tile.bits[:, start:min(high, start + block)].mT]
        words += _words(torch.cat(rows), config.vpcu.lanes)
    return words


def _words(elements: Tensor, lanes: int) -> list[int]:
    """Rows of elements [R, columns] as words of 16-bit elements, or of one 32-bit element."""
    parts = elements.reshape(elements.shape[0], lanes, elements.shape[1] // lanes)
    per_word = parts.shape[2]
    if per_word > 1:
        parts = (parts & 0xFFFF) << torch.arange(0, WORD_WIDTH, 16)
        parts = parts.sum(2, keepdim=True)  # wraps into the sign, which is a bit like others
    return [x & WORD_MASK for x in parts.flatten().tolist()]


def _compressed(a: Tensor, fmt: Format, cuts: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """The mask words and the value words of all rows, piece by piece."""
    k = a.shape[1]
    padded = torch.nn.functional.pad(a, (0, -k % WORD_WIDTH if k else WORD_WIDTH))
    nonzero = is_nonzero(padded, fmt)
    bits = nonzero.reshape(-1, WORD_WIDTH).to(torch.int64) << torch.arange(WORD_WIDTH)
    masks = [x & WORD_MASK for x in bits.sum(1).tolist()]

    # Each piece of a row starts a new word: number the pieces, count within them.
    depth = cuts[0][1] if len(cuts) > 1 else padded.shape[1]
    even = torch.nn.functional.pad(padded, (0, -padded.shape[1] % depth)).reshape(-1, depth)
    nonzero = is_nonzero(even, fmt)
    per_word = WORD_WIDTH // fmt.width
    counts = nonzero.sum(1)
    word_counts = -(-counts // per_word)
    starts = word_counts.cumsum(0) - word_counts
    place = (nonzero.cumsum(1) - 1)[nonzero]
    words = torch.zeros(int(word_counts.sum()), dtype=torch.int64)
    at = starts.repeat_interleave(counts) + place // per_word
    words.index_add_(0, at, even[nonzero] << place % per_word * fmt.width)
    return masks, [x & WORD_MASK for x in words.tolist()]


def _operation(settings: dict[str, int], rows: int, piece: tuple[int, int],
               cuts: list[tuple[int, int]]) -> int:
    """An operation of some rows and one piece; the last of the pieces drains."""
    return _packed(tuple(settings.items()), rows, piece[1] - piece[0], piece[0] > 0,
                   piece == cuts[-1])


@lru_cache(maxsize=256)
def _packed(settings: tuple[tuple[str, int], ...], rows: int, k: int, keep: bool,
            drain: bool) -> int:
    return Operation.const(
        dict(settings) | {"rows": rows, "k": k, "keep": keep, "drain": drain}).as_bits()
