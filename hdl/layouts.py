"""Payload layouts of the streams between units; producer and consumer import the same object."""

from amaranth.hdl import signed
from amaranth.lib import data

from .formats import FormatCode

__all__ = ["UNSCALED", "WORD_WIDTH", "AnchorWord", "CodecOperation", "CodecWord", "ForceWindow",
           "Operation", "PlainWord", "Result", "RowAnchor", "mask_window", "mask_word",
           "skipper_token"]

WORD_WIDTH = 64
"""Bits of a word of B or of packed values: four narrow columns of a lane, or one fp32 column."""

Operation = data.StructLayout({
    "format_a": FormatCode, "format_b": FormatCode, "result": FormatCode,
    "saturate": 1, "keep": 1, "drain": 1, "exponent": signed(12), "rows": 16, "k": 16,
    "scaled": 1,
})
"""One tile of a product: ``rows`` rows of A, each ``k`` long, times one tile of B.

``exponent``: x of docs/numerics.md. ``saturate``: overflow and Inf become the largest finite
result. ``keep``: go on from the accumulators as they are (``rows`` is 1); else they start at zero.
``drain``: round and emit each row's results; else they stay in the accumulators (``rows`` is 1,
and ``k`` at least 1: the anchors of a row that drains may wait for four tiles, not for more).
``scaled``: B comes with anchors for each block of indices (``TileBuffer``).
"""

AnchorWord = data.ArrayLayout(signed(16), 4)
"""The first words of a tile of B, one per lane: the anchor of each of its columns (rule N4)."""

RowAnchor = data.StructLayout({"anchor": signed(16)})
"""The anchor of one row of A (rule N4)."""

ForceWindow = data.StructLayout({"force": WORD_WIDTH, "last": 1, "format": FormatCode})
"""64 indices whose rows of B may not be skipped (rule N3), for each row of each operation.

``last`` ends the row; ``format`` is that of A. A row of no elements is one empty window.
"""

Result = data.StructLayout({"data": 32, "lost": 1, "last": 1})
"""One result, right-aligned. ``lost``: rule N4. ``last`` ends the operation's results."""


UNSCALED = 127
"""The E8M0 byte of the scale 1."""


def mask_word(scale_block):
    """64 elements of a row of A: bit i of ``mask`` is set if element i is not zero.

    ``scales``: the E8M0 bytes of its blocks of ``scale_block`` elements, ``UNSCALED`` if they have
    none; not there in a design without scales (0).
    """
    return data.StructLayout({"mask": WORD_WIDTH} | _scales(WORD_WIDTH, scale_block))


def mask_window(block, scale_block):
    """One window of a row's zero mask, for the skipper: bit i describes element i of the window.

    ``nonzero``: the element is not zero and its value is in the value stream. ``force``: the
    element counts even when it is zero (rule N3: its row of B holds an Inf or a NaN). ``last``:
    the row's last window. ``format`` is that of A. ``scales``: as in ``mask_word``.
    """
    return data.StructLayout({"nonzero": block, "force": block, "last": 1, "format": FormatCode}
                             | _scales(block, scale_block))


def skipper_token(max_k, scale_block):
    """One element that counts, from the skipper.

    ``index``: its place in the row. ``value``: its bits, right-aligned; 0 if it is forced and not
    in the value stream. ``last``: ends the row. ``empty``: the token carries no element: it
    stands for a window that held nothing that counts. ``scale``: the E8M0 byte of its block; not
    there in a design without scales. Every window gives at least one token, so that a row of
    windows takes exactly sum(max(1, elements that count)) tokens, with no bubbles.
    """
    return data.StructLayout({"index": range(max_k), "value": 32, "last": 1, "empty": 1}
                             | ({"scale": 8} if scale_block else {}))


def _scales(block, scale_block):
    return {"scales": data.ArrayLayout(8, max(1, block // scale_block))} if scale_block else {}


CodecOperation = data.StructLayout({"format": FormatCode, "blocks": 24})
"""One tensor to compress or decompress: ``blocks`` blocks of elements of ``format``."""

CodecWord = data.StructLayout({"data": 64, "last": 1})
"""One word of a compressed bit stream; ``last`` ends the operation's words."""

PlainWord = data.StructLayout({"data": 64, "last": 1, "error": 1})
"""One word of decompressed elements; ``last`` ends the operation's words.

``error`` comes with ``last`` only: the bit stream was too short, too long or badly padded.
"""
