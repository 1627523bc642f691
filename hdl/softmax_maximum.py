"""Softmax, first pass: the row's largest element, and what is near enough to it (rule S2)."""

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import add, register, register_like
from .softmax_input import KINDS, MAGNITUDE_WIDTH, SIGNIFICAND_WIDTH, places
from .softmax_layouts import KEY_WIDTH, KIND_WIDTH, fixed_width

__all__ = ["MAXIMUM_LATENCY", "Maximum", "Reference", "larger", "reference"]

MAXIMUM_LATENCY = 4
"""Cycles from a beat's keys to the combinational maximum of its row so far."""

BIG = 7             # exponent from which on octaves are so wide that keys must be compared
NOTHING = 63        # a shift that leaves nothing


def larger(a, b):
    """The larger of two keys, both numbers' signs and magnitudes."""
    is_b = Mux(a[-1] ^ b[-1], a[-1], (a[:-1] < b[:-1]) ^ a[-1])
    return Mux(is_b, b, a)


class Maximum(wiring.Component):
    """The largest key of a row.

    Parameters
    ----------
    lanes : int
        Keys of a beat, a power of two.

    Members
    -------
    keys : In(ArrayLayout(KEY_WIDTH, lanes))
        A beat.
    valid, is_first : In(1)
        It counts; it is its row's first: both ``MAXIMUM_LATENCY`` (4) cycles later.
    o : Out(KEY_WIDTH)
        The row's largest key so far, that of the beat of 4 cycles ago included.

    Timing
    ------
    One beat per cycle; ``o`` is combinational from a comparison's registers.
    """

    def __init__(self, *, lanes):
        self.lanes = lanes
        super().__init__({
            "keys": In(data.ArrayLayout(KEY_WIDTH, lanes)), "valid": In(1), "is_first": In(1),
            "o": Out(KEY_WIDTH),
        })

    def elaborate(self, platform):
        m = Module()
        # A level of comparisons in each cycle, as many as 16 lanes have; then the row's.
        keys = [self.keys[lane] for lane in range(self.lanes)]
        for stage in range(MAXIMUM_LATENCY):
            keys = self._compared(m, keys, f"s{stage + 2}_key")
        so_far = register(KEY_WIDTH)
        m.d.comb += self.o.eq(Mux(self.is_first, keys[0], larger(so_far, keys[0])))
        with m.If(self.valid):
            m.d.sync += so_far.eq(self.o)
        return m

    def _compared(self, m, keys, name):
        """The keys after a level of comparisons, if there is one more, registered."""
        if len(keys) > 1:
            keys = [larger(a, b) for a, b in zip(keys[::2], keys[1::2], strict=True)]
        registers = [register(KEY_WIDTH, name=f"{name}{n}") for n in range(len(keys))]
        m.d.sync += [new.eq(old) for new, old in zip(registers, keys, strict=True)]
        return registers


def reference(value_width):
    """What a row's elements are compared with.

    ``fixed``: the largest, in units of 2^-value_width modulo 2^8, complemented if it is
    ``negative``. ``bound``, ``bound_negative``: an element is near if it is at least +bound, or
    above -bound. ``unbounded``: all that are negative are near. ``special``: the largest is an
    infinity, or a NaN.
    """
    return data.StructLayout({
        "fixed": fixed_width(value_width), "negative": 1, "bound": MAGNITUDE_WIDTH,
        "bound_negative": 1, "unbounded": 1, "special": 1})


