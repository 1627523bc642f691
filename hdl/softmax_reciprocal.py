"""Softmax, third pass: the reciprocal of a row's sum (rule S5)."""

from amaranth.hdl import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from .accumulate import carry_chain
from .arithmetic import register
from .softmax_tables import reciprocal_table

__all__ = ["ChosenDifference", "Reciprocal"]

# See `accumulate`: with A = what is subtracted, B and D = the minuends, C = which of them it is,
# the lowest four entries are ~A, which is the carry.
_TABLE = sum(((b if c else d) ^ a ^ 1) << (a | b << 1 | c << 2 | d << 3)
             for a in range(2) for b in range(2) for c in range(2) for d in range(2))


class ChosenDifference(wiring.Component):
    """o = (upper if is_upper else lower) - less, modulo 2^width; combinational.

    Parameters
    ----------
    width : int
        Bits of all.
    target : str
        ``"generic"`` or ``"ecp5"``: one CCU2C for two bits, and no logic beside it.
    """

    def __init__(self, *, width, target="generic"):
        self.width, self.target = width, target
        super().__init__({
            "lower": In(width), "upper": In(width), "is_upper": In(1), "less": In(width),
            "o": Out(width),
        })

    def elaborate(self, platform):
        m = Module()
        if self.target == "generic":
            m.d.comb += self.o.eq(Mux(self.is_upper, self.upper, self.lower) - self.less)
            return m
        rest = Const(0, self.width % 2)
        less, upper, lower = (Cat(value, rest) for value in (self.less, self.upper, self.lower))
        columns = [(less[bit], upper[bit], self.is_upper, lower[bit]) for bit in range(len(less))]
        m.d.comb += self.o.eq(carry_chain(m, _TABLE, columns, Const(1, 1)))
        return m


class Reciprocal(wiring.Component):
    """Looks up the reciprocal of 1 + fraction.

    The fraction is all bits of ``found`` but the highest, or all but the lowest if ``is_above``.
    That comes late: so the bases of both are looked up, one at each port of their memory.

    Parameters
    ----------
    entries, value_width : int
        Of the table.
    target : str
        Primitives, see `ChosenDifference`.

    Members
    -------
    found : In(value_width + 1), is_above : In(1)
        The fraction, addresses of memories.
    load : In(1)
        A cycle later: take its reciprocal.
    o : Out(value_width)
        The reciprocal last taken, in units of 2^-value_width.

    Timing
    ------
    Latency 2 cycles, one row per cycle.
    """

    def __init__(self, *, entries, value_width, target="generic"):
        self.entries, self.value_width, self.target = entries, value_width, target
        super().__init__({
            "found": In(value_width + 1), "is_above": In(1), "load": In(1), "o": Out(value_width)})

    def elaborate(self, platform):
        m = Module()
        table = reciprocal_table(self.entries, self.value_width)
        fraction = Mux(self.is_above, self.found[1:], self.found)
        lower, upper = self._looked_up(m, "bases", table.bases, table.base_width,
                                       [self.found[table.offset_width:-1],
                                        self.found[table.offset_width + 1:]])
        fall, = self._looked_up(m, "falls", table.falls, table.fall_width,
                                [Cat(fraction[:table.offset_width],
                                     fraction[table.input_width - table.segment_width:
                                              table.input_width])])
        s1_is_above = register()
        s2_value = register(self.value_width)
        m.submodules.difference = difference = ChosenDifference(
            width=table.base_width, target=self.target)
        m.d.sync += s1_is_above.eq(self.is_above)
        m.d.comb += [
            difference.lower.eq(lower), difference.upper.eq(upper),
            difference.is_upper.eq(s1_is_above), difference.less.eq(fall),
            self.o.eq(s2_value),
        ]
        with m.If(self.load):
            m.d.sync += s2_value.eq(difference.o[table.base_width - self.value_width:])
        return m

    def _looked_up(self, m, name, contents, width, addresses):
        """What a table holds, a cycle later: there is none to spare for a register of its own."""
        m.submodules[name] = table = memory.Memory(
            shape=unsigned(width), depth=len(contents), init=contents)
        ports = [table.read_port() for _ in addresses]
        m.d.comb += [port.addr.eq(address)
                     for port, address in zip(ports, addresses, strict=True)]
        return [port.data for port in ports]
