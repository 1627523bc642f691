"""The drain: finished sums leave the lanes column by column, on their way to the rounder."""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .accumulate import Accumulate
from .arithmetic import register, register_like
from .formats import FormatCode
from .lane import COLUMNS
from .loader import anchor_address
from .ram import RAM_LATENCY
from .rounder import WEIGHT, exact_sum

__all__ = ["DRAIN_LATENCY", "Drain", "captured"]

DRAIN_LATENCY = 5
"""Cycles from ``capture`` to the first column's sum: capture, two in the lane, add by halves."""


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
    selected : Out(1)
        Column 0 of lane 0 is to leave, and all others after it.
    sums : In(geometry.drained)
        What the lanes drain: the first one two cycles after ``selected``, and the upper half of its
        sum a cycle later.
    anchor_address : Out(anchor_address(geometry))
        Tile number and lane.
    anchors : In(ArrayLayout(geometry.anchor_shape, 4))
        Column anchors there, two cycles later.
    o : Out(stream of exact_sum(accumulator_width), always ready)
        Sums.

    Timing
    ------
    The sum of column n leaves ``DRAIN_LATENCY`` (5) + n cycles after ``capture``. The next
    ``capture`` is 4 * lanes cycles after it, or later.
    """

    def __init__(self, *, geometry):
        self.geometry = geometry
        super().__init__({
            "capture": In(1),
            "row": In(captured),
            "selected": Out(1),
            "sums": In(geometry.drained),
            "anchor_address": Out(anchor_address(geometry)),
            "anchors": In(data.ArrayLayout(geometry.anchor_shape, COLUMNS)),
            "o": Out(stream.Signature(exact_sum(geometry.accumulator_width), always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        lanes = self.geometry.lanes
        place = data.StructLayout({
            "valid": 1, "column": range(COLUMNS), "lane": range(lanes), "last": 1})

        # Count the columns; one bit goes from accumulator to accumulator.
        s1_row = register(captured)
        s1_place = Signal(place)
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
        m.d.sync += self.selected.eq(self.capture)

        places, rows = [s1_place], [s1_row]
        for number in range(2, DRAIN_LATENCY + 1):
            following = Signal(place, name=f"s{number}_place")
            row = register(captured, name=f"s{number}_row")
            m.d.sync += [following.eq(places[-1]), row.eq(rows[-1])]
            places.append(following)
            rows.append(row)
        total = self._add(m, self.sums, places[1], rows[1])
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
        geometry, half = self.geometry, self.geometry.lower_width
        total = register(geometry.drained)
        begins = register()
        s1_begins = register()
        carry = register()
        flags = ("nan", "positive_infinity", "negative_infinity", "lost")
        m.d.sync += [begins.eq(~row.wide | (place.column == 0) if geometry.is_wide else 1),
                     s1_begins.eq(begins)]
        for name in flags:
            m.d.sync += total[name].eq((total[name] & ~begins) | sums[name])
        for name, part, clear, carried in (("lower", slice(0, half), begins, 0),
                                           ("upper", slice(half, None), s1_begins, carry)):
            if not geometry.is_wide:
                m.d.sync += total.sum[part].eq(sums.sum[part])
                continue
            width = len(total.sum[part])
            m.submodules[name] = adder = Accumulate(
                width=width, magnitude_width=width, target=geometry.target)
            m.d.comb += [adder.sum.eq(total.sum[part]), adder.clear.eq(clear),
                         adder.magnitude.eq(sums.sum[part]), adder.carry.eq(carried)]
            m.d.sync += total.sum[part].eq(adder.o)
            if name == "lower":
                m.d.sync += carry.eq(adder.o[-1])

        # Both halves at once again.
        whole = register(geometry.drained)
        m.d.sync += [whole.sum[:half].eq(total.sum[:half]),
                     *(whole[name].eq(total[name]) for name in flags)]
        found = Signal(geometry.drained)
        m.d.comb += [found.eq(whole), found.sum[half:].eq(total.sum[half:])]
        return found

    def _anchor(self, m, places, rows):
        """The anchor of the column whose sum is on the way to the rounder."""
        anchors = register_like(self.anchors)
        anchor = register(self.geometry.anchor_shape)
        column = Mux(rows[RAM_LATENCY + 1].wide, 0, places[RAM_LATENCY + 1].column)
        m.d.sync += [anchors.eq(self.anchors), anchor.eq(anchors[column])]
        return anchor
