"""Conversions of docs/numerics.md on tensors: one rounding to nearest even, by our own arithmetic.

Rounding works on a *carrier* (float32 or float64): adding and subtracting 1.5 * 2^(p - m) times the
value's own power of two leaves exactly m mantissa bits, the processor doing the rounding to even.
Every format's values are float32 values, so what is left to convert is exact.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..gen.errors import UsageError, nearest
from ..hdl.formats import BF16, E4M3, FORMATS, FP32, Format, lookup
from . import kernels

__all__ = ["Operand", "decode", "encode", "format_of", "from_bits", "max_finite", "operand",
           "power_of_two", "quantize", "round_grid", "to_bits", "torch_dtype"]

OVERFLOW_MODES = ("saturate", "overflow")
_SMALLEST = 5e-324  # of float64's subnormals
_WORTH_TURNING = 1 << 18

_DTYPES = {name: getattr(torch, fmt.torch_name) for name, fmt in FORMATS.items()}
_FORMATS = {dtype: FORMATS[name] for name, dtype in _DTYPES.items()}
_BIT_VIEWS = {8: torch.uint8, 16: torch.int16, 32: torch.int32, 64: torch.int64}


def torch_dtype(fmt: Format) -> torch.dtype:
    """The torch dtype that holds ``fmt``."""
    return _DTYPES[fmt.name]


def format_of(dtype: torch.dtype) -> Format:
    """The format that a floating-point dtype holds; fp32 for float64, which is rounded to it."""
    return _FORMATS.get(dtype, FP32)


def max_finite(fmt: Format) -> float:
    """The largest finite value of ``fmt``."""
    steps = fmt.max_finite_bits & ((1 << fmt.mantissa_width) - 1) | 1 << fmt.mantissa_width
    return math.ldexp(steps, fmt.max_exponent - fmt.mantissa_width)


def power_of_two(x: Tensor) -> Tensor:
    """2^floor(log2 |x|) of each element; 0 of zeros and carrier subnormals, Inf of Inf and NaN."""
    view = _BIT_VIEWS[8 * x.element_size()]
    return (x.view(view) & torch.tensor(math.inf, dtype=x.dtype).view(view)).view(x.dtype)


def round_grid(x: Tensor, fmt: Format) -> Tensor:
    """Round float32 or float64 values onto the grid of ``fmt``; the values stay in a carrier.

    Parameters
    ----------
    x : Tensor
        float32 or float64, any shape and layout; not changed.
    fmt : Format
        The format to round to.

    Returns
    -------
    Tensor
        float32 or float64, whichever is the cheapest; ``x`` itself if it is fp32 that stays so.

    Numerics
    --------
    One rounding to nearest even with unbounded exponent: values beyond the largest finite one stay
    beyond it (`encode` tells what becomes of them). NaN stays NaN. The sign of zero is *not* kept.
    """
    if fmt is FP32:  # IEEE 754's own conversion; beyond the largest finite value that is Inf
        return x.to(torch.float32)
    if x.dtype == torch.float32 and fmt.is_wide:
        x = x.to(torch.float64)  # the added constant would not fit float32
    mantissa = 23 if x.dtype == torch.float32 else 52
    ulp = power_of_two(x).clamp_(2.0 ** fmt.min_exponent, 2.0 ** (fmt.max_exponent + 1))
    constant = 1.5 * 2.0 ** (mantissa - fmt.mantissa_width)
    return torch.add(x, ulp, alpha=constant).sub_(ulp, alpha=constant)


def encode(grid: Tensor, fmt: Format, overflow: str, sign: Tensor | None = None) -> Tensor:
    """Values on the grid of ``fmt`` as a tensor of its dtype, bit for bit by the contract.

    Parameters
    ----------
    grid : Tensor
        float32 or float64 from `round_grid`; may be overwritten.
    fmt : Format
        The format.
    overflow : str
        "saturate" or "overflow".
    sign : Tensor, optional
        Where the signs come from (zeros included); those of ``grid`` when None.
    """
    if sign is not None:
        grid = torch.copysign(grid, sign.to(grid.dtype))
    elif fmt is FP32 and grid.dtype == torch.float32 and overflow == "overflow":
        return grid  # a product's: its NaN is canonical, and float32 has overflowed by itself
    largest = max_finite(fmt)
    bound = _largest_magnitude(grid)
    if bound <= largest:
        return _narrow(grid, fmt)
    nan = grid.isnan()
    if overflow == "saturate":
        return _with_bits(_narrow(grid.clamp_(-largest, largest).masked_fill_(nan, 0.0), fmt),
                          fmt, [(nan, fmt.nan_bits)])
    above, below = grid > largest, grid < -largest
    out = _narrow(grid.masked_fill(nan | above | below, 0.0), fmt)
    if not fmt.ieee:
        return _with_bits(out, fmt, [(nan | above | below, fmt.nan_bits)])
    minus = 1 << fmt.width - 1 | fmt.infinity_bits
    return _with_bits(out, fmt, [(nan, fmt.nan_bits), (above, fmt.infinity_bits), (below, minus)])


def decode(x: Tensor) -> Tensor:
    """The values of a tensor of a format's dtype, exactly, as float32."""
    if x.dtype == torch.float8_e5m2:  # the upper half of float16
        return (x.view(torch.uint8).to(torch.int16) << 8).view(torch.float16).to(torch.float32)
    if x.dtype == torch.float8_e4m3fn:  # float16's fields, biased by 8 more
        bits = (x.view(torch.int8).to(torch.int16) << 7) & ~(1 << 14)
        values = bits.view(torch.float16).to(torch.float32).mul_(2.0 ** 8)
        if _largest_magnitude(values) > max_finite(E4M3):
            values.masked_fill_(values.abs() > max_finite(E4M3), math.nan)
        return values
    return x.to(torch.float32)


