"""Softmax, second pass: the row's sum, exact in any order, and its leading bits (rule S4)."""

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .accumulate import carry_chain
from .arithmetic import add, any_of, register, register_like
from .gather import Gather
from .softmax_power import term
from .softmax_tables import SUM_GUARD_WIDTH

__all__ = ["SUM_LATENCY", "RowSum", "ScaledAdder"]

SUM_LATENCY = 3

# See `accumulate`: with A = sum, B = value, C = the value further up and D = is_high the addend is
# chosen in the adder itself, and its lowest four entries are A, which is the carry.
_TABLE = sum((a ^ (b if d else c)) << (a | b << 1 | c << 2 | d << 3)
             for a in range(2) for b in range(2) for c in range(2) for d in range(2))


class ScaledAdder(wiring.Component):
    """o = sum + (value + carry) * (1 if is_high else 2^places), modulo 2^width; combinational.

    Unless ``is_high`` the sum has zeros in the lowest ``places``, through which the carry goes up.

    Parameters
    ----------
    width, value_width : int
        Bits of the sum, and of the value: at most as many.
    places : int
        The shift.
    target : str
        ``"generic"`` or ``"ecp5"``: one CCU2C for two bits, and no logic beside it.
    """

    def __init__(self, *, width, value_width, places, target="generic"):
        self.width, self.places, self.target = width, places, target
        super().__init__({
            "sum": In(width), "value": In(value_width), "is_high": In(1), "carry": In(1),
            "o": Out(width),
        })

    def elaborate(self, platform):
        m = Module()
        if self.target == "generic":
            moved = Cat(self.carry.replicate(self.places), self.value)
            m.d.comb += self.o.eq(
                self.sum + Mux(self.is_high, self.value, moved) + self.carry)
            return m
        rest = Const(0, self.width)
        total, plain, moved = (Cat(value, rest) for value in (
            self.sum, self.value, Cat(self.carry.replicate(self.places), self.value)))
        columns = [(total[bit], plain[bit], moved[bit], self.is_high)
                   for bit in range(self.width + self.width % 2)]
        m.d.comb += self.o.eq(carry_chain(m, _TABLE, columns, self.carry))
        return m


class RowSum(wiring.Component):
    """Adds up a row's terms and cuts the sum to s * 2^place, s in [1, 2).

    Parameters
    ----------
    lanes : int
        Terms of a beat, a power of two.
    max_row : int
        Longest row, in elements.
    value_width : int
        Fraction bits of s, and as in `term`.
    target : str
        Primitives, see `ScaledAdder`.

    Members
    -------
    terms : In(ArrayLayout(term(value_width), lanes))
        A beat.
    valid, is_last : In(1)
        It counts; the sum up to it is to be cut: both 2 cycles after the beat.
    begins : In(1)
        The next beat is the first of a sum: a cycle after that beat.
    found : Out(value_width + 1), is_above : Out(1)
        s less 1 for the row up to this beat, ``SUM_LATENCY`` - 1 cycles after it: the lower bits of
        ``found``, or the upper ones if ``is_above``. Combinational, to be memories' addresses.
    place : Out(range(places))
        The place of the sum that was cut last, ``SUM_LATENCY`` (3) cycles after its beat.

    Timing
    ------
    One beat per cycle. A sum that is still low is kept further up, so that its leading one is in
    half of the places; which of them it is, or the one above, both addends say beside the addition.

    Numerics
    --------
    Exact: each adder's carry takes one of the terms' halves. s is cut off.
    """

    def __init__(self, *, lanes, max_row, value_width, target="generic"):
        self.lanes, self.max_row = lanes, max_row
        self.value_width, self.target = value_width, target
        self.places = max_row.bit_length()
        super().__init__({
            "terms": In(data.ArrayLayout(term(value_width), lanes)),
            "valid": In(1), "is_last": In(1), "begins": In(1),
            "found": Out(value_width + 1), "is_above": Out(1), "place": Out(range(self.places)),
        })

    def elaborate(self, platform):
        m = Module()
        value, half = self._beat(m)

        # A row's sum is low while it is below 2^high_place, so with a beat below twice that; then
        # it is kept in units 2^lift smaller.
        levels = (self.lanes - 1).bit_length()
        high_place = max(levels, self.places // 2)
        lift = self.places - 1 - high_place
        one = self.value_width + SUM_GUARD_WIDTH
        m.submodules.adder = adder = ScaledAdder(
            width=one + self.places, value_width=len(value), places=lift, target=self.target)
        so_far = Signal(adder.width)
        is_high = Signal()
        following = Signal(adder.width)
        m.d.comb += [
            adder.sum.eq(so_far), adder.value.eq(value), adder.is_high.eq(is_high),
            adder.carry.eq(half), following.eq(adder.o),
        ]
        if lift:
            m.d.comb += following.eq(Mux(adder.o[-1] & ~is_high, adder.o[lift:], adder.o))

        # Where the leading one can be, and whether it is there or higher.
        lowest = min(high_place, lift)
        places = range(lowest, self.places)
        reached = Signal(len(places))
        with m.If(self.valid):
            m.d.sync += [
                so_far.eq(following), is_high.eq(is_high | adder.o[-1]),
                reached.eq(Cat(following[one + place:].any() for place in places)),
            ]
        with m.If(self.begins):
            m.d.sync += [so_far.eq(0), is_high.eq(0), reached.eq(0)]
        self._cut(m, adder.o, one, places, [
            reached[n] | (value[one + place - lift:].any() & ~is_high)
            for n, place in enumerate(places)], lift, is_high)
        return m

    def _beat(self, m):
        """The sum of a beat's terms in two cycles, and a half that it lacks."""
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
        return terms[0]

    def _cut(self, m, total, one, places, reached, lift, is_high):
        """The sum's fraction and its place.

        An addend's highest ``reached`` place is that of the sum, or the one below it. Of none, in a
        row that is undefined, the lowest will do.
        """
        leads = Signal(len(places))
        m.d.comb += [lead.eq(reached[n] & ~any_of(reached[n + 1:n + 2]))
                     for n, lead in enumerate(leads)]
        m.d.comb += leads[0].eq(~any_of(reached[1:2]))
        padded = Cat(total, Const(0, 1))
        m.submodules.gather = gather = Gather(
            width=len(self.found) + 1, count=len(places), target=self.target)
        m.d.comb += [
            gather.select.eq(leads),
            *(gather.values[n].eq(padded[one + place - self.value_width:one + place + 2])
              for n, place in enumerate(places)),
            Cat(self.found, self.is_above).eq(gather.o),
        ]

        low_place, high_place = (
            any_of(Mux(lead, max(place - down, 0), 0)
                   for place, lead in zip(places, leads, strict=True)) for down in (lift, 0))
        s3_place = register_like(self.place)
        with m.If(self.valid & self.is_last):
            m.d.sync += s3_place.eq(Mux(is_high, high_place, low_place) + self.is_above)
        m.d.comb += self.place.eq(s3_place)
