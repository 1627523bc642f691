"""The adder of an accumulator, alone in its module: inferred, or an ECP5's carry chain."""

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Accumulate", "carry_chain"]

# CCU2C (Lattice FPGA-TN-02200, ECP5 slices in ripple mode): S = LUT4(A, B, C, D) ^ carry, and where
# LUT4 gives 0 the carry out is LUT2(A, B), whose table is the lowest four bits of LUT4's. With
# A = sum, B = clear, C = magnitude, D = negative both addends are formed in the adder itself:
# x = A & ~B, y = C ^ D, LUT4 = x ^ y; where x = y either of them is the carry, and for C = D = 0
# LUT4 is x.
_TABLE = sum(((a & ~b & 1) ^ c ^ d) << (a | b << 1 | c << 2 | d << 3)
             for a in range(2) for b in range(2) for c in range(2) for d in range(2))


def carry_chain(m, table, columns, carry):
    """Instantiates CCU2Cs of one table: of each bit the inputs A to D, an even number of bits.

    Returns the sums.
    """
    total = Signal(len(columns))
    for place in range(0, len(columns), 2):
        ports = {}
        for half, column in enumerate(columns[place:place + 2]):
            ports |= {f"i_{name}{half}": bit for name, bit in zip("ABCD", column, strict=True)}
            ports[f"o_S{half}"] = total[place + half]
        following = Signal(name=f"carry_{place + 2}")
        m.submodules[f"bits_{place}"] = Instance(
            "CCU2C", p_INIT0=Const(table, 16), p_INIT1=Const(table, 16),
            p_INJECT1_0="NO", p_INJECT1_1="NO", i_CIN=carry, o_COUT=following, **ports)
        carry = following
    return total


class Accumulate(wiring.Component):
    """Adds a signed magnitude to a sum: o = (0 if clear else sum) + magnitude, or + ~magnitude if
    it is negative, + carry.

    With ``carry`` = ``negative`` that is the sum plus or minus the magnitude, modulo 2^width. A
    wider sum is cut in halves, since a carry takes 71 ps for two bits: the lower half's carry goes
    through registers to the upper half, which adds later.

    Parameters
    ----------
    width : int
        Bits of the sum, two's complement.
    magnitude_width : int
        Bits of the magnitude, at most ``width``.
    target : str
        ``"generic"``: inferred; ``"ecp5"``: one CCU2C for two bits, and no logic beside it (Yosys
        spends a LUT for each bit on the clearing, and one on the sign).

    Members
    -------
    sum : In(width)
        What is added to.
    clear : In(1)
        Start from zero.
    magnitude : In(magnitude_width), negative : In(1), carry : In(1)
        What is added.
    o : Out(width + 1)
        The new sum, and the carry out of it above.

    Timing
    ------
    Combinational.

    Source
    ------
    71 ps: nextpnr-ecp5 0.11.1, speed grade 6, from carry to carry of a CCU2C.
    """

    def __init__(self, *, width, magnitude_width, target="generic"):
        self.width, self.magnitude_width, self.target = width, magnitude_width, target
        super().__init__({
            "sum": In(width), "clear": In(1), "magnitude": In(magnitude_width), "negative": In(1),
            "carry": In(1), "o": Out(width + 1),
        })

    def elaborate(self, platform):
        m = Module()
        if self.target == "ecp5":
            self._chain(m)
            return m
        extended = Cat(self.magnitude, Const(0, self.width - self.magnitude_width))
        m.d.comb += self.o.eq(Mux(self.clear, 0, self.sum)
                              + (extended ^ self.negative.replicate(self.width)) + self.carry)
        return m

    def _chain(self, m):
        columns = []
        for bit in range(self.width + 2 - self.width % 2):
            # Above the sum both addends are zero: what comes out there is the carry.
            if bit < self.width:
                upper = self.magnitude[bit] if bit < self.magnitude_width else Const(0)
            else:
                upper = self.negative
            columns.append((self.sum[bit] if bit < self.width else Const(0), self.clear, upper,
                            self.negative))
        m.d.comb += self.o.eq(carry_chain(m, _TABLE, columns, self.carry))
