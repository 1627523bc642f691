"""What the units are sent for an operation, and what their results mean."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...gen.config import Configuration
from ...gen.errors import UsageError
from ...hdl.elementwise import ElementwiseOperation, ElementwiseRow
from ...hdl.formats import FP32, Format
from ...hdl.layouts import CodecOperation, CodecWord, PlainWord, mask_word
from ...hdl.machine_layouts import Channel
from ...hdl.softmax_layouts import Part, SoftmaxOperation, row_sum
from ..codec import Compressed, plain_words
from ..dots import DotsPlan
from ..native import pack
from ..numerics import format_of
from ..plan import Plan
from ..tiling import MOST_ROWS
from .commands import number
from .streams import Elements, Feed, ItemResults, Items, Results, Rows, Shape, Work

__all__ = ["CodecWork", "compress_work", "decompress_work", "elementwise_work", "engine_work",
           "from_plain_words", "log_sums_of", "product_bits", "softmax_work"]

_SIZES = {8: 0, 16: 1, 32: 2}       # of an element's bits: log2 of its bytes


def engine_work(plan: Plan, result: Format, config: Configuration) -> Work:
    """A product's streams; `product_bits` tells what the results mean.

    Of dot products (`DotsPlan`) they are the sums alone: of each tile the diagonal.
    """
    masks = pack(plan.masks, mask_word(config.vpcu.scale_block).size)
    feeds: list[Feed] = [
        Items(number(channel), words) for channel, words in (
            (Channel.ENGINE_OPERATION, _words(plan.operations)),
            (Channel.ENGINE_B, _words(plan.b)), (Channel.ENGINE_ROW, _words(plan.rows)),
            (Channel.ENGINE_MASK, masks), (Channel.ENGINE_VALUES, _words(plan.values)))]
    shapes = _diagonals(plan) if isinstance(plan, DotsPlan) else _tiles(plan)
    return Work("engine", feeds, results=Results(
        number(Channel.ENGINE_RESULT), shapes, _SIZES[result.width]))


def product_bits(plan: Plan, results: NDArray[np.uint32]) -> Tensor:
    """The bit patterns [M, N] (int64) of a product's results."""
    rows, columns = map(len, plan.places)
    tiles, rest = divmod(columns, plan.columns)
    whole = tiles * plan.columns
    found = torch.from_numpy(results.astype(np.int64))
    return plan.place(torch.cat([
        found[:rows * whole].view(tiles, rows, plan.columns).permute(1, 0, 2).reshape(rows, whole),
        found[rows * whole:].view(rows, rest)], 1))


