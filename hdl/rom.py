"""A table with a register behind it, alone in its module: inferred, or an ECP5's block RAMs."""

from amaranth.hdl import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from .ram import BLOCK_WIDTHS, UNUSED_PLACES

__all__ = ["ROM_LATENCY", "Rom"]

ROM_LATENCY = 2
"""Cycles from an address to its word."""

_LINES = 64         # of a block RAM's contents, INITVAL_00 to INITVAL_3F
_LINE_UNITS = 16    # units of 18 bits in a line, in 20 bits each


class Rom(wiring.Component):
    """Holds words, of which two are looked up at once.

    Parameters
    ----------
    words : tuple of int
        The words; their number is a power of two.
    width : int
        Bits of a word.
    target : str
        ``"generic"``: inferred; ``"ecp5"``: DP16KD with their output registers, without which
        their data are 5.8 ns late; more than 16384 words are inferred, too.

    Members
    -------
    address_0, address_1 : In(range(len(words)))
        Of the words that are looked up.
    read : In(1)
        While it is 0, what is looked up, ``o_0`` and ``o_1`` stay as they are.
    o_0, o_1 : Out(width)
        The words.

    Timing
    ------
    ``o_0`` and ``o_1`` follow their addresses by ``ROM_LATENCY`` (2) cycles with ``read``.

    Source
    ------
    Lattice FPGA-TN-02204, ECP5 and ECP5-5G memory usage guide, DP16KD; the order of bits in
    INITVAL is that of Yosys' own (techlibs/ecp5/brams_map.v).
    """

    def __init__(self, *, words, width, target="generic"):
        if len(words) & len(words) - 1 or not words:
            raise ValueError(f"the number of words is a power of two; got {len(words)}")
        self.words, self.width, self.target = tuple(words), width, target
        super().__init__({
            "address_0": In(range(len(words))), "address_1": In(range(len(words))), "read": In(1),
            "o_0": Out(width), "o_1": Out(width),
        })

    def elaborate(self, platform):
        m = Module()
        ports = ((self.address_0, self.o_0), (self.address_1, self.o_1))
        if self.target == "ecp5" and len(self.words) <= BLOCK_WIDTHS[-1][0]:
            return self._dp16kd(m, ports)
        m.submodules.table = table = memory.Memory(
            shape=self.width, depth=len(self.words), init=self.words)
        for address, o in ports:
            port = table.read_port()
            m.d.comb += [port.addr.eq(address), port.en.eq(self.read)]
            with m.If(self.read):
                m.d.sync += o.eq(port.data)
        return m

    def _dp16kd(self, m, ports):
        data_width = next(width for depth, width in BLOCK_WIDTHS if len(self.words) <= depth)
        fixed = {f"i_RST{port}": Const(0) for port in "AB"}
        fixed |= {f"i_CS{port}{n}": Const(0) for port in "AB" for n in range(3)}
        fixed |= {f"i_WE{port}": Const(0) for port in "AB"}
        fixed |= {f"i_DI{port}{n}": Const(0) for port in "AB" for n in range(18)}
        fixed |= {f"i_{name}{port}": self.read for port in "AB" for name in ("CE", "OCE")}
        fixed |= {f"i_CLK{port}": ClockSignal() for port in "AB"}
        for port, (address, _) in zip("AB", ports, strict=True):
            padded = Cat(Const(0, UNUSED_PLACES[data_width]), address, Const(0, 14))
            fixed |= {f"i_AD{port}{n}": padded[n] for n in range(14)}
        # A bit of all words that is constant, or the same as another, takes no place.
        columns = [sum((word >> bit & 1) << n for n, word in enumerate(self.words))
                   for bit in range(self.width)]
        always = {0: 0, (1 << len(self.words)) - 1: 1}
        stored = list(dict.fromkeys(column for column in columns if column not in always))
        data = [Signal(len(stored), name=f"data_{port}") for port in "ab"]
        for bit, column in enumerate(columns):
            m.d.comb += [o[bit].eq(always[column] if column in always
                                   else found[stored.index(column)])
                         for (_, o), found in zip(ports, data, strict=True)]
        for number, low in enumerate(range(0, len(stored), data_width)):
            here = stored[low:low + data_width]
            outputs = {f"o_DO{port}{n}": found[low + n]
                       for port, found in zip("AB", data, strict=True) for n in range(len(here))}
            words = [sum((column >> place & 1) << n for n, column in enumerate(here))
                     for place in range(len(self.words))]
            m.submodules[f"block_{number}"] = Instance(
                "DP16KD", p_DATA_WIDTH_A=data_width, p_DATA_WIDTH_B=data_width,
                p_REGMODE_A="OUTREG", p_REGMODE_B="OUTREG", p_RESETMODE="SYNC",
                p_ASYNC_RESET_RELEASE="SYNC", p_CSDECODE_A="0b000", p_CSDECODE_B="0b000",
                p_WRITEMODE_A="NORMAL", p_WRITEMODE_B="NORMAL", p_GSR="DISABLED",
                **_contents(words, data_width), **fixed, **outputs)
        return m


def _contents(words, data_width):
    """The parameters INITVAL_00 to INITVAL_3F of a block RAM.

    A unit of 18 bits has two bytes of 9 bits; words of 4, 2 or 1 bits leave the ninth alone.
    """
    used = data_width if data_width >= 9 else 8  # bits of a byte, or of the unit of one word
    per_part = used // data_width
    parts = [sum(word << data_width * n for n, word in enumerate(words[place:place + per_part]))
             for place in range(0, len(words), per_part)]
    per_unit = 18 // max(data_width, 9)
    units = [sum(part << 9 * n for n, part in enumerate(parts[place:place + per_unit]))
             for place in range(0, len(parts), per_unit)]
    lines = [sum(unit << 20 * n for n, unit in enumerate(units[place:place + _LINE_UNITS]))
             for place in range(0, len(units), _LINE_UNITS)]
    lines += [0] * (_LINES - len(lines))
    return {f"p_INITVAL_{number:02X}": Const(line, 20 * _LINE_UNITS)
            for number, line in enumerate(lines)}
