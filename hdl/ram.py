"""A memory with a register behind it, alone in its module: inferred, or an ECP5's block RAMs."""

from amaranth.hdl import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BLOCK_WIDTHS", "RAM_LATENCY", "UNUSED_PLACES", "Ram"]

RAM_LATENCY = 2
"""Cycles from the address to the data."""

BLOCK_WIDTHS = ((1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
"""Depths of a DP16KD, and its data's bits."""

UNUSED_PLACES = {18: 4, 9: 3, 4: 2, 2: 1, 1: 0}
"""Lowest bits of its address by its data's bits: byte enables at 18, unused at 9."""


class Ram(wiring.Component):
    """Keeps words; what is read comes through a register of the memory's own.

    Parameters
    ----------
    width, depth : int
        Bits of a word, and words: a power of two.
    target : str
        ``"generic"``: inferred; ``"ecp5"``: DP16KD with its output register, without which its
        data are 5.8 ns late; deeper than 16384 words it is inferred, too.

    Members
    -------
    i_address : In(range(depth)), i_data : In(width), write : In(1)
        While ``write``, the word is kept from the next cycle on.
    address : In(range(depth))
        Of the word that is read; one being written at the same time is undefined.
    read : In(1)
        While it is 0, what is read and ``o`` stay as they are.
    o : Out(width)
        The word.

    Timing
    ------
    A word can be read in the cycle after its writing; ``o`` follows ``address`` by
    ``RAM_LATENCY`` (2) cycles with ``read``.

    Source
    ------
    Lattice FPGA-TN-02204, ECP5 and ECP5-5G memory usage guide, DP16KD.
    """

    def __init__(self, *, width, depth, target="generic"):
        self.width, self.depth, self.target = width, depth, target
        super().__init__({
            "i_address": In(range(depth)), "i_data": In(width), "write": In(1),
            "address": In(range(depth)), "read": In(1), "o": Out(width),
        })

    def elaborate(self, platform):
        m = Module()
        if self.target == "ecp5" and self.depth <= BLOCK_WIDTHS[-1][0]:
            self._dp16kd(m)
            return m
        m.submodules.memory = mem = memory.Memory(shape=self.width, depth=self.depth, init=[])
        write, read = mem.write_port(), mem.read_port()
        m.d.comb += [
            write.addr.eq(self.i_address), write.data.eq(self.i_data), write.en.eq(self.write),
            read.addr.eq(self.address), read.en.eq(self.read),
        ]
        with m.If(self.read):
            m.d.sync += self.o.eq(read.data)
        return m

    def _dp16kd(self, m):
        """Port A writes, port B reads."""
        data_width = next(width for depth, width in BLOCK_WIDTHS if self.depth <= depth)
        unused = UNUSED_PLACES[data_width]
        fixed = {f"i_RST{port}": Const(0) for port in "AB"}
        fixed |= {f"i_CS{port}{n}": Const(0) for port in "AB" for n in range(3)}
        for number, low in enumerate(range(0, self.width, data_width)):
            bits = range(low, min(low + data_width, self.width))
            ports = dict(fixed)
            for port, address, lowest in (("A", self.i_address, 1), ("B", self.address, 0)):
                for n in range(14):
                    place = n - unused
                    if place < 0:
                        bit = Const(lowest if data_width == 18 and n < 2 else 0)
                    else:
                        bit = address[place] if place < len(address) else Const(0)
                    ports[f"i_AD{port}{n}"] = bit
            for n in range(18):
                ports[f"i_DIA{n}"] = self.i_data[bits[n]] if n < len(bits) else Const(0)
                ports[f"i_DIB{n}"] = Const(0)
            for n, bit in enumerate(bits):
                ports[f"o_DOB{n}"] = self.o[bit]
            m.submodules[f"block_{number}"] = Instance(
                "DP16KD", p_DATA_WIDTH_A=data_width, p_DATA_WIDTH_B=data_width,
                p_REGMODE_A="NOREG", p_REGMODE_B="OUTREG", p_RESETMODE="SYNC",
                p_ASYNC_RESET_RELEASE="SYNC", p_CSDECODE_A="0b000", p_CSDECODE_B="0b000",
                p_WRITEMODE_A="NORMAL", p_WRITEMODE_B="NORMAL", p_GSR="AUTO",
                i_CLKA=ClockSignal(), i_CEA=Const(1), i_OCEA=Const(1), i_WEA=self.write,
                i_CLKB=ClockSignal(), i_CEB=self.read, i_OCEB=self.read, i_WEB=Const(0), **ports)