def softmax_work(x: Tensor, result: Format, config: Configuration) -> Work:
    """Softmax of rows [R, L], float but not float64; a row beyond ``max_length`` in blocks.

    With ``softmax.logarithms`` those come along (`log_sums_of`).
    """
    (rows, length), limit = x.shape, config.softmax.max_length
    fmt = format_of(x.dtype)
    data, size = _bytes(x), _SIZES[fmt.width]
    codes = {"format": fmt.code, "result": result.code}
    operations, parts = [], []
    if length <= limit:
        operations = [SoftmaxOperation.const(
            codes | {"rows": min(MOST_ROWS, rows - start), "part": Part.WHOLE, "first": 1}
        ).as_bits() for start in range(0, rows, MOST_ROWS)]
        parts = [Rows(data, size)]
    else:
        whole = length // limit
        cut = [whole * limit << size, length << size]
        for row in data:
            blocks = [Rows(row[:cut[0]].reshape(whole, -1), size),
                      Rows(row[None, cut[0]:cut[1]], size)]
            for part in (Part.MAXIMUM, Part.SUM, Part.PROBABILITIES):
                operations.append(SoftmaxOperation.const(codes | {
                    "rows": -(-length // limit), "part": part,
                    "first": part != Part.PROBABILITIES}).as_bits())
                parts += blocks
    side = None
    if config.softmax.logarithms:
        side = ItemResults(number(Channel.SOFTMAX_SUM), rows, _item_words(row_sum))
    return Work("softmax", [Items(number(Channel.SOFTMAX_OPERATION), _words(operations)),
                            Elements(number(Channel.SOFTMAX_ROW), parts)], side=side,
                results=Results(number(Channel.SOFTMAX_RESULT), [Shape(rows, length)],
                                _SIZES[result.width]))


def log_sums_of(work: Work) -> Tensor | None:
    """ln S of each row, float32 [R], NaN in undefined rows; None if the unit has no logarithms."""
    if work.side is None:
        return None
    words = work.side.gathered_words().view("<u4")
    return torch.from_numpy(words[:, row_sum["log_sum"].offset // 32].copy()).view(torch.float32)


def elementwise_work(x: Tensor, s: Tensor, q: Tensor, t: Tensor, *, negate: bool = False) -> Work:
    """`elementwise.exact_elementwise` of rows [R, L]; numbers of a row are [R, 1] or [1, 1].

    No tensor is float64; s, and such q and t as are numbers of a row, are float32.
    """
    rows, length = x.shape
    is_scalar = {"q": q.shape[1] == 1 != length, "t": t.shape[1] == 1 != length}
    if length == 1:     # a number of the row, if it can be one
        is_scalar = {name: value.dtype == torch.float32 for name, value in (("q", q), ("t", t))}
    feeds: list[Feed] = []
    formats, numbers = {"x": format_of(x.dtype).code}, {"s": s}
    flags = {}
    for name, value, channel in (("q", q, Channel.ELEMENTWISE_Q), ("t", t, Channel.ELEMENTWISE_T)):
        formats[name] = (FP32 if is_scalar[name] else format_of(value.dtype)).code
        flags[f"with_{name}"] = not is_scalar[name]
        if is_scalar[name]:
            numbers[name] = value
        else:
            feeds.append(Elements(number(channel), [_rows(value.expand(rows, length))]))
    operations = [ElementwiseOperation.const(
        formats | {"q_is_scalar": is_scalar["q"], "t_is_scalar": is_scalar["t"], "negate": negate,
                   "rows": min(MOST_ROWS, rows - start)}).as_bits()
                  for start in range(0, rows, MOST_ROWS)]
    feeds += [Items(number(Channel.ELEMENTWISE_OPERATION), _words(operations)),
              Items(number(Channel.ELEMENTWISE_ROW), _row_numbers(rows, numbers)),
              Elements(number(Channel.ELEMENTWISE_X), [_rows(x)], **flags)]
    return Work("elementwise", feeds, results=Results(
        number(Channel.ELEMENTWISE_RESULT), [Shape(rows, length)], _SIZES[FP32.width]))


@dataclass
class CodecWork(Work):
    """Work of which the results are items."""

    results: ItemResults = field(kw_only=True)


def compress_work(x: Tensor, words: int) -> CodecWork:
    """A tensor through the compressor, which gives so many words; items of ``CodecWord``."""
    fmt = format_of(x.dtype)
    plain = np.array(plain_words(x), np.uint64)
    blocks = len(plain) // fmt.width    # of 64 elements: as many words as an element has bits
    operation = CodecOperation.const({"format": fmt.code, "blocks": blocks}).as_bits()
    return CodecWork("compressor", [
        Items(number(Channel.COMPRESSOR_OPERATION), _words([operation])),
        Items(number(Channel.COMPRESSOR_PLAIN), plain)],
        results=ItemResults(number(Channel.COMPRESSOR_RESULT), words, _item_words(CodecWord)))


def decompress_work(compressed: Compressed) -> CodecWork:
    """A compressed tensor through the decompressor; items of ``PlainWord``."""
    fmt, words = format_of(compressed.dtype), compressed.words.numpy()
    operation = CodecOperation.const(
        {"format": fmt.code, "blocks": compressed.blocks}).as_bits()
    items = np.zeros((len(words), _item_words(CodecWord)), np.uint64)
    items[:, 0], items[-1:, CodecWord["last"].offset // 64] = words, 1
    return CodecWork("decompressor", [
        Items(number(Channel.DECOMPRESSOR_OPERATION), _words([operation])),
        Items(number(Channel.DECOMPRESSOR_WORD), items)],
        results=ItemResults(number(Channel.DECOMPRESSOR_RESULT), compressed.blocks * fmt.width,
                            _item_words(PlainWord)))


def from_plain_words(compressed: Compressed, items: NDArray[np.uint64]) -> Tensor:
    """The tensor of the decompressor's items; UsageError X215 if it says that all is not well."""
    error, bit = divmod(PlainWord["error"].offset, 64)
    is_bad = bool((items[:, error] >> np.uint64(bit) & 1).any())
    if is_bad or compressed.blocks * compressed.block < compressed.shape.numel():
        raise UsageError("X215", f"{len(compressed.words)} words do not hold {compressed.blocks} "
                         f"blocks of {compressed.block} elements of {compressed.element_width} "
                         "bits", "compress the tensor anew")
    octets = torch.from_numpy(items[:, 0].copy().view(np.uint8))
    size = compressed.shape.numel() * compressed.element_width // 8
    return octets[:size].view(compressed.dtype).reshape(compressed.shape)


def _item_words(layout: Any) -> int:
    return -(-layout.size // 64)


def _tiles(plan: Plan) -> list[Shape]:
    """Of each tile all rows; of the last one the columns that are there."""
    rows, columns = map(len, plan.places)
    whole, rest = divmod(columns, plan.columns)
    return [Shape(whole * rows, plan.columns), Shape(rows, rest, plan.columns - rest)]


def _diagonals(plan: DotsPlan) -> list[Shape]:
    """Of each tile's T by T results those with the same number in row and column."""
    rows, columns = plan.shape[0], plan.columns
    shapes = []
    for start in range(0, rows, columns):
        count = min(columns, rows - start)
        shapes += [Shape(count - 1, 1, columns), Shape(1, 1, columns - count)]
    return shapes


def _row_numbers(rows: int, numbers: dict[str, Tensor]) -> NDArray[np.uint64]:
    """Items of ``ElementwiseRow``; numbers that do not count are 0."""
    words = np.zeros((rows, -(-ElementwiseRow.size // 64)), "<u8")
    halves = words.view("<u4")
    for name, value in numbers.items():
        halves[:, ElementwiseRow[name].offset // 32] = (
            value.contiguous().view(torch.int32).numpy().view("<u4")[:, 0])
    return words


def _rows(x: Tensor) -> Rows:
    return Rows(_bytes(x), _SIZES[format_of(x.dtype).width])


def _bytes(x: Tensor) -> NDArray[np.uint8]:
    """Rows [R, L] as bytes [R, L * size]."""
    return x.contiguous().view(torch.uint8).numpy().reshape(len(x), -1)


def _words(items: list[int]) -> NDArray[np.uint64]:
    return np.array(items, np.uint64)
