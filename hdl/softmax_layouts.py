"""Payload layouts of the softmax unit's streams, outer and inner."""

from amaranth.hdl import signed
from amaranth.lib import data

from .formats import FormatCode
from .softmax_tables import BIN_WIDTH, INTEGER_WIDTH, VALUE_WIDTH

__all__ = ["KEY_WIDTH", "TERM_WIDTH", "Power", "RowScale", "SoftmaxOperation", "power_beat",
           "row_beat", "row_sum", "sum_width"]

SoftmaxOperation = data.StructLayout({"format": FormatCode, "result": FormatCode, "rows": 16})
"""``rows`` rows (at least 1) of elements of ``format``, to probabilities of format ``result``."""

Power = data.StructLayout({"value": VALUE_WIDTH, "octave": signed(INTEGER_WIDTH)})
"""e^x = value * 2^(octave - 17); ``value`` is 0 for an element that does not count."""

TERM_WIDTH = VALUE_WIDTH + (1 << BIN_WIDTH) - 1
"""Bits of a power aligned to its bin."""

KEY_WIDTH = INTEGER_WIDTH - BIN_WIDTH + 1
"""Bits of a bin's key: its number, offset so that keys are unsigned, under a one; 0 for no bin."""

RowScale = data.StructLayout({
    "reciprocal": VALUE_WIDTH, "exponent": signed(INTEGER_WIDTH + 2), "undefined": 1,
    "result": FormatCode,
})
"""What makes a row's powers probabilities: p = value * reciprocal * 2^(octave - exponent).

``undefined``: every element is NaN.
"""


def row_beat(lanes):
    """Up to ``lanes`` elements of a row, right-aligned in 32 bits, the first in lane 0.

    ``count``: how many there are; all but a row's ``last`` beat are full. Lanes from ``count`` on
    mean nothing. A row of no elements is one last beat with none.
    """
    return data.StructLayout({
        "elements": data.ArrayLayout(32, lanes), "count": range(lanes + 1), "last": 1})


def power_beat(lanes):
    """A beat's powers, on their way to the buffer and to the sum.

    ``undefined``: it holds a NaN or a +Inf. ``result``: format of the row's probabilities.
    """
    return data.StructLayout({
        "powers": data.ArrayLayout(Power, lanes), "count": range(lanes + 1), "last": 1,
        "undefined": 1, "result": FormatCode})


def sum_width(terms):
    """Bits of a sum of that many terms in one bin."""
    return TERM_WIDTH + (terms - 1).bit_length()


def row_sum(max_length):
    """The sum of a row over its two highest bins; ``key`` is that of the higher."""
    return data.StructLayout({
        "sum": sum_width(max_length) + (1 << BIN_WIDTH), "key": KEY_WIDTH, "undefined": 1,
        "result": FormatCode})
