"""Freezes a unit while words are missing, and counts the cycles in which it is not frozen."""

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["COUNT_WIDTH", "Gate"]

COUNT_WIDTH = 48
"""Bits of a counter of cycles: 32 days at 100 MHz."""


class Gate(wiring.Component):
    """Says in which cycles a unit moves: in those in which nothing it may want is missing.

    Parameters
    ----------
    streams : int
        Streams of the unit, in and out.

    Members
    -------
    go, halt : In(1)
        Set the unit going; freeze it.
    keep : In(1)
        With ``go``: go on counting from what was counted last, else from 0.
    supplied : In(streams)
        Each input has two items or has come to its end, each output has room for three: so in the
        next cycle, too, there is one.
    begins, gives : In(1)
        In a cycle in which the unit moves: it takes its first words of an operation; a result.
    enable : Out(1)
        The unit moves.
    running : Out(1)
        Between ``go`` and ``halt``.
    stalls : Out(1)
        It would move, but something is missing.
    cycles : Out(COUNT_WIDTH)
        In which it moved, from the first ``begins`` to the last ``gives``, both included.

    Timing
    ------
    ``enable`` follows ``supplied`` and ``go`` by one cycle and two.
    """

    def __init__(self, *, streams):
        super().__init__({
            "go": In(1), "halt": In(1), "keep": In(1), "supplied": In(streams),
            "begins": In(1), "gives": In(1),
            "enable": Out(1), "running": Out(1), "stalls": Out(1), "cycles": Out(COUNT_WIDTH)})

    def elaborate(self, platform):
        m = Module()
        count = Signal(COUNT_WIDTH)
        counts = Signal()
        now = Signal(COUNT_WIDTH)
        m.d.comb += [
            now.eq(count + 1),
            self.stalls.eq(self.running & ~self.enable),
        ]
        m.d.sync += self.enable.eq(self.running & self.supplied.all() & ~self.halt)
        with m.If(self.enable):
            with m.If(self.begins):
                m.d.sync += counts.eq(1)
            with m.If(counts | self.begins):
                m.d.sync += count.eq(now)
            with m.If(self.gives):
                m.d.sync += self.cycles.eq(now)
        with m.If(self.go):
            m.d.sync += [self.running.eq(1), counts.eq(0),
                         count.eq(Mux(self.keep, self.cycles, 0))]
            with m.If(~self.keep):
                m.d.sync += self.cycles.eq(0)
        with m.If(self.halt):
            m.d.sync += self.running.eq(0)
        return m
