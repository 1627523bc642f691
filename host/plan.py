"""How a matrix product becomes the engine's streams, and its results a matrix again.

The order: tiles of B from left to right; within one the rows of A, whole if K fits the tile buffer,
else row by row in pieces of ``b_depth``, the sums staying in the accumulators (docs/vpcu.md).
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..gen.config import Configuration
from ..hdl.formats import Format, lookup
from ..hdl.layouts import UNSCALED, WORD_WIDTH, Operation, Result
from .mx import NAN_SCALE, spread

__all__ = ["Plan", "anchors", "is_finite", "is_nonzero", "pieces", "plan_gemm", "tile_columns"]

MOST_ROWS = (1 << 16) - 1  # of one operation
WORD_MASK = (1 << WORD_WIDTH) - 1
NEVER = -(1 << 40)  # below every exponent


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
    """

    operations: list[int]
    b: list[int]
    rows: list[int]
    masks: list[int]
    values: list[int]
    shape: tuple[int, int]
    columns: int

    @property
    def results(self) -> int:
        """Items that will come out of ``o``."""
        return self.shape[0] * -(-self.shape[1] // self.columns) * self.columns

    def gather(self, items: list[int]) -> tuple[Tensor, Tensor]:
        """The bit patterns [M, N] (int64) and the lost flags [M, N] (bool) from ``o``'s items."""
        m, n = self.shape
        tiles = -(-n // self.columns)
        found = torch.tensor(items, dtype=torch.int64).reshape(tiles, m, self.columns)
        matrix = found.permute(1, 0, 2).reshape(m, tiles * self.columns)[:, :n]
        lost = Result["lost"].offset
        return matrix & (1 << Result["data"].width) - 1, (matrix >> lost & 1).to(torch.bool)


def plan_gemm(a: Tensor, b: Tensor, formats: tuple[str, str], result: str, *,
              config: Configuration, saturate: bool | None = None, exponent: int = 0,
              scales: tuple[Tensor | None, Tensor | None] = (None, None)) -> Plan:
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

    Raises
    ------
    ValueError
        Scales for a configuration that has none.
    """
    format_a, format_b, target = lookup(formats[0]), lookup(formats[1]), lookup(result)
    (m, k), n = a.shape, b.shape[1]
    block, is_scaled = config.vpcu.scale_block, any(x is not None for x in scales)
    if is_scaled and not block:
        raise ValueError("this configuration has no block scales: its vpcu.scale_block is 0")
    if saturate is None:
        saturate = target.width == 8
    lanes, columns = config.vpcu.lanes, tile_columns(config, (format_a, format_b))
    cuts = pieces(k, config.vpcu.b_depth)
    is_fixed = not (format_a.is_wide or format_b.is_wide or is_scaled)

    def operation(rows: int, piece: tuple[int, int]) -> int:
        return _operation(format_a.code, format_b.code, target.code, saturate, piece[0] > 0,
                          piece[1] == k, exponent, rows, piece[1] - piece[0], is_scaled)

    powers_a = powers_b = None
    if is_scaled:
        a, powers_a = _scaled(a, scales[0], 1, format_a, block)
        b, powers_b = _scaled(b, scales[1], 0, format_b, block)
        powers_b = torch.nn.functional.pad(powers_b, (0, -n % columns))
    b = torch.nn.functional.pad(b, (0, -n % columns))
    row_anchors = anchors(a, 1, format_a, is_fixed, powers_a)
    column_anchors = anchors(b, 0, format_b, is_fixed, powers_b)
    masks, values = _compressed(a, format_a, cuts)
    if block:
        masks = [mask | word << WORD_WIDTH for mask, word in
                 zip(masks, _scale_words(powers_a, m, k, block), strict=True)]
    operations: list[int] = []
    words: list[int] = []
    tiles = range(0, n if m else 0, columns)
    for start in tiles:
        part = slice(start, start + columns)
        loads = [_load(b[low:high, part], column_anchors[part], lanes, block,
                       None if powers_b is None else powers_b[low:high, part])
                 for low, high in cuts]
        if len(cuts) == 1:
            for first in range(0, m, MOST_ROWS):
                operations.append(operation(min(MOST_ROWS, m - first), cuts[0]))
                words += loads[0]
        else:
            operations += [operation(1, piece) for piece in cuts] * m
            words += [word for load in loads for word in load] * m
    row_items = [x & 0xFFFF for x in row_anchors.repeat_interleave(len(cuts)).tolist()]
    return Plan(operations=operations, b=words, rows=row_items * len(tiles),
                masks=masks * len(tiles), values=values * len(tiles), shape=(m, n),
                columns=columns)


def tile_columns(config: Configuration, formats: tuple[Format, Format]) -> int:
    """Columns of a tile of B: four per lane, one if either format is 32 bits wide."""
    return config.vpcu.lanes * (1 if any(f.width == 32 for f in formats) else 4)


def pieces(k: int, b_depth: int) -> list[tuple[int, int]]:
    """The ranges of k that fit the tile buffer one by one; one empty range if k is 0."""
    return [(low, min(k, low + b_depth)) for low in range(0, max(k, 1), b_depth)]


def is_nonzero(bits: Tensor, fmt: Format) -> Tensor:
    """Whether the values are neither +0 nor -0."""
    return (bits & (1 << fmt.width - 1) - 1) != 0


def is_finite(bits: Tensor, fmt: Format) -> Tensor:
    """Whether the values are neither infinite nor NaN."""
    return (bits & (1 << fmt.width - 1) - 1) <= fmt.max_finite_bits


def anchors(bits: Tensor, dim: int, fmt: Format, is_fixed: bool,
            powers: Tensor | None = None) -> Tensor:
    """Rule N4's exponent for each row along ``dim``, int64.

    ``is_fixed``: both formats have at most 5 exponent bits and there are no scales, so it is the
    format's largest. ``powers``: the exponents of the elements' scales, int64 like ``bits``.
    """
    shape = [size for place, size in enumerate(bits.shape) if place != dim]
    if is_fixed:
        return torch.full(shape, fmt.max_exponent)
    biased = bits >> fmt.mantissa_width & (1 << fmt.exponent_width) - 1
    counts = is_nonzero(bits, fmt) & is_finite(bits, fmt)
    if not bits.shape[dim]:
        return torch.full(shape, fmt.min_exponent)
    exponents = biased.clamp(min=1) - fmt.bias + (0 if powers is None else powers)
    largest = exponents.masked_fill(~counts, NEVER).amax(dim)
    return torch.where(largest == NEVER, fmt.min_exponent, largest)


def _scaled(bits: Tensor, scales: Tensor | None, dim: int, fmt: Format,
            block: int) -> tuple[Tensor, Tensor]:
    """(bits, the exponent of each element's scale); elements with the scale NaN become NaN."""
    if scales is None:
        return bits, torch.zeros_like(bits)
    each = spread(scales.to(torch.int64), dim, block, bits.shape[dim])
    unknown = each == NAN_SCALE
    return (bits.masked_fill(unknown, fmt.nan_bits),
            (each - UNSCALED).masked_fill_(unknown, 0))


def _scale_words(powers: Tensor | None, m: int, k: int, block: int) -> list[int]:
    """The scales of each window of each row [M, K] as the bytes of an int."""
    windows, places = -(-k // WORD_WIDTH) or 1, WORD_WIDTH // block
    found = torch.full((m, windows * places), UNSCALED)
    if powers is not None and k:
        found[:, :-(-k // block)] += powers[:, ::block]
    return (found.reshape(-1, places) << 8 * torch.arange(places)).sum(1).tolist()


def _load(tile: Tensor, heads: Tensor, lanes: int, block: int,
          powers: Tensor | None) -> list[int]:
    """The words of a tile [k, columns]: its anchors, then elements, index by index.

    Where there are scales, before each block of indices come its effective anchors: the exponents
    that, times the scale, are those of the tile.
    """
    rows = [heads[None]]
    if powers is None:
        rows.append(tile)
    else:
        for start in range(0, len(tile), block):
            rows += [heads[None] - powers[start], tile[start:start + block]]
    return _words(torch.cat(rows), lanes)


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


@lru_cache(maxsize=256)
def _operation(format_a: int, format_b: int, result: int, saturate: bool, keep: bool, drain: bool,
               exponent: int, rows: int, k: int, scaled: bool) -> int:
    return Operation.const({
        "format_a": format_a, "format_b": format_b, "result": result, "saturate": saturate,
        "keep": keep, "drain": drain, "exponent": exponent, "rows": rows, "k": k,
        "scaled": scaled,
    }).as_bits()
