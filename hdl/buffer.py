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
        spare, has_spare = register_like(self.i.payload), Signal()
        payload = register_like(self.o.payload)
        m.d.comb += [self.i.ready.eq(~has_spare), self.o.payload.eq(payload)]
        with m.If(self.i.ready):
            m.d.sync += spare.eq(self.i.payload)
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [
                self.o.valid.eq(self.i.valid | has_spare),
                payload.eq(Mux(has_spare, spare, self.i.payload)),
                has_spare.eq(0),
            ]
        with m.Elif(self.i.valid):
            m.d.sync += has_spare.eq(1)
        return m
