"""What the parameters of a VPCU imply: frames, widths, places and latencies (docs/vpcu.md)."""

from dataclasses import dataclass
from functools import cached_property

from amaranth.hdl import signed
from amaranth.lib import data, enum

from .formats import Format, lookup
from .multiplier import MULTIPLIER_LATENCY

__all__ = ["DECODE_LATENCY", "LANE_LATENCY", "OPERAND_LATENCY", "ROUND_LATENCY", "SCALE_BLOCKS",
           "TARGETS", "Geometry", "Kind"]

DECODE_LATENCY = 4
"""Cycles from a value to its operand: fields, distance to the anchor, fine shift."""

OPERAND_LATENCY = DECODE_LATENCY + 2
"""Cycles from the issue of an element of A to the multipliers' ports: scale, decode, broadcast."""

LANE_LATENCY = MULTIPLIER_LATENCY + 4
"""Cycles from the operands to the sum: multiply, align in two steps, add, wait for the carry."""

ROUND_LATENCY = 21
"""Cycles from a sum to its rounded result."""

SCALE_BLOCKS = (0, 16, 32, 64)
"""Elements along K that share a block scale; 0: no scales. OCP MX has 32."""

TARGETS = ("generic", "ecp5")
"""What the multipliers, adders and memories are made of: inferred, or an ECP5's primitives."""


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
    scale_block : int
        Elements along K that share a power-of-two scale: 0 (there are no scales), 16, 32 or 64.
    target : str
        ``"generic"`` or ``"ecp5"``: same ports, same cycles, other primitives.

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
    scale_block: int = 0
    target: str = "generic"

    def __post_init__(self):
        for name in ("lanes", "accumulator_width", "max_k", "b_depth", "drains", "scale_block"):
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
        if self.scale_block not in SCALE_BLOCKS:
            raise ValueError(f"scale_block is one of {SCALE_BLOCKS}; got {self.scale_block}")
        if self.target not in TARGETS:
            raise ValueError(f"target is one of {TARGETS}; got {self.target!r}")
        least = 2 * max(f.significand_width for f in self.formats) + 1 + self.headroom
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
    def is_integer(self):
        """Whether values are integers of one multiplier, and the window holds all their products.

        So it is for e4m3 alone: 448 / 2^-9 < 2^18. Nothing is left to align, nothing is lost.
        """
        width = max(f.max_exponent - f.min_exponent + f.significand_width for f in self.formats)
        return (not self.scale_block and width <= 18
                and self.accumulator_width >= 2 * width + 1 + self.headroom)

    @cached_property
    def has_infinity(self):
        """Whether an operand can be infinite: E4M3 knows none."""
        return any(f.ieee for f in self.formats)

    @cached_property
    def frame(self):
        """Bits of an operand without its fine shift.

        The longest significand; for fp32 one more, so that with the fine shift it has 32 bits,
        two halves of whole bytes. Shorter significands are the upper bits.
        """
        return max(f.significand_width + (f.width == 32) for f in self.formats)

    @cached_property
    def fine(self):
        """Places of the fine shift, which the multiplier does: to bytes, or all if `is_integer`."""
        return (max(f.max_exponent - f.min_exponent for f in self.formats)
                if self.is_integer else 7)

    @cached_property
    def multiplier_width(self):
        """Bits of a factor: a narrow operand, or half of a wide one and 2 zeros below."""
        narrow = [f.significand_width + self.fine for f in self.formats if f.width <= 16]
        return max([*narrow, 18]) if self.is_wide else max(narrow)

    @cached_property
    def lower_width(self):
        """Bits of the lower half of a sum: the upper one is added later (`Accumulate`)."""
        return self.accumulator_width // 2

    @cached_property
    def magnitude_width(self):
        """Bits of an aligned product: the window without the headroom and the sign."""
        return self.accumulator_width - 1 - self.headroom

    @cached_property
    def product_place(self):
        """Place in the window of the lowest bit of a product's 2 * multiplier_width bits, group 0.

        The operands of such a product have no fine shift (of integers: all of it), so that the
        product ends below the headroom.
        """
        reach = self.multiplier_width if self.is_integer else self.multiplier_width - self.fine
        return self.magnitude_width - 2 * reach

    @cached_property
    def group_max(self):
        """Largest byte group told apart: from there on nothing of a product is in the window."""
        if self.is_integer:
            return 0
        beyond = -(-(self.product_place + 2 * self.multiplier_width - self.fine) // 8)
        if self.scale_block:
            return beyond
        octaves = max(f.max_exponent - f.min_exponent for f in self.formats)
        return min(-(-octaves // 8), beyond)

    @cached_property
    def slot_group_max(self):
        """As `group_max`, with the 4 bytes that a low half lies below the high one."""
        return self.group_max + (4 if self.is_wide else 0)

    @cached_property
    def anchor_shape(self):
        """Shape of an anchor: any exponent of an enabled format, less that of a block's scale."""
        magnitude = max(max(f.max_exponent, -f.min_exponent) for f in self.formats)
        return signed((magnitude + (254 if self.scale_block else 0)).bit_length() + 1)

    def operand(self, width, group_max):
        """Layout of a decoded operand: (-1)^negative * significand * 256^-group.

        In units of 2^(anchor + 1 - frame); ``width`` is frame + fine.
        """
        return data.StructLayout({
            "significand": width, "group": range(group_max + 1), "negative": 1, "kind": Kind,
        })

    @cached_property
    def slot(self):
        """Layout of one of the four factors that a lane keeps of a word of B."""
        return self.operand(self.multiplier_width, self.slot_group_max)

    @cached_property
    def drained(self):
        """Layout of a finished sum on its way to the rounder."""
        return data.StructLayout({
            "sum": self.accumulator_width,
            "nan": 1, "positive_infinity": 1, "negative_infinity": 1, "lost": 1,
        })
