"""The multiplier of the lanes, alone in its module: a target may put its own primitive here."""

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["MULTIPLIER_LATENCY", "Multiplier"]

MULTIPLIER_LATENCY = 2
"""Cycles from the factors to their product: a register before and one behind."""


class Multiplier(wiring.Component):
    """Multiplies two unsigned factors: ``o = a * b``.

    Parameters
    ----------
    width : int
        Bits of each factor, 1 to 18 (one 18 x 18 multiplier).

    Members
    -------
    a, b : In(width)
        Factors.
    o : Out(2 * width)
        Product.

    Timing
    ------
    Latency ``MULTIPLIER_LATENCY`` cycles, one product per cycle.
    """

    def __init__(self, *, width):
        if not 1 <= width <= 18:
            raise ValueError(f"a multiplier takes 1 to 18 bits; got {width}")
        self.width = width
        super().__init__({"a": In(width), "b": In(width), "o": Out(2 * width)})

    def elaborate(self, platform):
        m = Module()
        s1_a, s1_b = Signal(self.width), Signal(self.width)
        m.d.sync += [s1_a.eq(self.a), s1_b.eq(self.b), self.o.eq(s1_a * s1_b)]
        return m
