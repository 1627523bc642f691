"""Softmax, second pass: the row's sum, exact in any order, and its leading bits (rule S4)."""

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import add, register, register_like
from .softmax_power import term
from .softmax_tables import SUM_GUARD_WIDTH

__all__ = ["SUM_LATENCY", "RowSum"]

SUM_LATENCY = 3


class RowSum(wiring.Component):
    """Adds up a row's terms and cuts the sum to s * 2^place, s in [1, 2).

    Parameters
    ----------
    lanes : int
        Terms of a beat, a power of two.
    max_length : int
        Longest row, in elements.
    value_width : int
        Fraction bits of s, and as in `term`.

    Members
    -------
    terms : In(ArrayLayout(term(value_width), lanes))
        A beat.
    valid, is_last : In(1)
        It counts; it is its row's last: both 2 cycles after the beat.
    fraction : Out(value_width)
        s less 1 for the row up to this beat, ``SUM_LATENCY`` - 1 cycles after it: combinational, to
        be a memory's address.
    place : Out(range(places))
        The place of the last row that ended, ``SUM_LATENCY`` (3) cycles after its last beat.

    Timing
    ------
    One beat per cycle. The place is looked for beside the addition, in both addends, and then off
    by one at most.

    Numerics
    --------
    Exact: each adder's carry takes one of the terms' halves. s is cut off.
    """

    def __init__(self, *, lanes, max_length, value_width):
        self.lanes, self.max_length = lanes, max_length
        self.value_width = value_width
        self.places = max_length.bit_length()
        super().__init__({
            "terms": In(data.ArrayLayout(term(value_width), lanes)),
            "valid": In(1), "is_last": In(1),
            "fraction": Out(value_width), "place": Out(range(self.places)),
        })

    def elaborate(self, platform):
        m = Module()
        terms = [(self.terms[lane].value, self.terms[lane].half) for lane in range(self.lanes)]
        levels = (self.lanes - 1).bit_length()
        first = max(min(levels, 1), levels - 2)
        for number, count in enumerate((first, levels - first), 1):
            for _ in range(count):
                terms = [(add(a, b, a_half), b_half) for (a, a_half), (b, b_half)
                         in zip(terms[::2], terms[1::2], strict=True)]
            stage = [(register_like(value, name=f"s{number}_value{n}"),
                      register(name=f"s{number}_half{n}"))
                     for n, (value, _) in enumerate(terms)]
            m.d.sync += [Cat(new).eq(Cat(old)) for new, old in zip(stage, terms, strict=True)]
            terms = stage
        (value, half), = terms

        width = self.value_width + SUM_GUARD_WIDTH + self.places
        so_far = Signal(width)
        total = Signal(width)
        m.d.comb += total.eq(add(so_far, value, half))
        with m.If(self.valid):
            m.d.sync += so_far.eq(total)
            with m.If(self.is_last):
                m.d.sync += so_far.eq(0)

        # The leading one of either addend, or of none in a row that is undefined.
        one = self.value_width + SUM_GUARD_WIDTH
        leads = (so_far | value)[one:]
        place = Signal(range(self.places))
        is_above = Signal()
        m.d.comb += is_above.eq(total[one + 1])
        for n in range(1, self.places):
            with m.If(leads[n]):
                m.d.comb += [place.eq(n), is_above.eq(total[one + n + 1:one + n + 2].any())]
        found = total[SUM_GUARD_WIDTH:]
        for n in reversed(range(len(place))):
            following = Signal(min(len(found), self.value_width + 1 + (1 << n)),
                               name=f"found{n}")
            m.d.comb += following.eq(Mux(place[n], found[1 << n:], found))
            found = following
        m.d.comb += self.fraction.eq(Mux(is_above, found[1:], found))
        s3_place = register_like(self.place)
        with m.If(self.valid & self.is_last):
            m.d.sync += s3_place.eq(place + is_above)
        m.d.comb += self.place.eq(s3_place)
        return m
