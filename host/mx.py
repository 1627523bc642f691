"""Block scales (rule N6 of docs/numerics.md): E8M0 bytes, one for each block along a dimension.

A byte stands for 2^(byte - 127); 255 is NaN. ``mx_quantize`` makes elements and scales as the OCP
Microscaling Formats (MX) Specification 1.0 does, section 6.3.
"""

import math

import torch
from torch import Tensor

from ..gen.errors import UsageError
from ..hdl.formats import Format
from .numerics import (
    Operand,
    checked_format,
    checked_tensor,
    decode,
    power_of_two,
    quantize,
    torch_dtype,
)

__all__ = ["NAN_SCALE", "SCALE_BIAS", "SCALE_BLOCKS", "Scales", "checked_scales", "mx_dequantize",
           "mx_quantize", "scaled", "spread"]

Scales = tuple[Tensor | None, Tensor | None] | None

SCALE_BLOCKS = (16, 32, 64)
SCALE_BIAS = 127
NAN_SCALE = 255


def mx_quantize(x: Tensor, format: str | Format, axis: int = -1,
                block: int = 32) -> tuple[Tensor, Tensor]:
    """Convert to elements of a format with a shared power-of-two scale for each block.

    Parameters
    ----------
    x : Tensor
        Any float dtype and shape of at least one dimension, on the CPU; not changed.
    format : str or Format
        Format of the elements; OCP MX has e4m3 and e5m2 of ours.
    axis : int
        The dimension that blocks lie along: that of K.
    block : int
        Elements of a block: 16, 32 or 64; the last one may be shorter.

    Returns
    -------
    tuple of Tensor
        Elements in the format's torch dtype, of the shape of ``x``, and scales, uint8, with
        ceil(n / block) along ``axis``.

    Numerics
    --------
    The scale's exponent is floor(log2(max |x|)) - emax of the format, not below -127; the elements
    are x / scale, rounded once to nearest even, saturating. A block of zeros has the scale 2^-127.
    A block with a NaN or an Inf, or whose exponent exceeds 127, has the scale NaN, and its elements
    are NaN.

    Raises
    ------
    UsageError
        X202, X203: not a float tensor, or an unknown format. X201: no such dimension. X207: a block
        of another size.
    """
    fmt = checked_format(format)
    x = checked_tensor(x, "x")
    axis = _checked_axis(x, axis)
    _checked_block(block)
    values = (x if x.dtype == torch.float64 else decode(x).to(torch.float64)).movedim(axis, -1)
    padded = torch.nn.functional.pad(values, (0, -values.shape[-1] % block))
    largest = padded.unflatten(-1, (-1, block)).abs().amax(-1)
    exponent = torch.frexp(largest).exponent.to(torch.int64) - 1 - fmt.max_exponent
    exponent.clamp_(min=-SCALE_BIAS).masked_fill_(largest == 0, -SCALE_BIAS)
    bytes_ = torch.where(largest.isfinite() & (exponent <= SCALE_BIAS), exponent + SCALE_BIAS,
                         NAN_SCALE).to(torch.uint8)
    factors = spread(_factors(2 * SCALE_BIAS - bytes_.to(torch.int64)), -1, block,
                     values.shape[-1])
    unknown = spread(bytes_ == NAN_SCALE, -1, block, values.shape[-1])
    elements = quantize((values * factors).masked_fill_(unknown, math.nan), fmt)
    return (elements.movedim(-1, axis).contiguous(), bytes_.movedim(-1, axis).contiguous())


