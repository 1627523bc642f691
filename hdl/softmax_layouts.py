"""Payload layouts of the softmax unit's streams, outer and inner."""

from amaranth.hdl import *
from amaranth.lib import data, memory

from .formats import FormatCode
from .softmax_tables import DISTANCE_WIDTH, OCTAVE_WIDTH

__all__ = ["KEY_WIDTH", "NEVER_AT_ONCE", "SoftmaxOperation", "fixed_width", "number", "power",
           "row_beat", "row_info", "shared_lookups"]

SoftmaxOperation = data.StructLayout({"format": FormatCode, "result": FormatCode, "rows": 16})
"""``rows`` rows (at least 1) of elements of ``format``, to probabilities of format ``result``."""

NEVER_AT_ONCE = {"no_rw_check": 1}
"""Attributes of a memory of which no word is read while it is written: for that Yosys would add
logic otherwise."""

KEY_WIDTH = 32
"""Bits of a key: an element's bits, left-aligned. Keys of one format compare by magnitude."""


def row_beat(lanes):
    """Up to ``lanes`` elements of a row, right-aligned in 32 bits, the first in lane 0.

    ``count``: how many there are; all but a row's ``last`` beat are full. Lanes from ``count`` on
    mean nothing. A row of no elements is one last beat with none.
    """
    return data.StructLayout({
        "elements": data.ArrayLayout(32, lanes), "count": range(lanes + 1), "last": 1})


def fixed_width(value_width):
    """Bits of a logit's magnitude in fixed point, modulo 2^DISTANCE_WIDTH."""
    return DISTANCE_WIDTH + value_width


def number(value_width):
    """A logit: its key, and its magnitude in units of 2^-value_width."""
    return data.StructLayout({"key": KEY_WIDTH, "fixed": fixed_width(value_width)})


def power(value_width):
    """e^-distance = value * 2^(1 - value_width - octave)."""
    return data.StructLayout({"value": value_width, "octave": OCTAVE_WIDTH})


def row_info(lanes, max_beats):
    """A row between the passes: its largest key, formats, beats less one, elements of the last."""
    return data.StructLayout({
        "key": KEY_WIDTH, "format": FormatCode, "result": FormatCode, "beats": range(max_beats),
        "count": range(lanes + 1)})


def shared_lookups(m, name, contents, width, addresses):
    """What a table holds at each of ``addresses``, a cycle later: one memory for two of them.

    Two, since a block RAM has two ports.
    """
    found = []
    for number in range(0, len(addresses), 2):
        m.submodules[f"{name}{number // 2}"] = table = memory.Memory(
            shape=unsigned(width), depth=len(contents), init=contents)
        for address in addresses[number:number + 2]:
            port = table.read_port()
            m.d.comb += port.addr.eq(address)
            found.append(port.data)
    return found
