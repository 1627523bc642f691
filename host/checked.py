"""What every device checks and converts before a product, whatever computes it."""

from typing import NamedTuple

from torch import Tensor

from ..gen.config import Configuration
from ..gen.errors import UsageError
from ..hdl.formats import Format
from .gemm import check_has, check_shapes
from .mx import Scales, checked_scales, scaled
from .numerics import Operand, checked_format, checked_tensor, operand
from .orientation import turns

__all__ = ["CheckedProduct", "checked_formats", "checked_product"]


class CheckedProduct(NamedTuple):
    """A product whose arguments are legal.

    Members
    -------
    a, b : Tensor
        As they were given.
    left, right : Operand
        Converted to ``formats``, scales included.
    formats : tuple of Format
    target : Format
        Of the results.
    exponent : int
    scales : tuple
        Block scales of ``a`` and ``b``, uint8, or None for either.
    orientation : str
    compress : bool
    """

    a: Tensor
    b: Tensor
    left: Operand
    right: Operand
    formats: tuple[Format, Format]
    target: Format
    exponent: int
    scales: tuple[Tensor | None, Tensor | None]
    orientation: str
    compress: bool


def checked_product(config: Configuration, a: Tensor, b: Tensor, formats: tuple[str, str],
                    result: str, *, exponent: int, scales: Scales, orientation: str,
                    compress: bool) -> CheckedProduct:
    """The arguments of `device.Device.gemm`; UsageError if the configuration cannot take them."""
    pair, target = checked_formats(config, formats), checked_format(result)
    if type(exponent) is not int or not -2048 <= exponent <= 2047:
        raise UsageError("X207", f"exponent is an integer from -2048 to 2047; got {exponent!r}")
    turns(orientation)
    if not isinstance(compress, bool):
        raise UsageError("X206", f"compress is True or False; got {compress!r}")
    a, b = checked_tensor(a, "a"), checked_tensor(b, "b")
    check_shapes(a, b, config.vpcu.max_k)
    block = config.vpcu.scale_block
    known = checked_scales(scales, a, b, pair, block)
    left = scaled(operand(a, pair[0]), known[0], pair[0], -1, block)
    right = scaled(operand(b, pair[1], by_columns=True), known[1], pair[1], -2, block)
    return CheckedProduct(a, b, left, right, pair, target, exponent, known, orientation, compress)


def checked_formats(config: Configuration, formats: tuple[str, str]) -> tuple[Format, Format]:
    """The formats of two operands, if the configuration has them."""
    if not isinstance(formats, tuple | list) or len(formats) != 2:
        raise UsageError("X203", f"formats is a pair of names, of a and of b; got {formats!r}")
    first, second = (checked_format(name) for name in formats)
    check_has(config, first)
    check_has(config, second)
    return first, second
