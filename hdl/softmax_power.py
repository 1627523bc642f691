"""Softmax, second pass: numbers become powers of e, and terms of the row's sum (rules S3, S4)."""

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .accumulate import Accumulate
from .arithmetic import delayed, register
from .multiplier import Product
from .softmax_layouts import fixed_width, number, power
from .softmax_maximum import reference
from .softmax_memories import shared_lookups
from .softmax_tables import (
    FAR,
    OCTAVE_WIDTH,
    STEP_WIDTH,
    SUM_GUARD_WIDTH,
    exp_table,
    step_table,
)

__all__ = ["POWER_LATENCY", "TERM_LATENCY", "Powers", "term"]

POWER_LATENCY = 5
TERM_LATENCY = 6

HIGHEST = (1 << OCTAVE_WIDTH) - 1  # the height of octave 0
FINE_WIDTH = 4  # bits of an octave by which a multiplier shifts; a multiplexer takes the others


def term(value_width):
    """A power in units of 2^-(value_width + SUM_GUARD_WIDTH), rounded down, at most 1; and whether
    that is to be rounded up."""
    return data.StructLayout({"value": value_width + SUM_GUARD_WIDTH + 1, "half": 1})


class Distance(wiring.Component):
    """How far a number is below the largest, modulo 2^8, and whether that is all: combinational."""

    def __init__(self, *, value_width, target):
        self.value_width, self.target = value_width, target
        super().__init__({
            "number": In(number(value_width)), "reference": In(reference(value_width)),
            "o": Out(fixed_width(value_width)), "is_near": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        top, width = self.reference, fixed_width(self.value_width)
        negative, magnitude = self.number.key[-1], self.number.key[:-1]
        is_below = Signal()
        m.d.comb += [
            is_below.eq((magnitude < top.bound) | top.unbounded),
            self.is_near.eq(
                Mux(negative ^ top.bound_negative, ~negative, is_below ^ ~negative)),
        ]
        # largest - number, either of which is complemented if it is negative, not negated.
        m.submodules.difference = difference = Accumulate(
            width=width, magnitude_width=width, target=self.target)
        m.d.comb += [
            difference.sum.eq(top.fixed),
            difference.magnitude.eq(self.number.fixed),
            difference.negative.eq(~negative),
            difference.carry.eq(top.negative | ~negative),
            self.o.eq(difference.o),
        ]
        return m


class Powers(wiring.Component):
    """Turns a beat of numbers into powers, e^(number - largest), and into terms of their sum.

    Parameters
    ----------
    lanes : int
        Numbers of a beat.
    entries, value_width : int
        Of the table of e^-x.
    target : str
        Primitives, see ``Accumulate``.

    Members
    -------
    moves : In(1)
        The clock enable of all of this, which primitives need beside it.
    numbers : In(ArrayLayout(number(value_width), lanes)), present : In(lanes)
        A beat, and which of its numbers there are.
    reference : In(reference(value_width))
        Of the largest of its row.
    powers : Out(ArrayLayout(power(value_width), lanes))
        The powers; where there is no number, or it is 128 or more below, the octave is ``FAR``,
        of whose height a single bit is set: the others are reset, without logic.
    terms : Out(ArrayLayout(term(value_width), lanes))
        The terms.

    Timing
    ------
    Latency ``POWER_LATENCY`` (5) and ``TERM_LATENCY`` (6) cycles, one beat per cycle.
    """

    def __init__(self, *, lanes, entries, value_width, target):
        self.lanes, self.entries = lanes, entries
        self.value_width, self.target = value_width, target
        super().__init__({
            "moves": In(1),
            "numbers": In(data.ArrayLayout(number(value_width), lanes)), "present": In(lanes),
            "reference": In(reference(value_width)),
            "powers": Out(data.ArrayLayout(power(value_width), lanes)),
            "terms": Out(data.ArrayLayout(term(value_width), lanes)),
        })

    def elaborate(self, platform):
        m = Module()
        width, table = self.value_width, exp_table(self.entries, self.value_width)
        steps = step_table(self.entries, width)
        step_place = width - STEP_WIDTH  # of a distance
        distances, counts = self._distances(m)

        # e^-distance from its steps of 1/8 ...
        layout = data.StructLayout({
            "rest": width + 1, "height": OCTAVE_WIDTH, "places": 1 << FINE_WIDTH})
        contents = [layout.const({
            "rest": rest, "height": HIGHEST - octave,
            "places": 1 << (~octave & (1 << FINE_WIDTH) - 1),
        }).as_bits() for octave, rest in zip(steps.octaves, steps.rests, strict=True)]
        options = {"target": self.target, "read": self.moves}
        found = shared_lookups(m, "steps", contents, layout.size,
                               [distance[step_place:-1] for distance in distances], **options)
        # ... and the rest of it, from two tables.
        rests, heights, places = [], [], []
        for lane, (distance, entry) in enumerate(zip(distances, found, strict=True)):
            low = delayed(m, distance[:step_place], 2, f"low{lane}")
            step = layout(entry)
            s3_height = register(OCTAVE_WIDTH, name=f"s3_height{lane}")
            m.d.sync += s3_height.eq(step.height)
            with m.If(~counts[lane]):
                m.d.sync += s3_height.eq(HIGHEST - FAR)
            rest = Signal(width + 1, name=f"rest{lane}")
            m.d.comb += rest.eq(step.rest + Cat(Const(0, 1), low))
            rests.append(rest)
            heights.append(s3_height)
            places.append(step.places)
        bases = shared_lookups(m, "bases", table.bases, table.base_width,
                               [rest[table.offset_width:] for rest in rests], **options)
        falls = shared_lookups(m, "falls", table.falls, table.fall_width,
                               [Cat(rest[:table.offset_width],
                                    rest[table.input_width - table.segment_width:])
                                for rest in rests], **options)

        for lane in range(self.lanes):
            s5_value = register(width, name=f"s5_value{lane}")
            s5_height = delayed(m, heights[lane], 2, f"late_height{lane}")
            s6_height = register(OCTAVE_WIDTH, name=f"s6_height{lane}")
            # Its registers are those of the fifth and sixth stage, the former beside s5_value.
            m.submodules[f"product{lane}"] = product = Product(
                a_width=width, b_width=1 << FINE_WIDTH, latency=2, target=self.target)
            value = (bases[lane] - falls[lane])[table.base_width - width:table.base_width]
            m.d.sync += [s5_value.eq(value), s6_height.eq(s5_height)]
            m.d.comb += [
                product.a.eq(value), product.b.eq(delayed(m, places[lane], 2, f"places{lane}")),
                product.enable.eq(self.moves),
                self.powers[lane].value.eq(s5_value),
                self.powers[lane].height.eq(s5_height),
                Cat(self.terms[lane].half, self.terms[lane].value).eq(
                    self._term(product.o, s6_height)),
            ]
        return m

    def _distances(self, m):
        """Each number's distance, and, two cycles later, whether it counts."""
        distances, counts = [], []
        for lane in range(self.lanes):
            m.submodules[f"distance{lane}"] = distance = Distance(
                value_width=self.value_width, target=self.target)
            m.d.comb += [
                distance.number.eq(self.numbers[lane]),
                distance.reference.eq(self.reference),
            ]
            distances.append(distance.o)
            counts.append(delayed(m, distance.is_near & self.present[lane] & ~distance.o[-1],
                                  2, f"counts{lane}"))
        return distances, counts

    def _term(self, product, height):
        """The term over its half: bits of the product, further up for a higher octave."""
        width, reach = term(self.value_width).size, 1 << FINE_WIDTH
        lowest = reach - 1 - SUM_GUARD_WIDTH - 2  # of a product of fraction bits, the half included
        found = Const(0)
        for further in reversed(range(-(-(len(product) - lowest) // reach))):
            bits = product[lowest + reach * further:][:width]
            found = Mux(height[FINE_WIDTH:] == (HIGHEST >> FINE_WIDTH) - further, bits, found)
        return found
