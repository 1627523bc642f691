"""Payload layouts of the softmax unit's streams, outer and inner."""

from amaranth.hdl import *
from amaranth.lib import data, enum

from .formats import FormatCode
from .softmax_tables import DISTANCE_WIDTH, OCTAVE_WIDTH

__all__ = ["KEY_WIDTH", "KIND_WIDTH", "Part", "SoftmaxOperation", "final_sum", "fixed_width",
           "number", "power", "row_beat", "row_info", "row_sum"]


class Part(enum.Enum, shape=2):
    """What becomes of an operation's rows.

    A row that is longer than the buffers goes in three times, in blocks that are rows each: nothing
    but its PROBABILITIES comes out.
    """

    WHOLE = 0
    MAXIMUM = 1
    SUM = 2
    PROBABILITIES = 3


SoftmaxOperation = data.StructLayout({
    "format": FormatCode, "result": FormatCode, "rows": 16, "part": Part, "first": 1})
"""``rows`` rows (at least 1) of elements of ``format``, to probabilities of format ``result``; or
as many blocks of one long row. With ``first`` the MAXIMUM, or the SUM, of a long row begins."""

KEY_WIDTH = 32
"""Bits of a key: an element's bits, left-aligned. Keys of one format compare by magnitude."""

KIND_WIDTH = 2
"""Bits of a key's kind: which width its exponent has (`softmax_input.KINDS`)."""


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
    """e^-distance = value * 2^(1 - value_width - octave), octave = 255 - height."""
    return data.StructLayout({"value": value_width, "height": OCTAVE_WIDTH})


def row_info(lanes, max_beats):
    """A row between the passes: its largest key and that one's kind, format of the results, beats
    less one, elements of the last.

    ``hidden``: it does not come out. ``adds``: it is part of a sum. ``fresh``: the first of it.
    """
    return data.StructLayout({
        "key": KEY_WIDTH, "kind": KIND_WIDTH, "result": FormatCode, "beats": range(max_beats),
        "count": range(lanes + 1), "hidden": 1, "adds": 1, "fresh": 1})


def final_sum(value_width, max_row):
    """A row's sum, (1 + fraction * 2^-value_width) * 2^place; and whether the row is undefined."""
    return data.StructLayout({
        "fraction": value_width, "place": range(max_row.bit_length()), "undefined": 1})


row_sum = data.StructLayout({"log_sum": 32, "maximum": KEY_WIDTH, "undefined": 1})
"""``log_sum``: ln of the sum of e^(x - maximum) over a row, fp32. ``maximum``: its largest element,
a key. ``undefined``: rule S1 makes it NaN; then the other two are NaN and anything."""
