"""The multiplier of the lanes, alone in its module: inferred, or an ECP5's own primitive."""

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register

__all__ = ["MULTIPLIER_LATENCY", "Multiplier"]

MULTIPLIER_LATENCY = 4
"""Cycles from the factors to their product: registers before, within and behind, and one on the way
from there: of an ECP5's fabric, since its multipliers stand in rows of their own."""


class Multiplier(wiring.Component):
    """Multiplies two unsigned factors: ``o = a * b``.

    Parameters
    ----------
    width : int
        Bits of each factor, 1 to 18 (one 18 x 18 multiplier).
    target : str
        ``"generic"``: inferred; ``"ecp5"``: a MULT18X18D with its own registers.
    holds : bool
        There is an ``enable``.

    Members
    -------
    a, b : In(width)
        Factors.
    enable : In(1)
        The registers move; without it they hold. (An ``EnableInserter`` does not reach those of a
        MULT18X18D.)
    o : Out(2 * width)
        Product.

    Timing
    ------
    Latency ``MULTIPLIER_LATENCY`` (4) cycles, one product per cycle. There is no
    reset: what was there before comes out first.

    Source
    ------
    Lattice FPGA-TN-02205, ECP5 and ECP5-5G sysDSP usage guide, MULT18X18D.
    """

    def __init__(self, *, width, target="generic", holds=False):
        if not 1 <= width <= 18:
            raise ValueError(f"a multiplier takes 1 to 18 bits; got {width}")
        self.width, self.target, self.holds = width, target, holds
        super().__init__({"a": In(width), "b": In(width), **({"enable": In(1)} if holds else {}),
                          "o": Out(2 * width)})

    def elaborate(self, platform):
        m = Module()
        s3_o = register(2 * self.width)
        o = register(2 * self.width)
        m.d.comb += self.o.eq(o)
        moves = [o.eq(s3_o)]
        if self.target == "ecp5":
            m.submodules.mult = self._mult18x18d(s3_o)
        else:
            s1_a = register(self.width)
            s1_b = register(self.width)
            s2_o = register(2 * self.width)
            moves += [s1_a.eq(self.a), s1_b.eq(self.b), s2_o.eq(s1_a * s1_b), s3_o.eq(s2_o)]
        if self.holds:
            with m.If(self.enable):
                m.d.sync += moves
        else:
            m.d.sync += moves
        return m

    def _mult18x18d(self, product):
        ports = {}
        for name, value in (("A", self.a), ("B", self.b)):
            ports |= {f"i_{name}{n}": value[n] if n < self.width else Const(0) for n in range(18)}
            ports |= {f"i_SIGNED{name}": Const(0), f"i_SOURCE{name}": Const(0)}
        ports |= {f"o_P{n}": product[n] for n in range(2 * self.width)}
        registers = {}
        for name in ("INPUTA", "INPUTB", "PIPELINE", "OUTPUT"):
            registers |= {f"p_REG_{name}_CLK": "CLK0", f"p_REG_{name}_CE": "CE0",
                          f"p_REG_{name}_RST": "RST0"}
        return Instance("MULT18X18D", i_CLK0=ClockSignal(), i_RST0=Const(0), p_GSR="DISABLED",
                        i_CE0=self.enable if self.holds else Const(1), **ports, **registers)
