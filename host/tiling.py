"""How a product is cut to fit the engine: tiles of columns, pieces of K, rows of an operation."""

from ..gen.config import Configuration
from ..hdl.formats import Format

__all__ = ["MOST_ROWS", "pieces", "tile_columns", "tile_words"]

MOST_ROWS = (1 << 16) - 1  # of one operation


def tile_columns(config: Configuration, formats: tuple[Format, Format]) -> int:
    """Columns of a tile of B: four per lane, one if either format is 32 bits wide."""
    return config.vpcu.lanes * (1 if any(f.width == 32 for f in formats) else 4)


def tile_words(config: Configuration, k: int, scaled: bool) -> int:
    """Words of B that a tile of ``k`` indices loads: anchors, those of each block, elements."""
    blocks = -(-k // config.vpcu.scale_block) if scaled else 0
    return config.vpcu.lanes * (1 + blocks + k)


def pieces(k: int, b_depth: int) -> list[tuple[int, int]]:
    """The ranges of k that fit the tile buffer one by one; one empty range if k is 0."""
    return [(low, min(k, low + b_depth)) for low in range(0, max(k, 1), b_depth)]
