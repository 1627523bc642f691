"""Command words of the machine (docs/machine.md), made of Python numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hdl.machine_layouts import COMMAND_WORDS, UNIT_NAMES, Command, Opcode

__all__ = ["MOST_ITEMS", "MOST_ROWS", "Move", "Words", "end", "go", "halt", "number", "unit_number",
           "wait"]

Words = NDArray[np.uint64]

MOST_ROWS = (1 << 16) - 1
"""Rows, or elements of one, of a MOVE of elements."""

MOST_ITEMS = (1 << 32) - 1
"""Items of a MOVE of words."""

_FIELDS = {name: (field.offset, (1 << Command[name].width) - 1) for name, field in Command}


def number(member: Any) -> int:
    """The number of a member of one of the gateware's enumerations, which have no types."""
    return int(member.value)


@dataclass(frozen=True, kw_only=True)
class Move:
    """Work for a channel's mover.

    Parameters
    ----------
    channel : int
    address : int
        Of the first byte.
    inner, outer : int
        Elements of a row, and rows; of words see `words`.
    size : int
        An element has 2^size bytes.
    step, stride : int
        Bytes from an element, and from the first one of a row, to the next.
    drop : int
        Results to be dropped behind each row.
    more : bool
        The stream goes on with another one.
    with_q, with_t : bool
        Elements of x come with those of q, of t.
    """

    channel: int
    address: int
    inner: int
    outer: int
    size: int = 0
    step: int = 0
    stride: int = 0
    drop: int = 0
    more: bool = False
    with_q: bool = False
    with_t: bool = False

    @classmethod
    def words(cls, channel: int, address: int, items: int, *, more: bool = False) -> "Move":
        """Of so many items that lie in consecutive words."""
        return cls(channel=channel, address=address, inner=items & MOST_ROWS, outer=items >> 16,
                   more=more)

    def encode(self) -> Words:
        """The command's words."""
        return _words(
            opcode=number(Opcode.MOVE), channel=self.channel, size=self.size, more=self.more,
            with_q=self.with_q, with_t=self.with_t, mask=self.drop, address=self.address,
            step=self.step, inner=self.inner, outer=self.outer, stride=self.stride)


def end() -> Words:
    """The list is done."""
    return _words(opcode=number(Opcode.END))


def wait(channels: Iterable[int]) -> Words:
    """Until none of the channels' movers is busy."""
    return _words(opcode=number(Opcode.WAIT), mask=_mask(channels))


def go(unit: str, *, keep: bool = False) -> Words:
    """Set a unit going; with ``keep`` its counts go on where they are."""
    return _words(opcode=number(Opcode.GO), mask=_mask([unit_number(unit)]), more=keep)


def halt(unit: str) -> Words:
    """Freeze a unit."""
    return _words(opcode=number(Opcode.HALT), mask=_mask([unit_number(unit)]))


def unit_number(unit: str) -> int:
    """The number of the unit of that name."""
    return UNIT_NAMES.index(unit)


def _mask(bits: Iterable[int]) -> int:
    return sum(1 << bit for bit in bits)


def _words(**values: int) -> Words:
    packed = 0
    for name, value in values.items():
        offset, most = _FIELDS[name]
        if name in ("step", "stride"):
            value &= most
        assert 0 <= value <= most, f"{name} is 0 to {most}; got {value}"
        packed |= int(value) << offset
    return np.frombuffer(packed.to_bytes(8 * COMMAND_WORDS, "little"), "<u8")
