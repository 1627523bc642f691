"""The number formats, described once; gateware, golden model, generator and host derive from here.

Source: OCP 8-bit Floating Point Specification (OFP8) 1.0, table 1, for e4m3 and e5m2;
IEEE 754-2019, table 3.5, for fp16 and fp32; bf16 is the upper half of fp32.
"""

from dataclasses import dataclass
from types import MappingProxyType

from amaranth.lib import enum

__all__ = ["BF16", "E4M3", "E5M2", "FORMATS", "FP16", "FP32", "Format", "FormatCode", "lookup"]


class FormatCode(enum.Enum, shape=3):
    """How an operation names a format in a command."""

    E4M3 = 0
    E5M2 = 1
    FP16 = 2
    BF16 = 3
    FP32 = 4


@dataclass(frozen=True, kw_only=True)
class Format:
    """One binary floating-point format: sign, biased exponent, mantissa (high to low).

    A value with biased exponent E and mantissa T is
    (-1)^s * 2^(max(E, 1) - bias) * ((E != 0) + T / 2^mantissa_width): subnormals always count.

    Parameters
    ----------
    name : str
        The name used in configurations, options and messages.
    code : FormatCode
        The name used in commands.
    exponent_width, mantissa_width : int
        Bits of the stored exponent and of the stored mantissa (without the hidden bit).
    bias : int
        Exponent bias.
    ieee : bool
        True: the top exponent holds infinity and NaN. False: OFP8's E4M3 rule, no infinity, and
        only the all-ones magnitude is NaN.
    torch_name : str
        Name of the dtype in torch.
    """

    name: str
    code: FormatCode
    exponent_width: int
    mantissa_width: int
    bias: int
    ieee: bool
    torch_name: str

    @property
    def width(self) -> int:
        """Bits of a value."""
        return 1 + self.exponent_width + self.mantissa_width

    @property
    def significand_width(self) -> int:
        """Bits of the significand, the hidden bit included."""
        return self.mantissa_width + 1

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal number, and of every subnormal."""
        return 1 - self.bias

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest finite number."""
        return (1 << self.exponent_width) - 1 - self.bias - self.ieee

    @property
    def max_finite_bits(self) -> int:
        """Bits of the largest finite number."""
        return (self.infinity_bits if self.ieee else self.nan_bits) - 1

    @property
    def infinity_bits(self) -> int:
        """Bits of +Inf (IEEE-like formats only)."""
        if not self.ieee:
            raise ValueError(f"{self.name} has no infinity")
        return ((1 << self.exponent_width) - 1) << self.mantissa_width

    @property
    def nan_bits(self) -> int:
        """Bits of the canonical NaN: quiet, positive, no payload (0x7FC00000 in fp32)."""
        if self.ieee:
            return self.infinity_bits | 1 << (self.mantissa_width - 1)
        return (1 << (self.width - 1)) - 1

    @property
    def is_wide(self) -> bool:
        """Whether products span too many octaves for a fixed window (rule N4): it is anchored."""
        return self.exponent_width > 5


E4M3 = Format(name="e4m3", code=FormatCode.E4M3, exponent_width=4, mantissa_width=3, bias=7,
              ieee=False, torch_name="float8_e4m3fn")
E5M2 = Format(name="e5m2", code=FormatCode.E5M2, exponent_width=5, mantissa_width=2, bias=15,
              ieee=True, torch_name="float8_e5m2")
FP16 = Format(name="fp16", code=FormatCode.FP16, exponent_width=5, mantissa_width=10, bias=15,
              ieee=True, torch_name="float16")
BF16 = Format(name="bf16", code=FormatCode.BF16, exponent_width=8, mantissa_width=7, bias=127,
              ieee=True, torch_name="bfloat16")
FP32 = Format(name="fp32", code=FormatCode.FP32, exponent_width=8, mantissa_width=23, bias=127,
              ieee=True, torch_name="float32")

FORMATS = MappingProxyType({f.name: f for f in (E4M3, E5M2, FP16, BF16, FP32)})


def lookup(name: str | Format) -> Format:
    """The format called ``name``; ValueError names the legal ones."""
    if isinstance(name, Format):
        return name
    try:
        return FORMATS[name]
    except (KeyError, TypeError):
        raise ValueError(
            f"a number format is one of {', '.join(FORMATS)}; got {name!r}") from None
