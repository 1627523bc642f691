"""The buffer of results: what is on its way to it always has a place there."""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .layouts import Result
from .ram import RAM_LATENCY, Ram

__all__ = ["RESULTS_LATENCY", "ROOM_LATENCY", "ResultBuffer"]

RESULTS_LATENCY = RAM_LATENCY + 1
"""Cycles from a result to ``o``, if none wait before it."""

ROOM_LATENCY = 5
"""Cycles from a result that is taken to the cycle in which ``has_room``, once more registered, may
decide about a row."""


class ResultBuffer(wiring.Component):
    """Keeps results until they are taken, and says whether whole rows of them have room.

    Parameters
    ----------
    row : int
        Results of a row, at most.
    depth : int
        Results that it holds: a power of two, at least ``2 * row``.
    target : str
        Primitives, see ``Ram``.

    Members
    -------
    i : In(stream of Result, always ready)
        Results, of rows that were reserved.
    reserve : In(range(row + 1))
        As many results will come.
    has_room : Out(1)
        Two rows have room. Three cycles late, so that one row more than it knows of may have been
        reserved: no sooner than in the fourth cycle after one may another one be.
    o : Out(stream of Result)
        The results.

    Timing
    ------
    Latency ``RESULTS_LATENCY`` (3) cycles, one result per cycle.
    """

    def __init__(self, *, row, depth, target="generic"):
        self.row, self.depth, self.target = row, depth, target
        super().__init__({
            "i": In(stream.Signature(Result, always_ready=True)),
            "reserve": In(range(row + 1)),
            "has_room": Out(1, init=1),
            "o": Out(stream.Signature(Result)),
        })

    def elaborate(self, platform):
        m = Module()
        free = Signal(range(self.depth + 1), init=self.depth)  # and not reserved
        change = Signal(signed(len(self.reserve) + 1))
        taken = Signal()
        m.d.sync += [taken.eq(self.o.valid & self.o.ready), change.eq(taken - self.reserve),
                     free.eq(free + change), self.has_room.eq(free >= 2 * self.row)]

        m.submodules.memory = mem = Ram(width=Result.size, depth=self.depth, target=self.target)
        write = Signal(range(self.depth))
        read = Signal(range(self.depth))
        s1_valid = Signal()
        # How many wait, less one: its sign says that none does.
        waiting = Signal(range(-1, self.depth), init=-1)
        goes = Signal()
        m.d.comb += [
            mem.i_address.eq(write), mem.i_data.eq(self.i.payload), mem.write.eq(self.i.valid),
            mem.address.eq(read), mem.read.eq(self.o.ready | ~self.o.valid),
            self.o.payload.as_value().eq(mem.o),
            goes.eq(mem.read & (waiting >= 0)),
        ]
        m.d.sync += [write.eq(write + self.i.valid), read.eq(read + goes),
                     waiting.eq(waiting + (self.i.valid - goes))]
        with m.If(mem.read):
            m.d.sync += [s1_valid.eq(waiting >= 0), self.o.valid.eq(s1_valid)]
        return m
