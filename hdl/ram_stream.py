"""A memory that is read as a stream: addresses in, words out."""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .ram import Ram

__all__ = ["RamStream"]


class RamStream(wiring.Component):
    """Gives the word at each address, in their order.

    Parameters
    ----------
    width, depth, target
        As in ``Ram``.

    Members
    -------
    i_address : In(range(depth)), i_data : In(width), write : In(1)
        See ``Ram``: a word can be asked for in the cycle after its writing.
    i : In(stream of range(depth))
        Addresses. Once one is taken, its word may be overwritten.
    o : Out(stream of width)
        Words.

    Timing
    ------
    Latency ``RAM_LATENCY`` (2) cycles, one word per cycle. While ``o`` is stalled everything is
    held: ``i.ready`` follows ``o.ready`` in the same cycle. ``o`` comes from registers.
    """

    def __init__(self, *, width, depth, target="generic"):
        self.width, self.depth, self.target = width, depth, target
        super().__init__({
            "i_address": In(range(depth)), "i_data": In(width), "write": In(1),
            "i": In(stream.Signature(range(depth))), "o": Out(stream.Signature(width)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.ram = ram = Ram(width=self.width, depth=self.depth, target=self.target)
        moves = Signal()
        s1_valid = Signal()
        m.d.comb += [
            ram.i_address.eq(self.i_address), ram.i_data.eq(self.i_data), ram.write.eq(self.write),
            moves.eq(~self.o.valid | self.o.ready),
            ram.address.eq(self.i.payload), ram.read.eq(moves),
            self.i.ready.eq(moves), self.o.payload.eq(ram.o),
        ]
        with m.If(moves):
            m.d.sync += [s1_valid.eq(self.i.valid), self.o.valid.eq(s1_valid)]
        return m
