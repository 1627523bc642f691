"""The golden model of zero compression: one bit stream for a tensor (docs/zce.md).

Works on arrays of single bits, a byte each: slow, plain, and nothing like the gateware.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..gen.errors import UsageError
from ..hdl.formats import FORMATS
from .masks import NonZeros

__all__ = ["Compressed", "compress", "compress_cycles", "compressed_bits", "decompress",
           "decompress_cycles", "plain_words", "read_stream"]

_DTYPES = tuple(getattr(torch, fmt.torch_name) for fmt in FORMATS.values())
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
        X202 if the dtype is none of the formats'.
    """
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


def _block_cycles(rows: np.ndarray, element_width: int) -> int:
    """Cycles that compressor and decompressor alike spend on the blocks."""
    words = rows.shape[1] * element_width // 64
    return len(rows) * (words + 1) + int(_is_sparse(rows, element_width).sum())


def compress_cycles(nonzero: Tensor, element_width: int, block: int = 64) -> int:
    """Cycles of the compressor from taking an operation to giving its last word.

    Parameters
    ----------
    nonzero : Tensor
        bool, any shape, at least one element: which elements are not zero.
    element_width : int
        Bits of an element: 8, 16 or 32.
    block : int
        Elements of a block.
    """
    rows = _nonzero_blocks(nonzero, block)
    words = block * element_width // 64
    last = rows[-1].reshape(words, -1)[-1] if _is_sparse(rows[-1:], element_width)[0] \
        else np.ones(64 // element_width, bool)
    final_bits = int(last.sum()) * element_width
    bits_before = compressed_bits(nonzero, element_width, block) - final_bits
    spills = (bits_before - 1) % 64 + 1 + final_bits > 64
    return _block_cycles(rows, element_width) + words + 4 + spills


def decompress_cycles(nonzero: Tensor, element_width: int, block: int = 64) -> int:
    """Cycles of the decompressor from taking an operation to giving its last word."""
    return _block_cycles(_nonzero_blocks(nonzero, block), element_width) + 2
