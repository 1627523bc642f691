"""A buffer between two units, so that neither's ready depends on the other's within a cycle."""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register_like

__all__ = ["StreamBuffer"]


class StreamBuffer(wiring.Component):
    """Passes a stream on, a cycle later; ``i.ready`` and ``o`` come straight from registers.

    Parameters
    ----------
    shape : shape-castable
        The payload's.

    Members
    -------
    i : In(stream of shape)
        What comes.
    o : Out(stream of shape)
        The same.

    Timing
    ------
    Latency 1 cycle, one payload per cycle. Two payloads wait at most.
    """

    def __init__(self, shape):
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        # ``spare`` takes the payload that was on its way when ``o`` stalled.
        spare = register_like(self.i.payload)
        has_spare = Signal()
        payload = register_like(self.o.payload)
        m.d.comb += [self.i.ready.eq(~has_spare), self.o.payload.eq(payload)]
        moves, comes = self.o.ready | ~self.o.valid, self.i.valid | has_spare
        # Written as gates: as a case of its own Yosys makes it a reset, which comes late.
        m.d.sync += [has_spare.eq(~moves & comes), self.o.valid.eq(~moves | comes)]
        with m.If(self.i.ready):
            m.d.sync += spare.eq(self.i.payload)
        with m.If(moves):
            m.d.sync += payload.eq(Mux(has_spare, spare, self.i.payload))
        return m
