"""The golden model of zero compression: one bit stream for a tensor (docs/zce.md).

Works on arrays of single bits, a byte each: slow, plain, and nothing like the gateware.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..gen.errors import UsageError
from ..hdl.bitstream import check_block
from ..hdl.formats import FORMATS
from .masks import NonZeros

__all__ = ["Compressed", "compress", "compress_cycles", "compressed_bits", "decompress",
           "decompress_cycles", "plain_words", "read_stream"]

_DTYPES = tuple(getattr(torch, fmt.torch_name) for fmt in FORMATS.values())
_COMPRESSOR_LATENCY = 24
_BLOCKS_STORED = 12         # blocks in the compressor with which no more words are taken
_BLOCK_LEAVES = 13          # from when its first piece could go to when the room it had is free
_HEADER_CYCLES = 7          # from one header to the next
_BLOCK_LEAD = 4             # from a block's first item to its first word, beyond what an item takes
_ITEMS_AHEAD = 14           # items that may wait to be used when one more is made
_ITEM_RETURN = 7            # from the use of an item to the cycle in which that makes room
_DECOMPRESSOR_LATENCY = 26
_UINTS = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


@dataclass(frozen=True, eq=False)
class Compressed:
    """A compressed tensor.

    Parameters
    ----------
    words : Tensor
        uint64, [words], contiguous, on the CPU: the bit stream.
    blocks : int
        Number of blocks, the last one padded with zeros.
    element_width : int
        Bits of an element: 8, 16 or 32.
    block : int
        Elements of a block.
    shape : torch.Size
        Shape of the tensor.
    dtype : torch.dtype
        Its dtype: that of one of the five formats.
    """

    words: Tensor
    blocks: int
    element_width: int
    block: int
    shape: torch.Size
    dtype: torch.dtype


def _to_bits(values: np.ndarray) -> np.ndarray:
    """One uint8 per bit, lowest first: [n] unsigned integers become [n, width]."""
    as_bytes = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).view(np.uint8)
    return np.unpackbits(as_bytes, bitorder="little").reshape(len(values), 8 * values.itemsize)


def _from_bits(bits: np.ndarray) -> np.ndarray:
    """Undo ``_to_bits``: [n, width] become [n]."""
    width = bits.shape[1]
    packed = np.packbits(bits.reshape(-1), bitorder="little")
    return packed.view(np.dtype(_UINTS[width]).newbyteorder("<")).astype(_UINTS[width])


def _check_block(block: int) -> None:
    try:
        check_block(block)
    except (TypeError, ValueError):
        raise UsageError("X207", f"block is 8, 16, 32 or 64 elements; got {block!r}",
                         "64 is a configuration's, zce.block") from None


def _blocks_of(x: Tensor, block: int) -> np.ndarray:
    """The bit patterns, [blocks, block], -0 as +0, padded with zeros."""
    if x.dtype not in _DTYPES:
        names = ", ".join(str(dtype) for dtype in _DTYPES)
        raise UsageError("X202", f"a tensor to compress has one of the dtypes {names}; "
                                 f"got {x.dtype}", "convert it with exactum.host.quantize")
    width = 8 * x.element_size()
    octets = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    values = octets.view(_UINTS[width])
    values = np.where(values == 1 << (width - 1), 0, values).astype(_UINTS[width])
    return np.pad(values, (0, -len(values) % block)).reshape(-1, block)


def plain_words(x: Tensor, block: int = 64) -> list[int]:
    """The tensor as the compressor takes it: 64-bit words of whole blocks, -0 left as it is."""
    octets = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    padded = np.pad(octets, (0, -len(octets) % (block * x.element_size())))
    return padded.view(np.uint64).tolist()


def compress(x: Tensor, block: int = 64) -> Compressed:
    """Compress a tensor without loss (but that -0 becomes +0).

    Parameters
    ----------
    x : Tensor
        Any shape and layout, dtype of one of the five formats; copied, not changed.
    block : int
        Elements of a block: 8, 16, 32 or 64.

    Raises
    ------
    UsageError
        X202 if the dtype is none of the formats'; X207 for another block.
    """
    _check_block(block)
    values = _blocks_of(x, block)
    width = 8 * values.itemsize
    nonzero = values != 0
    sparse = _is_sparse(nonzero, width)[:, None]
    flag_and_mask = np.concatenate([sparse, nonzero], axis=1).astype(np.uint8)
    elements = _to_bits(values.reshape(-1)).reshape(len(values), block * width)
    kept = np.repeat(nonzero | ~sparse, width, axis=1)
    mask_kept = np.repeat(sparse, block, axis=1)
    present = np.concatenate([np.ones_like(sparse), mask_kept, kept], axis=1)
    bits = np.concatenate([flag_and_mask, elements], axis=1)[present]
    words = _from_bits(np.pad(bits, (0, -len(bits) % 64)).reshape(-1, 64))
    return Compressed(words=torch.from_numpy(words), blocks=len(values), element_width=width,
                      block=block, shape=x.shape, dtype=x.dtype)


def read_stream(words: Tensor, blocks: int, element_width: int,
                block: int = 64) -> tuple[list[int], bool]:
    """What the decompressor gives for any words: 64-bit words of elements, and whether all is well.

    A stream that is too short gives the words it has all bits for; one that is too long or whose
    padding is not zero gives all.
    """
    bits = _to_bits(words.numpy()).reshape(-1)
    plain = np.zeros((blocks, block, element_width), np.uint8)
    position = 0
    per_word = 64 // element_width
    block_words = block // per_word
    for index in range(blocks):
        header = bits[position:position + 1 + block]
        sparse = bool(header[:1].any())
        if len(header) < 1 + block * sparse:
            return _from_bits(plain[:index].reshape(-1, 64)).tolist(), False
        kept = header[1:] != 0 if sparse else np.ones(block, bool)
        position += 1 + block * sparse
        ends = position + kept.reshape(-1, per_word).sum(axis=1).cumsum() * element_width
        whole = int((ends <= len(bits)).sum())
        if whole < block_words:
            kept[whole * per_word:] = False
        end = position + int(kept.sum()) * element_width
        plain[index, kept] = bits[position:end].reshape(-1, element_width)
        position = end
        if whole < block_words:
            given = plain.reshape(-1, 64)[:index * block_words + whole]
            return _from_bits(given).tolist(), False
    padding = bits[position:]
    return _from_bits(plain.reshape(-1, 64)).tolist(), len(padding) < 64 and not padding.any()


def decompress(compressed: Compressed) -> Tensor:
    """The tensor that was compressed (contiguous, on the CPU); zeros are +0.

    Raises
    ------
    UsageError
        X215 if the words are damaged.
    """
    c = compressed
    words, good = read_stream(c.words, c.blocks, c.element_width, c.block)
    elements = c.shape.numel()
    if not good or c.blocks * c.block < elements:
        raise UsageError("X215", f"{len(c.words)} words do not hold {c.blocks} blocks of "
                                 f"{c.block} elements of {c.element_width} bits",
                         "compress the tensor anew")
    octets = torch.from_numpy(np.array(words, np.uint64).view(np.uint8))
    return octets[:elements * c.element_width // 8].view(c.dtype).reshape(c.shape)


def _is_sparse(nonzero: np.ndarray, element_width: int) -> np.ndarray:
    """For each row of [blocks, block] bools: whether mask and values are shorter than values."""
    block = nonzero.shape[1]
    return block + nonzero.sum(axis=1) * element_width < block * element_width


def _nonzero_blocks(nonzero: Tensor, block: int) -> np.ndarray:
    """A mask of any shape as [blocks, block] bools, padded with False."""
    flat = nonzero.reshape(-1).cpu().numpy().astype(bool)
    return np.pad(flat, (0, -len(flat) % block)).reshape(-1, block)


def compressed_bits(nonzero: Tensor | NonZeros, element_width: int, block: int = 64) -> int:
    """Bits of the stream (without the padding of its last word) for a mask of non-zero elements."""
    known = nonzero if isinstance(nonzero, NonZeros) else NonZeros(nonzero)
    sparse = block + known.blocks(block) * element_width
    return int(sparse.clamp_(max=block * element_width).sum()) + len(sparse)


@dataclass(frozen=True)
class _Shape:
    """What the cycles depend on, an entry for each block.

    ``words``: words of elements in each. ``items``: the mask, and values 64 bits by 64. ``tail``:
    bits of the last item. ``begin``: its first bit in the stream. ``ragged``: it ends with a full
    item that leaves a bit behind, which takes a step of its own before the next flag.
    """

    words: int
    sparse: np.ndarray
    items: np.ndarray
    tail: np.ndarray
    begin: np.ndarray
    ragged: np.ndarray


def _shape(rows: np.ndarray, width: int) -> _Shape:
    block = rows.shape[1]
    sparse = _is_sparse(rows, width)
    values = np.where(sparse, rows.sum(axis=1) * width, block * width)
    items = -(-values // 64) + sparse
    tail = np.where(values > 0, (values - 1) % 64 + 1, block)
    bits = 1 + values + block * sparse
    begin = np.concatenate([[0], bits.cumsum()[:-1]])
    ragged = np.where(sparse, (block == 64) & (values % 64 == 0), begin % 64 == 63)
    return _Shape(block * width // 64, sparse, items, tail, begin, ragged)


def _starts(ready: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """When each of some things begins that come one after the other, and not before ``ready``."""
    before = np.concatenate([[0], lengths.cumsum()[:-1]])
    return np.maximum.accumulate(ready - before) + before


def _starts_with_room(words: int, items: list[int], extras: list[int]) -> np.ndarray:
    """As ``_starts``, for blocks of so many words, when more may wait than there is room for.

    The steps of a block are its items, and an extra one (or not) before them. The room is seen
    4 cycles after a block has come, and 3 after it has left for a pipeline of 4 items.
    """
    time, taken, left = -1, 0, 0
    came: list[int] = []
    starts: list[int] = []
    frees: list[int] = []
    idle = 0                            # from when on the next may start
    sent = [-4, -3, -2, -1]             # when the last items were
    for count, extra in zip(items, extras, strict=True):
        for _ in range(words):
            time += 1
            while True:
                while taken < len(came) and came[taken] + 4 <= time:
                    taken += 1
                while left < len(frees) and frees[left] + 3 <= time:
                    left += 1
                if taken - left < _BLOCKS_STORED:
                    break
                time += 1
        came.append(time)
        frees.append(_BLOCK_LEAVES + max(time + 1, sent[-4] + 4))
        starts.append(max(time + 1, idle))
        idle = starts[-1] + extra + count
        sent = [*sent, *range(idle - count, idle)][-4:]
    return np.array(starts)


def compress_cycles(nonzero: Tensor, element_width: int, block: int = 64) -> int:
    """Cycles of the compressor from taking an operation to giving its last word.

    Exact for blocks of 64; for shorter ones within three cycles and 0.2 %.

    Parameters
    ----------
    nonzero : Tensor
        bool, any shape, at least one element: which elements are not zero.
    element_width : int
        Bits of an element: 8, 16 or 32.
    block : int
        Elements of a block.
    """
    shape = _shape(_nonzero_blocks(nonzero, block), element_width)
    numbers = np.arange(len(shape.items))
    extras = np.concatenate([[0], shape.ragged[:-1]])
    steps = shape.items + extras
    if block == 64:     # for want of room no such block ever starts late
        starts = _starts((numbers + 1) * shape.words, steps)
    else:
        starts = _starts_with_room(shape.words, shape.items.tolist(), extras.tolist())
    # The last item follows on `held` bits, 64 if a flag has made a full word of 63 and an item.
    begin, items, sparse = shape.begin[-1], int(shape.items[-1]), bool(shape.sparse[-1])
    held = begin % 64 + 1
    if items > 1 and sparse and block < 64:
        held = (begin + 1 + block + 64 * (items - 2)) % 64
    spills = held + shape.tail[-1] > 64
    return int(starts[-1] + steps[-1] + (spills or shape.ragged[-1])) + _COMPRESSOR_LATENCY


def decompress_cycles(nonzero: Tensor, element_width: int, block: int = 64) -> int:
    """Cycles of the decompressor from taking an operation to giving its last word."""
    rows = _nonzero_blocks(nonzero, block)
    shape = _shape(rows, element_width)
    bits = compressed_bits(nonzero, element_width, block)
    come = np.minimum(shape.begin // 64 + 1, -(-bits // 64) - 1)
    headers = _starts(come, np.full(len(rows), _HEADER_CYCLES))
    last_begin = shape.begin + 1 + np.where(
        shape.sparse & (shape.items > 1), block + 64 * (shape.items - 2), 64 * (shape.items - 1))
    next_begin = np.concatenate([shape.begin[1:], [bits]]) + 1
    skips = next_begin // 64 - last_begin // 64 == 2    # a word that no item begins in
    # For each word, the number of values' items that it and those before it in the block take.
    per_word = 64 // element_width
    kept = np.where(shape.sparse[:, None],
                    rows.reshape(len(rows), -1, per_word).sum(axis=2) * element_width, 64)
    taken = -(-kept.cumsum(axis=1) // 64)
    items = _ItemFlow()
    word = -1
    for header, sparse, skip, wanted in zip(headers.tolist(), shape.sparse.tolist(),
                                            skips.tolist(), taken.tolist(), strict=True):
        items.wait(header)
        if sparse:
            items.issue(is_value=False)
        mask_time, given = items.time, 0
        for number, count in enumerate(wanted):
            word += 1
            uses = count > given
            if uses:
                items.issue()
                word = max(word, items.time)
            if not number:
                word = max(word, (mask_time if sparse else items.time) + _BLOCK_LEAD)
            if uses:
                items.used.append(word)
                given = count
        items.time += skip
    return word + _DECOMPRESSOR_LATENCY


class _ItemFlow:
    """When the decompressor has each item: one a cycle, while not too many wait to be used."""

    def __init__(self) -> None:
        self.time = -1                  # of the last step
        self.last_value = -2            # of the last step that gave an item of values
        self.used: list[int] = []       # when each item was
        self.issued = 0

    def wait(self, time: int) -> None:
        """No step before ``time``."""
        self.time = max(self.time, time - 1)

    def issue(self, is_value: bool = True) -> None:
        """One more step: an item of values, or a mask."""
        self.time += 1
        while True:
            # An item that went out in the cycle before is not counted yet.
            missing = self.issued - _ITEMS_AHEAD - (self.last_value == self.time - 1)
            if missing <= 0 or self.used[missing - 1] + _ITEM_RETURN <= self.time:
                break
            self.time = self.used[missing - 1] + _ITEM_RETURN
        if is_value:
            self.last_value = self.time
            self.issued += 1
