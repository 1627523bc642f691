"""Softmax, third pass: the reciprocal of a row's sum (rule S5)."""

from amaranth.hdl import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register
from .softmax_tables import reciprocal_table

__all__ = ["Reciprocal"]


class Reciprocal(wiring.Component):
    """Looks up the reciprocal of 1 + fraction.

    Parameters
    ----------
    entries, value_width : int
        Of the table.

    Members
    -------
    fraction : In(value_width)
        The fraction, a memory's address.
    load : In(1)
        A cycle later: take its reciprocal.
    o : Out(value_width)
        The reciprocal last taken, in units of 2^-value_width.

    Timing
    ------
    Latency 2 cycles, one row per cycle.
    """

    def __init__(self, *, entries, value_width):
        self.entries, self.value_width = entries, value_width
        super().__init__({
            "fraction": In(value_width), "load": In(1), "o": Out(value_width)})

    def elaborate(self, platform):
        m = Module()
        table = reciprocal_table(self.entries, self.value_width)
        base = self._looked_up(m, "bases", table.bases, table.base_width,
                               self.fraction[table.offset_width:])
        fall = self._looked_up(m, "falls", table.falls, table.fall_width,
                               Cat(self.fraction[:table.offset_width],
                                   self.fraction[table.input_width - table.segment_width:]))
        s2_value = register(self.value_width)
        with m.If(self.load):
            m.d.sync += s2_value.eq((base - fall)[table.base_width - self.value_width:])
        m.d.comb += self.o.eq(s2_value)
        return m

    def _looked_up(self, m, name, contents, width, address):
        """What a table holds, a cycle later: there is none to spare for a register of its own."""
        m.submodules[name] = table = memory.Memory(
            shape=unsigned(width), depth=len(contents), init=contents)
        port = table.read_port()
        m.d.comb += port.addr.eq(address)
        return port.data
