"""Words that a product sends into the engine: a pure function of shapes, formats and masks."""

import math

import numpy as np
from torch import Tensor

from ..gen.config import Configuration
from ..hdl.formats import Format
from ..hdl.layouts import WORD_WIDTH
from .masks import WINDOW, NonZeros, count_blocks, packed
from .tiling import MOST_ROWS, pieces, tile_columns, tile_words

__all__ = ["sent_bytes", "sent_words"]


def sent_words(config: Configuration, a_nonzero: NonZeros, columns: int,
               formats: tuple[Format, Format], *, scaled: bool = False,
               indices: Tensor | None = None) -> tuple[int, int]:
    """64-bit words of A (masks and values) and of B that one product takes, or a batch in all.

    Parameters
    ----------
    config : Configuration
        The engine's.
    a_nonzero : NonZeros
        [M, K], or [B, M, K] of a batch: where A is not zero.
    columns : int
        N.
    formats : tuple of Format
        Of A and B.
    scaled : bool
        Whether an operand has block scales.
    indices : Tensor, optional
        bool [M, K]: those that are sent for each row; None: all. Not for batches.
    """
    (*batch, m, k), depth = a_nonzero.shape, config.vpcu.b_depth
    tiles = -(-columns // tile_columns(config, formats))
    if not m or not tiles:
        return 0, 0
    windows = a_nonzero.windows
    if indices is None:
        lengths = [k] if k <= depth else [k] * m
        loads, masks = -(-m // MOST_ROWS) if k <= depth else 1, m * max(1, -(-k // WINDOW))
    else:
        lengths, loads = indices.sum(1).tolist(), 1
        windows = count_blocks(packed(a_nonzero.mask, indices))
        masks = sum(max(1, -(-length // WINDOW)) for length in lengths)
    words_b = loads * sum(tile_words(config, high - low, scaled)
                          for length in lengths for low, high in pieces(length, depth))
    values = 0
    if windows.shape[-1]:  # each piece of a row starts a new word
        counts = np.add.reduceat(windows.numpy(), np.arange(0, windows.shape[-1], depth // WINDOW),
                                 -1)
        values = int((-(-counts * formats[0].width // WORD_WIDTH)).sum())
    count = math.prod(batch)
    return tiles * (count * masks + values), count * tiles * words_b


def sent_bytes(config: Configuration, a_nonzero: NonZeros, columns: int,
               formats: tuple[Format, Format], *, scaled: bool = False,
               indices: Tensor | None = None) -> int:
    """Bytes of these words, and of the block scales beside A's masks; B's are among its words."""
    found = WORD_WIDTH // 8 * sum(sent_words(config, a_nonzero, columns, formats, scaled=scaled,
                                             indices=indices))
    if not scaled:
        return found
    k, block = a_nonzero.shape[-1], config.vpcu.scale_block
    scales = a_nonzero.shape[:-1].numel() * -(-k // block) if indices is None else int(
        (-(-indices.sum(1) // block)).sum())
    return found + -(-columns // tile_columns(config, formats)) * scales