def quantize(x: Tensor, format: str | Format, overflow: str = "saturate") -> Tensor:
    """Convert a float tensor to a number format, by one rounding to nearest even.

    Parameters
    ----------
    x : Tensor
        Any float dtype, shape and layout, on the CPU; not changed.
    format : str or Format
        ``"e4m3"``, ``"e5m2"``, ``"fp16"``, ``"bf16"`` or ``"fp32"``.
    overflow : str
        ``"saturate"``: overflow and Inf become the largest finite value of that sign, NaN stays
        NaN. ``"overflow"``: overflow and Inf give Inf, in e4m3 NaN.

    Returns
    -------
    Tensor
        A new tensor in the format's torch dtype, same shape. Not differentiable.

    Numerics
    --------
    Subnormals are honoured, the sign of zero is kept, NaN becomes the canonical NaN. A float64
    input is rounded once, not through float32.

    Raises
    ------
    UsageError
        The format or mode is unknown, or ``x`` is not a float tensor on the CPU.
    """
    fmt = checked_format(format)
    checked_overflow(overflow)
    x = _carrier(checked_tensor(x, "x"))
    return encode(round_grid(x, fmt), fmt, overflow, sign=x)


def to_bits(x: Tensor) -> Tensor:
    """The bit patterns of a tensor of a format's dtype, as non-negative int64."""
    fmt = _FORMATS[x.dtype]
    return x.view(_BIT_VIEWS[fmt.width]).to(torch.int64) & ((1 << fmt.width) - 1)


def from_bits(bits: Tensor, format: str | Format) -> Tensor:
    """The tensor of a format's dtype with these bit patterns (integers below 2^width)."""
    fmt = lookup(format)
    return bits.to(_BIT_VIEWS[fmt.width]).view(torch_dtype(fmt))


class Operand(NamedTuple):
    """An operand of a product: its exact values, and what the conversion met."""

    values: Tensor
    """float64, on the grid of its format; NaN and Inf included; the sign of zero is arbitrary."""
    finite: bool
    """Whether no element is NaN or Inf."""
    saturations: int
    """Elements that overflowed and were clamped to the largest finite value."""
    windows: Tensor | None = None
    """`masks.NonZeros.windows` along K, of A's rows or B's columns, where the conversion has
    counted them."""
    weights: Tensor | None = None
    """float64, 2^exponent of each element as rule N4 has it, block scales included; 0 of zeros, Inf
    and NaN. None: there are no scales, and the values say it all."""


def operand(x: Tensor, fmt: Format, *, by_columns: bool = False) -> Operand:
    """Take an operand bit for bit when its dtype is the format's, else convert it.

    The conversion saturates to the 8-bit formats and overflows to the rest (docs/numerics.md).
    ``by_columns``: lay the values out column by column, as the right factor of a float64 product
    is read fastest, and count along columns (``windows``).
    """
    found = _compiled(x, fmt, by_columns)
    if found is not None:
        return found
    if x.dtype == torch_dtype(fmt):
        values = decode(x)
        return Operand(_wide(values, by_columns), _largest_magnitude(values) < math.inf, 0)
    x = _carrier(x)
    grid, largest = _wide(round_grid(x, fmt), by_columns), max_finite(fmt)
    if _largest_magnitude(x) <= largest:
        return Operand(grid, True, 0)
    beyond = grid.abs() > largest
    clamped = fmt.width == 8
    grid.masked_fill_(beyond & (grid > 0), largest if clamped else math.inf)
    grid.masked_fill_(beyond & (grid < 0), -largest if clamped else -math.inf)
    return Operand(grid, _largest_magnitude(grid) <= largest, int(beyond.sum()) if clamped else 0)