def mx_dequantize(elements: Tensor, scales: Tensor, axis: int = -1, block: int = 32) -> Tensor:
    """The values of scaled elements, exactly, as float64.

    Parameters
    ----------
    elements, scales : Tensor
        As from `mx_quantize`; the scales may be float8_e8m0fnu.
    axis, block : int
        As there.
    """
    elements = checked_tensor(elements, "elements")
    axis = _checked_axis(elements, axis)
    _checked_block(block)
    shape = list(elements.shape)
    shape[axis] = -(-shape[axis] // block)
    bytes_ = _checked_bytes(scales, "scales", shape)
    factors = spread(_factors(bytes_.to(torch.int64)), axis, block, elements.shape[axis])
    return decode(elements).to(torch.float64) * factors


def scaled(x: Operand, scales: Tensor | None, fmt: Format, dim: int, block: int) -> Operand:
    """An operand with its block scales (uint8, along ``dim``; None: it has none) multiplied in."""
    if scales is None:
        return x
    factors = spread(_factors(scales.to(torch.int64)), dim, block, x.values.shape[dim])
    weights = power_of_two(x.values).clamp_(min=2.0 ** fmt.min_exponent).mul_(factors)
    values = x.values * factors
    weights.masked_fill_((values == 0) | ~values.isfinite(), 0.0)
    unknown = bool((scales == NAN_SCALE).any())
    return x._replace(values=values, weights=weights, finite=x.finite and not unknown,
                      windows=None if unknown else x.windows)


def spread(blocks: Tensor, dim: int, block: int, length: int) -> Tensor:
    """What holds for each block, for each of ``length`` elements along ``dim``."""
    return blocks.repeat_interleave(block, dim).narrow(dim, 0, length)


def checked_scales(scales: Scales, a: Tensor, b: Tensor, formats: tuple[Format, Format],
                   block: int) -> tuple[Tensor | None, Tensor | None]:
    """The scales of both operands as uint8; UsageError if they do not fit a [..., M, K] and b."""
    if scales is None:
        return None, None
    if not isinstance(scales, tuple | list) or len(scales) != 2:
        raise UsageError("X202", "scales is a pair, of a and of b, None for either; "
                                 f"got {type(scales).__name__}")
    if scales[0] is None and scales[1] is None:
        return None, None
    _checked_block(block)
    blocks = -(-a.shape[-1] // block)
    shapes = [*a.shape[:-1], blocks], [*b.shape[:-2], blocks, b.shape[-1]]
    found: list[Tensor | None] = []
    for name, x, given, fmt, shape in zip("ab", (a, b), scales, formats, shapes, strict=True):
        if given is not None and x.dtype != torch_dtype(fmt):
            raise UsageError("X202", f"{name} is {_name(x.dtype)}; with scales it is "
                                     f"{_name(torch_dtype(fmt))}, elements of {fmt.name}",
                             "exact: mx_quantize gives elements and scales")
        found.append(None if given is None else _checked_bytes(given, f"scales of {name}", shape))
    return found[0], found[1]


def _checked_bytes(scales: Tensor, name: str, shape: list[int]) -> Tensor:
    if not isinstance(scales, Tensor):
        raise UsageError("X202", f"{name} is a torch tensor; got {type(scales).__name__}")
    if scales.dtype not in (torch.uint8, torch.float8_e8m0fnu) or scales.device.type != "cpu":
        raise UsageError("X202", f"{name} is {_name(scales.dtype)} on {scales.device}; scales are "
                                 "uint8 or float8_e8m0fnu on the CPU")
    if scales.layout != torch.strided:
        raise UsageError("X202", f"{name} has layout {scales.layout}; scales are dense",
                         "pass them .to_dense()")
    if list(scales.shape) != shape:
        raise UsageError("X201", f"{name} is {list(scales.shape)}; one for each block is {shape}")
    return scales.detach().view(torch.uint8)


def _checked_block(block: int) -> None:
    if type(block) is not int or block not in SCALE_BLOCKS:
        raise UsageError("X207", "a block of scales is one of "
                                 f"{', '.join(map(str, SCALE_BLOCKS))} elements; got {block!r}",
                         "32 is OCP MX's; a configuration's is vpcu.scale_block")


def _checked_axis(x: Tensor, axis: int) -> int:
    if type(axis) is not int or not -x.dim() <= axis < x.dim():
        raise UsageError("X201", f"x has {x.dim()} dimensions; got axis {axis!r}")
    return axis % x.dim()


def _factors(bytes_: Tensor) -> Tensor:
    """2^(byte - 127) as float64, of int64 that may also lie a little outside of 0 to 254."""
    values = (bytes_ - SCALE_BIAS + 1023 << 52).view(torch.float64)
    return torch.where(bytes_ == NAN_SCALE, math.nan, values)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
