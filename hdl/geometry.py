"""What the parameters of a VPCU imply: frames, widths, places and latencies (docs/vpcu.md)."""

from dataclasses import dataclass
from functools import cached_property

from amaranth.hdl import signed
from amaranth.lib import data, enum

from .formats import Format, lookup
from .multiplier import MULTIPLIER_LATENCY

__all__ = ["DECODE_LATENCY", "LANE_LATENCY", "ROUND_LATENCY", "Geometry", "Kind"]

DECODE_LATENCY = 2
"""Cycles from a value to its operand."""

LANE_LATENCY = MULTIPLIER_LATENCY + 4
"""Cycles from an operand to the accumulator: multiply, combine, align, negate, add."""

ROUND_LATENCY = 5
"""Cycles from a sum to its rounded result."""


class Kind(enum.Enum, shape=2):
    """What an operand is; only finite non-zero ones contribute product bits."""

    ZERO = 0
    FINITE = 1
    INFINITE = 2
    NAN = 3


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The parameters of a VPCU, checked, and the widths that follow from them.

    Parameters
    ----------
    lanes : int
        Lanes of four multipliers, 1 to 64.
    formats : sequence of Format or str
        Number formats that operands may have, at least one.
    accumulator_width : int
        Bits W of the window (rule N4); at least what the largest product takes.
    max_k : int
        Longest sum: a power of two, 64 to 32768.
    b_depth : int
        Rows of one of the two banks of B: a power of two, 64 to ``max_k``.
    drains : int
        Results drained per cycle: 1.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not an int, or not a legal one.
    """

    lanes: int
    formats: tuple[Format, ...]
    accumulator_width: int
    max_k: int
    b_depth: int
    drains: int = 1

    def __post_init__(self):
        for name in ("lanes", "accumulator_width", "max_k", "b_depth", "drains"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} is an int; got {value!r}")
        if isinstance(self.formats, str):
            raise TypeError(f"formats is a sequence of formats; got {self.formats!r}")
        object.__setattr__(self, "formats", tuple(dict.fromkeys(map(lookup, self.formats))))
        if not self.formats:
            raise ValueError("formats names at least one number format; got none")
        if not 1 <= self.lanes <= 64:
            raise ValueError(f"lanes is 1 to 64; got {self.lanes}")
        if not 64 <= self.max_k <= 32768 or self.max_k & (self.max_k - 1):
            raise ValueError(f"max_k is a power of two from 64 to 32768; got {self.max_k}")
        if not 64 <= self.b_depth <= self.max_k or self.b_depth & (self.b_depth - 1):
            raise ValueError(f"b_depth is a power of two from 64 to max_k ({self.max_k}); "
                             f"got {self.b_depth}")
        if self.drains != 1:
            raise ValueError(f"drains is 1; got {self.drains}")
        least = 2 * self.frame + 1 + self.headroom
        if not least <= self.accumulator_width <= 512:
            raise ValueError(f"accumulator_width is {least} (the largest product and max_k of "
                             f"them) to 512; got {self.accumulator_width}")

    @cached_property
    def headroom(self):
        """Bits above the largest product, for ``max_k`` of them."""
        return self.max_k.bit_length() - 1

    @cached_property
    def is_wide(self):
        """Whether fp32 is enabled: four multipliers can join in one product."""
        return any(f.width == 32 for f in self.formats)

    @cached_property
    def narrow_frame(self):
        """Bits of a significand where both formats are 8 or 16 bits wide (0: there is none)."""
        return max((f.significand_width for f in self.formats if f.width <= 16), default=0)

    @cached_property
    def frame(self):
        """Bits of a significand, whatever the formats; narrow ones are its upper bits."""
        return max(f.significand_width for f in self.formats)

    @cached_property
    def columns(self):
        """Columns of a lane: four, or one if every product takes the four multipliers."""
        return 4 if self.narrow_frame else 1

    @cached_property
    def multiplier_width(self):
        """Bits of a factor: a narrow operand, or half of a wide one."""
        narrow = self.narrow_frame + 7 if self.narrow_frame else 0
        return max(narrow, 16 if self.is_wide else 0)

    @cached_property
    def product_top(self):
        """Place above the product field of two operands of group 0, in the window.

        Both operands of such a product have no fine shift, so the upper 14 bits of the field are
        zero: after alignment every product is below 2^(W - 1 - headroom).
        """
        return self.accumulator_width + 13 - self.headroom

    @cached_property
    def group_max(self):
        """Largest byte group told apart: from there on nothing of a product is in the window."""
        octaves = max(f.max_exponent - f.min_exponent for f in self.formats)
        return min(-(-octaves // 8), -(-(self.accumulator_width + 6 - self.headroom) // 8))

    @cached_property
    def anchor_shape(self):
        """Shape of an anchor: any exponent of an enabled format."""
        magnitude = max(max(f.max_exponent, -f.min_exponent) for f in self.formats)
        return signed(magnitude.bit_length() + 1)

    def operand(self, width):
        """Layout of a decoded operand: (-1)^negative * significand * 256^-group.

        In units of 2^(anchor + 1 - frame); ``width`` is frame + 7, for the fine shift.
        """
        return data.StructLayout({
            "significand": width, "group": range(self.group_max + 1), "negative": 1, "kind": Kind,
        })

    @cached_property
    def slot(self):
        """Layout of one of the four factors that a lane keeps of a word of B."""
        return self.operand(self.multiplier_width)

    @cached_property
    def drained(self):
        """Layout of a finished sum on its way to the rounder."""
        return data.StructLayout({
            "sum": signed(self.accumulator_width), "anchor": self.anchor_shape,
            "nan": 1, "positive_infinity": 1, "negative_infinity": 1, "lost": 1,
        })
