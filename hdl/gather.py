"""A multiplexer with one-hot selection, alone in its module: inferred, or look-up tables."""

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import any_of

__all__ = ["Gather", "look_up"]


def look_up(m, name, inputs, function):
    """A bit by a LUT4 of its own: ``function`` of up to four inputs' values, each 0 or 1."""
    table = sum(bool(function(*(index >> place & 1 for place in range(len(inputs))))) << index
                for index in range(16))
    o = Signal(name=name)
    padded = [*inputs, *[Const(0, 1)] * (4 - len(inputs))]
    m.submodules[name] = Instance(
        "LUT4", p_INIT=Const(table, 16), o_Z=o,
        **{f"i_{port}": bit for port, bit in zip("ABCD", padded, strict=True)})
    return o


class Gather(wiring.Component):
    """Picks one of several values: o = the OR of all values whose selection is set.

    Parameters
    ----------
    width, count : int
        Bits of a value, and values.
    target : str
        ``"generic"``: inferred; ``"ecp5"``: for each bit a LUT4 for two values, and LUT4s that put
        their outputs together: of up to eight values five, in two levels. (Yosys takes up to a half
        more, in more levels, where it holds other paths for longer.)

    Members
    -------
    values : In(ArrayLayout(width, count)), select : In(count)
        The values, and which of them count.
    o : Out(width)
        The value.

    Timing
    ------
    Combinational.
    """

    def __init__(self, *, width, count, target="generic"):
        self.width, self.count, self.target = width, count, target
        super().__init__({
            "values": In(data.ArrayLayout(width, count)), "select": In(count), "o": Out(width),
        })

    def elaborate(self, platform):
        m = Module()
        values = [self.values[n] for n in range(self.count)]
        if self.target == "ecp5":
            m.d.comb += [self.o[bit].eq(self._bit(m, bit, [value[bit] for value in values]))
                         for bit in range(self.width)]
            return m
        m.d.comb += self.o.eq(any_of(
            value & is_it.replicate(self.width)
            for value, is_it in zip(values, self.select, strict=True)))
        return m

    def _bit(self, m, number, bits):
        found = []
        for n in range(0, self.count, 2):
            pair = [signal for both in zip(bits[n:n + 2], self.select[n:n + 2], strict=True)
                    for signal in both]
            found.append(look_up(m, f"pair{n // 2}_{number}", pair,
                                 lambda a, is_a, b=0, is_b=0, *_: a & is_a | b & is_b))
        level = 0
        while len(found) > 1:
            found = [look_up(m, f"level{level}_{n // 4}_{number}", found[n:n + 4],
                             lambda *inputs: any(inputs)) for n in range(0, len(found), 4)]
            level += 1
        return found[0]
