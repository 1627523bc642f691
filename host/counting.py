"""What operations add to a device's counters, whichever device runs them.

Every function gives the amounts for ``Counters.add``. ``cycles`` are those of the contract: a
device that has measured them puts its own in their place.
"""

import torch
from torch import Tensor

from ..gen.config import Configuration
from .checked import CheckedProduct
from .codec import Compressed, compress_cycles, decompress_cycles
from .columns import Factor
from .cycles import dots_cycles
from .elementwise import elementwise_cycles
from .masks import NonZeros
from .numerics import Operand, decode, format_of
from .softmax import softmax_cycles
from .tally import tally

__all__ = ["Amounts", "count_codec", "count_dots", "count_elementwise", "count_product",
           "count_rows"]

Amounts = dict[str, int]


def count_product(config: Configuration, product: CheckedProduct, *, lost: int,
                  saturated: int) -> Amounts:
    """A product or a batch of them, of whose results so many ``lost`` bits or ``saturated``."""
    left, right = product.left, product.right
    columns = right._replace(values=right.values.mT)
    done = tally(config, _factor(left), _factor(columns), product.formats,
                 scales=(product.scales[0] is not None, product.scales[1] is not None),
                 orientation=product.orientation, compress=product.compress)
    return {
        "calls": 1, "cycles": done.cycles, "cycles_dense": done.cycles_dense,
        "products": done.products, "products_skipped": done.products_skipped,
        "transposed": done.transposed,
        "words_a_saved": done.words_a_saved, "words_b_saved": done.words_b_saved,
        "bytes_in": done.bytes_in, "bytes_out": done.results * product.target.width // 8,
        "lost": lost, "saturations": left.saturations + right.saturations + saturated,
    }


def count_rows(config: Configuration, x: Tensor, out: Tensor, operations: int = 1) -> Amounts:
    """Rows ``x`` that the softmax unit has made ``out`` of, as one call.

    In one operation, or in several of equally many rows. A row in blocks is sent three times.
    """
    length = x.shape[-1]
    rows = x.numel() // max(1, length * operations)
    cycles = operations * softmax_cycles(config, rows, length)
    sent = 3 if length > config.softmax.max_length else 1
    return {"calls": 1, "cycles": cycles, "cycles_dense": cycles,
            "bytes_in": sent * x.numel() * x.element_size(),
            "bytes_out": out.numel() * out.element_size()}


def count_dots(config: Configuration, a: Tensor, b: Tensor) -> Amounts:
    """Dot products of rows with rows of their own, in an operation that is counted."""
    formats = format_of(a.dtype), format_of(b.dtype)
    a, b = (torch.atleast_2d(decode(x)) for x in (a, b))
    if a.dim() > 3:
        a, b = a.flatten(0, -3), b.flatten(0, -3)
    special = ~b.isfinite()
    dense = NonZeros(torch.ones((), dtype=torch.bool).expand(a.shape))
    return {
        "cycles": dots_cycles(config, NonZeros(a), special if special.any() else None, formats),
        "cycles_dense": dots_cycles(config, dense, None, formats)}


def count_elementwise(config: Configuration, x: Tensor) -> Amounts:
    """A pass through the elementwise unit, in an operation that is counted.

    Each matrix of a batch is an operation of the unit's.
    """
    x = torch.atleast_2d(x)
    cycles = x.shape[:-2].numel() * elementwise_cycles(config, *x.shape[-2:])
    return {"cycles": cycles, "cycles_dense": cycles}


def count_codec(nonzero: Tensor, compressed: Compressed, *, back: bool = False) -> Amounts:
    """A tensor through the compressor, or ``back`` through the decompressor.

    ``nonzero``: bool, in the tensor's shape. Bytes are those of its blocks and of its words; the
    first cycle and the last are counted both, as of the other units.
    """
    width, block = compressed.element_width, compressed.block
    cycles = 0
    if nonzero.numel():
        cycles = 1 + (decompress_cycles if back else compress_cycles)(nonzero, width, block)
    plain, packed = compressed.blocks * block * width // 8, 8 * len(compressed.words)
    return {"calls": 1, "cycles": cycles, "cycles_dense": cycles,
            "bytes_in": packed if back else plain, "bytes_out": plain if back else packed}


def _factor(x: Operand) -> Factor:
    """Where rows [..., R, K] of A, or columns of B, are zero, infinite or NaN."""
    return Factor(NonZeros(x.values, x.windows), None if x.finite else ~x.values.isfinite())
