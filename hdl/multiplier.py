"""Multipliers, alone in their modules: inferred, or an ECP5's own primitive."""

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register

__all__ = ["MULTIPLIER_LATENCY", "Multiplier", "Product"]

MULTIPLIER_LATENCY = 4
"""Cycles from the factors to their product: registers before, within and behind, and one on the way
from there: of an ECP5's fabric, since its multipliers stand in rows of their own."""

WIDTH = 18  # bits of a factor of a MULT18X18D


def _mult18x18d(a, b, product, enable, ranks):
    """A MULT18X18D with some of its ranks of registers: INPUTA, INPUTB, PIPELINE, OUTPUT."""
    ports = {}
    for name, value in (("A", a), ("B", b)):
        ports |= {f"i_{name}{n}": value[n] if n < len(value) else Const(0) for n in range(WIDTH)}
        ports |= {f"i_SIGNED{name}": Const(0), f"i_SOURCE{name}": Const(0)}
    ports |= {f"o_P{n}": product[n] for n in range(len(product))}
    registers = {}
    for name in ("INPUTA", "INPUTB", "PIPELINE", "OUTPUT"):
        registers |= {f"p_REG_{name}_CLK": "CLK0" if name in ranks else "NONE",
                      f"p_REG_{name}_CE": "CE0", f"p_REG_{name}_RST": "RST0"}
    return Instance("MULT18X18D", i_CLK0=ClockSignal(), i_RST0=Const(0), p_GSR="DISABLED",
                    i_CE0=enable, **ports, **registers)


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
            m.submodules.mult = _mult18x18d(
                self.a, self.b, s3_o, self.enable if self.holds else Const(1),
                ("INPUTA", "INPUTB", "PIPELINE", "OUTPUT"))
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


class Product(wiring.Component):
    """Multiplies two unsigned factors in a cycle or two: o = a * b.

    Parameters
    ----------
    a_width, b_width : int
        Bits of the factors.
    latency : int
        1: a register behind; 2: one before as well.
    target : str
        ``"generic"``: inferred; ``"ecp5"``: a MULT18X18D with its own registers, if the factors
        have at most 18 bits. It stands in a row with others, so that wires to and from it are long:
        now there is no more than one of them to a path. More than 18 bits are inferred, too.

    Members
    -------
    a : In(a_width), b : In(b_width)
        Factors.
    enable : In(1)
        The registers move; without it they hold. (An ``EnableInserter`` does not reach those of a
        MULT18X18D.)
    o : Out(a_width + b_width)
        Product.

    Timing
    ------
    Latency ``latency`` cycles, one product per cycle. There is no reset.

    Source
    ------
    As of `Multiplier`. nextpnr-ecp5 0.11.1 counts 3.49 ns from a factor to the register behind
    (speed grade 6). From the one before to the one behind it counts nothing: above 250 MHz it would
    take the rank within as well.
    """

    def __init__(self, *, a_width, b_width, latency, target="generic"):
        if latency not in (1, 2):
            raise ValueError(f"latency is 1 or 2; got {latency}")
        self.latency, self.target = latency, target
        super().__init__({
            "a": In(a_width), "b": In(b_width), "enable": In(1), "o": Out(a_width + b_width)})

    def elaborate(self, platform):
        m = Module()
        if self.target == "ecp5" and max(len(self.a), len(self.b)) <= WIDTH:
            before = ("INPUTA", "INPUTB") if self.latency > 1 else ()
            m.submodules.mult = _mult18x18d(
                self.a, self.b, self.o, self.enable, (*before, "OUTPUT"))
            return m
        a, b = self.a, self.b
        o = register(len(self.o))
        m.d.comb += self.o.eq(o)
        with m.If(self.enable):
            if self.latency > 1:
                a, b = register(len(a), name="s1_a"), register(len(b), name="s1_b")
                m.d.sync += [a.eq(self.a), b.eq(self.b)]
            m.d.sync += o.eq(a * b)
        return m