class Reference(wiring.Component):
    """Makes a row's largest key its reference.

    Members
    -------
    key : In(KEY_WIDTH), kind : In(KIND_WIDTH)
        The key and its kind.
    o : Out(reference(value_width))
        The reference.

    Timing
    ------
    Latency 2 cycles, one row per cycle.

    Numerics
    --------
    All that is nearer to the largest than 2^7 is near, and all that is near is nearer than 2^8.
    With the largest's exponent E from 7 on, keys less than 2^(8 - E) octaves below a positive one
    are near (half as many of a negative one, below which octaves grow); else what is above -128
    (or -256).
    """

    def __init__(self, *, value_width):
        self.value_width = value_width
        super().__init__({
            "key": In(KEY_WIDTH), "kind": In(KIND_WIDTH), "o": Out(reference(value_width))})

    def elaborate(self, platform):
        m = Module()
        magnitude, negative = self.key[:-1], self.key[-1]

        # The exponent and what it says; the additions stand side by side.
        exponents = Signal(8)
        lasts = Signal(8)
        places_down = Signal(8)
        significand = Signal(SIGNIFICAND_WIDTH)
        small = Signal(MAGNITUDE_WIDTH)
        is_top = Signal()
        is_big = Signal()
        is_least = Signal()
        with m.Switch(self.kind):
            for number, (width, kind) in enumerate(KINDS):
                with m.Case(number):
                    rest = MAGNITUDE_WIDTH - width
                    exponent, big = magnitude[rest:], kind.bias + BIG
                    m.d.comb += [
                        exponents.eq(exponent), lasts.eq(places(kind)),
                        places_down.eq(Mux(negative, places(kind), places(kind) + 1)),
                        significand.eq(Cat(magnitude[:rest], exponent.any())),
                        is_top.eq(exponent.all() & kind.ieee),
                        is_big.eq(exponent >= big), is_least.eq((exponent == big) & ~negative),
                        small.eq(Cat(Const(0, rest), Mux(negative, big + 1, big))),
                    ]
        # Subnormals have the exponent 1: lasts - 1 = lasts + ~0 modulo 2^9.
        shift = Signal(9)
        place = Signal(9)
        m.d.comb += [
            shift.eq(add(Cat(lasts, 0), Cat(~exponents, 1), exponents.any())),
            place.eq(add(Cat(places_down, 0), Cat(~exponents, 1), 1)),
        ]
        s1_significand = register(SIGNIFICAND_WIDTH)
        s1_shift = register(6)
        s1_magnitude = register(MAGNITUDE_WIDTH)
        s1_place = register(range(SIGNIFICAND_WIDTH + 1))
        s1_special = register()
        s1_negative = register()
        s1_is_big = register()
        m.d.sync += [
            s1_significand.eq(significand),
            s1_shift.eq(shift[:6] | shift[6:].any().replicate(6)),
            s1_magnitude.eq(magnitude),
            s1_place.eq(place),
            s1_special.eq(is_top), s1_negative.eq(negative), s1_is_big.eq(is_big),
        ]
        with m.If(~is_big):
            m.d.sync += s1_magnitude.eq(small)
        with m.If(is_least):
            m.d.sync += s1_magnitude.eq(0)
        with m.If(~is_big | is_least | place[-1]):
            m.d.sync += s1_place.eq(0)

        s2 = register_like(self.o, name="s2")
        m.d.comb += self.o.eq(s2)
        m.d.sync += [
            s2.negative.eq(s1_negative),
            s2.special.eq(s1_special),
            s2.fixed.eq(self._fixed(m, s1_significand, s1_shift)
                        ^ s1_negative.replicate(len(s2.fixed))),
        ]
        self._bound(m, s2, s1_magnitude, s1_place, s1_is_big, s1_is_big & ~s1_negative)
        return m

    def _fixed(self, m, significand, shift):
        """The significand down from its highest place, modulo 2^8."""
        width = fixed_width(self.value_width)
        value, reach = Cat(Const(0, width - 1), significand), NOTHING
        for place in reversed(range(6)):
            reach -= 1 << place
            moved = Signal(width + reach, name=f"moved{1 << place}")
            m.d.comb += moved.eq(Mux(shift[place], value[1 << place:], value))
            value = moved
        return value

    def _bound(self, m, s2, magnitude, place, is_big, is_down):
        """The magnitude that bounds what is near.

        A big one's: magnitude + 2^place below zero, as far as keys go; above, ``is_down``,
        magnitude - (2^place - 1), and 0 if that would be among octaves far narrower.
        """
        below = Signal(MAGNITUDE_WIDTH)
        total = Signal(MAGNITUDE_WIDTH + 1)
        with m.Switch(place):
            for n in range(1, SIGNIFICAND_WIDTH + 1):
                with m.Case(n):
                    m.d.comb += below.eq((1 << n) - 1)
        m.d.comb += [
            total.eq(add(magnitude, below ^ is_down.replicate(MAGNITUDE_WIDTH), is_big)),
        ]
        m.d.sync += [
            s2.bound.eq(total), s2.bound_negative.eq(~is_down),
            s2.unbounded.eq(total[-1] & ~is_down),
        ]