def _compiled(x: Tensor, fmt: Format, by_columns: bool) -> Operand | None:
    """`operand` in one pass over the elements; None where the kernels do not do it."""
    is_own = x.dtype == torch_dtype(fmt)
    if x.dim() not in (2, 3) or x.dtype == torch.float64 or kernels.library() is None:
        return None
    turned = x.mT if by_columns else x
    kind, largest, beyond = kernels.GRID, max_finite(fmt), math.inf
    if is_own:
        kind, largest = kernels.AS_IT_IS, math.inf
    elif fmt is FP32:
        kind = kernels.AS_IT_IS
    elif fmt is BF16:
        kind = kernels.UPPER_HALF
    elif fmt.width == 8:
        beyond = largest
    table = _codes(fmt) if is_own and fmt.width == 8 else None
    found = kernels.convert(
        _carrier(turned) if table is None else turned.view(torch.uint8), kind=kind,
        largest=largest, beyond=beyond, mantissa_width=fmt.mantissa_width,
        min_exponent=fmt.min_exponent, max_exponent=min(fmt.max_exponent, 126), table=table)
    if found is None:
        return None
    return Operand(found.values.mT if by_columns else found.values, not found.special,
                   found.saturated if fmt.width == 8 else 0,
                   found.counts)


@lru_cache
def _codes(fmt: Format) -> Tensor:
    """float32 [256]: the value of each code of an 8-bit format."""
    return decode(from_bits(torch.arange(256), fmt))


def _wide(grid: Tensor, by_columns: bool) -> Tensor:
    """As float64, in its own layout or column by column; small ones are not worth the turning."""
    if by_columns and grid.numel() >= _WORTH_TURNING:
        return grid.mT.contiguous().to(torch.float64).mT
    return grid.to(torch.float64)


def checked_format(format: str | Format) -> Format:
    """The format called ``format``; UsageError names the legal ones and the nearest."""
    try:
        return lookup(format)
    except ValueError as error:
        raise UsageError("X203", f"{error}{nearest(str(format).lower(), FORMATS)}") from None


def checked_overflow(overflow: str) -> str:
    """``overflow`` if it is a mode of conversion; UsageError otherwise."""
    if overflow not in OVERFLOW_MODES:
        raise UsageError("X206", f"overflow is one of {', '.join(OVERFLOW_MODES)}; "
                                 f"got {overflow!r}{nearest(overflow, OVERFLOW_MODES)}")
    return overflow


def checked_tensor(x: Tensor, name: str) -> Tensor:
    """``x`` detached, if it is a dense float tensor on the CPU; UsageError otherwise."""
    if not isinstance(x, Tensor):
        raise UsageError("X202", f"{name} is a torch tensor; got {type(x).__name__}")
    if x.device.type != "cpu":
        raise UsageError("X202", f"{name} is on {x.device}; operands live on the CPU",
                         f"pass {name}.cpu()")
    if x.layout != torch.strided:
        raise UsageError("X202", f"{name} has layout {x.layout}; operands are dense",
                         f"pass {name}.to_dense()")
    if x.dtype != torch.float64 and x.dtype not in _FORMATS:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in _FORMATS)
        raise UsageError("X202", f"{name} is {str(x.dtype).removeprefix('torch.')}; "
                                 f"an operand is one of {names}, float64")
    if _SMALLEST * 1.0 == 0.0:
        raise UsageError("X216", "this thread flushes subnormals to zero; here they count",
                         "call torch.set_flush_denormal(False)")
    return x.detach().resolve_neg()


def _carrier(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else decode(x)


def _largest_magnitude(x: Tensor) -> float:
    """Largest |x|; NaN if there is a NaN, 0 when empty."""
    if not x.numel():
        return 0.0
    low, high = torch.aminmax(x)
    return max(-low.item(), high.item())


def _narrow(grid: Tensor, fmt: Format) -> Tensor:
    """Exact conversion of finite values on the grid."""
    return grid.to(torch.float32).to(torch_dtype(fmt))


def _with_bits(out: Tensor, fmt: Format, patterns: list[tuple[Tensor, int]]) -> Tensor:
    """``out`` with these bit patterns where the masks say so, in place."""
    bits = out.view(_BIT_VIEWS[fmt.width])
    for mask, pattern in patterns:
        bits.masked_fill_(mask, from_bits(torch.tensor(pattern), fmt).view(bits.dtype))
    return out
