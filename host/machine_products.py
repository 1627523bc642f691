"""Products on a machine: their plans, and what of their results the gateware does not say."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ..gen.config import Configuration
from ..hdl.formats import Format
from .checked import CheckedProduct
from .gemm import default_overflow, product
from .numerics import Operand, decode, max_finite, quantize, to_bits, torch_dtype
from .plan import Plan, plan_gemm

__all__ = ["plans_of", "saturated_results"]


def plans_of(config: Configuration, call: CheckedProduct) -> Iterator[tuple[Any, Plan]]:
    """The plan of a product, or of each of a batch, and the index of its results."""
    left, right = (_bits(x, fmt) for x, fmt in zip((call.a, call.b), call.formats, strict=True))
    first, second = call.formats
    for index in range(len(left)) if left.dim() == 3 else (...,):
        yield index, plan_gemm(
            left[index], right[index], (first.name, second.name), call.target.name,
            config=config, exponent=call.exponent, orientation=call.orientation,
            scales=(_at(call.scales[0], index), _at(call.scales[1], index)),
            compress=call.compress)


def saturated_results(config: Configuration, call: CheckedProduct, out: Tensor) -> int:
    """How many results were clamped to the largest finite one: only 8-bit formats are.

    The gateware does not say so. Where a result is the largest one, the golden model tells whether
    it was more: it computes the rows and columns that have such a result again.
    """
    target, vpcu, found = call.target, config.vpcu, 0
    if target.width != 8:
        return 0
    largest = max_finite(target)
    matrices = decode(out).abs().eq(largest)
    if out.dim() == 2:
        matrices = matrices.unsqueeze(0)
    for index, is_largest in enumerate(matrices):
        rows, columns = is_largest.any(-1), is_largest.any(-2)
        if not rows.any():
            continue
        part = index if out.dim() == 3 else ...
        left = _selected(call.left, part, (rows, slice(None)))
        right = _selected(call.right, part, (slice(None), columns))
        grid, _ = product(left, right, call.formats, target, exponent=call.exponent,
                          accumulator_width=vpcu.accumulator_width, max_k=vpcu.max_k)
        found += int((grid.abs() > largest).sum())
    return found


def _bits(x: Tensor, fmt: Format) -> Tensor:
    """The bit patterns of an operand: as it is in its format's dtype, else converted."""
    if x.dtype != torch_dtype(fmt):
        x = quantize(x, fmt, default_overflow(fmt))
    return to_bits(x)


def _at(scales: Tensor | None, index: Any) -> Tensor | None:
    return None if scales is None else scales[index]


def _selected(x: Operand, part: Any, place: tuple) -> Operand:
    """Some rows of A's, or columns of B's, of one product."""
    return x._replace(values=x.values[part][place], windows=None,
                      weights=None if x.weights is None else x.weights[part][place])
