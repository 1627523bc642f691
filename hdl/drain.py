"""The drain: finished sums leave the lanes column by column, on their way to the rounder."""

from functools import reduce
from operator import or_

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .accumulate import Accumulate
from .formats import FormatCode
from .lane import COLUMNS
from .loader import anchor_address
from .ram import RAM_LATENCY
from .rounder import WEIGHT, exact_sum

__all__ = ["Drain", "captured", "drain_latency"]

PAIRS = 4  # partial results of two accumulators each that one cycle brings together


def levels(lanes):
    """Steps that bring a column's sum out of the lanes: each ors `PAIRS` of those before."""
    count = 1
    while PAIRS ** count < lanes * COLUMNS // 2:
        count += 1
    return count


def drain_latency(lanes):
    """Cycles from ``capture`` to the first column's sum: select, or, add."""
    return 3 + levels(lanes)


captured = data.StructLayout({
    "number": 2, "wide": 1, "weight": WEIGHT, "result": FormatCode, "saturate": 1, "last": 1,
})
"""What is known of a row's sums: their tile's number, the weight but for the column's anchor, how
to round them, and whether they are the operation's last."""


class Drain(wiring.Component):
    """Hands the sums of a row to the rounder, one column per cycle.

    In fp32 mode a lane's four sums are added to one: results come every fourth cycle.

    Parameters
    ----------
    geometry : Geometry
        Of the VPCU.

    Members
    -------
    capture : In(1)
        The drain registers are taken from the next cycle on.
    row : In(captured)
        About the row that ``capture`` is for.
    drained : In(ArrayLayout(ArrayLayout(geometry.drained, 4), lanes))
        The lanes' drain registers.
    anchor_address : Out(anchor_address(geometry))
        Tile number and lane.
    anchors : In(ArrayLayout(geometry.anchor_shape, 4))
        Column anchors there, two cycles later.
    o : Out(stream of exact_sum(accumulator_width), always ready)
        Sums.

    Timing
    ------
    The sum of column n leaves ``drain_latency(lanes)`` + n cycles after ``capture``. The next
    ``capture`` is 4 * lanes cycles after it, or later.
    """

    def __init__(self, *, geometry):
        self.geometry = geometry
        super().__init__({
            "capture": In(1),
            "row": In(captured),
            "drained": In(data.ArrayLayout(data.ArrayLayout(geometry.drained, COLUMNS),
                                           geometry.lanes)),
            "anchor_address": Out(anchor_address(geometry)),
            "anchors": In(data.ArrayLayout(geometry.anchor_shape, COLUMNS)),
            "o": Out(stream.Signature(exact_sum(geometry.accumulator_width), always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        geometry, lanes = self.geometry, self.geometry.lanes
        place = data.StructLayout({
            "valid": 1, "column": range(COLUMNS), "lane": range(lanes), "last": 1})

        # Count the columns; one bit goes from accumulator to accumulator.
        s1_row, s1_place = Signal(captured), Signal(place)
        ends = s1_place.column == COLUMNS - 1
        m.d.sync += Cat(s1_place.column, s1_place.lane).eq(
            Cat(s1_place.column, s1_place.lane) + 1)
        with m.If(ends & (s1_place.lane == lanes - 1)):
            m.d.sync += s1_place.valid.eq(0)
        with m.If(self.capture):
            m.d.sync += [s1_row.eq(self.row), s1_place.valid.eq(1), s1_place.column.eq(0),
                         s1_place.lane.eq(0)]
        m.d.comb += s1_place.last.eq(s1_row.last & ends & (s1_place.lane == lanes - 1))
        m.d.comb += self.anchor_address.eq(Cat(
            s1_place.lane, Const(0, len(self.anchor_address) - 2 - len(s1_place.lane)),
            s1_row.number))
        s1_selected = Signal(lanes * COLUMNS)
        m.d.sync += s1_selected.eq(Cat(self.capture, s1_selected))

        # And and or: a LUT takes two accumulators, or four partial results; a multiplexer more.
        places, rows = [s1_place], [s1_row]
        for number in range(2, 3 + levels(lanes) + 1):
            following = Signal(place, name=f"s{number}_place")
            row = Signal(captured, name=f"s{number}_row")
            m.d.sync += [following.eq(places[-1]), row.eq(rows[-1])]
            places.append(following)
            rows.append(row)
        width = geometry.drained.size
        sums = [self.drained[lane][column].as_value()
                for lane in range(lanes) for column in range(COLUMNS)]
        partial = []
        for pair in range(0, len(sums), 2):
            first, second = (sums[n] & s1_selected[n].replicate(width) for n in (pair, pair + 1))
            result = Signal(width, name=f"s2_sums_{pair}")
            m.d.sync += result.eq(first | second)
            partial.append(result)
        for level in range(levels(lanes)):
            following = []
            for first in range(0, len(partial), PAIRS):
                result = Signal(width, name=f"s{3 + level}_sums_{first}")
                m.d.sync += result.eq(reduce(or_, partial[first:first + PAIRS]))
                following.append(result)
            partial = following

        total = self._add(m, data.View(geometry.drained, partial[0]), places[-3], rows[-3])
        m.d.comb += self.o.payload.weight.eq(rows[-1].weight + self._anchor(m, places, rows))
        m.d.comb += [
            self.o.valid.eq(places[-1].valid
                            & (~rows[-1].wide | (places[-1].column == COLUMNS - 1))),
            self.o.payload.last.eq(places[-1].last),
            *(self.o.payload[name].eq(rows[-1][name]) for name in ("result", "saturate")),
            *(self.o.payload[name].eq(total[name]) for name in (
                "sum", "nan", "positive_infinity", "negative_infinity", "lost")),
        ]
        return m

    def _add(self, m, sums, place, row):
        """The sums as they come; in fp32 mode, those of a lane added up.

        ``place`` and ``row`` are those of the sums that come next.
        """
        geometry = self.geometry
        total = Signal(geometry.drained)
        if not geometry.is_wide:
            m.d.sync += total.eq(sums)
            return total
        m.submodules.adder = adder = Accumulate(
            width=geometry.accumulator_width, magnitude_width=geometry.accumulator_width,
            target=geometry.target)
        begins = Signal()
        m.d.sync += begins.eq(~row.wide | (place.column == 0))
        m.d.comb += [adder.sum.eq(total.sum), adder.clear.eq(begins),
                     adder.magnitude.eq(sums.sum)]
        m.d.sync += total.sum.eq(adder.o)
        for name in ("nan", "positive_infinity", "negative_infinity", "lost"):
            m.d.sync += total[name].eq((total[name] & ~begins) | sums[name])
        return total

    def _anchor(self, m, places, rows):
        """The anchor of the column whose sum is on the way to the rounder."""
        read, anchors = RAM_LATENCY, self.anchors
        if len(places) > read + 2:  # there is a cycle more than one or two lanes have
            read, anchors = read + 1, Signal.like(self.anchors, name="s4_anchors")
            m.d.sync += anchors.eq(self.anchors)
        anchor = Signal(self.geometry.anchor_shape)
        column = Mux(rows[read].wide, 0, places[read].column)
        m.d.sync += anchor.eq(anchors[column])
        for number in range(read + 2, len(places)):
            following = Signal.like(anchor, name=f"s{number + 1}_anchor")
            m.d.sync += following.eq(anchor)
            anchor = following
        return anchor
