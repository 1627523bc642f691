"""The whole device: the machine behind a serial port (docs/protocol.md, docs/machine.md)."""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .machine import Machine
from .protocol import BUS_REPLY, BusRequest
from .serial_port import SerialPort

__all__ = ["Device"]


class Device(wiring.Component):
    """What goes onto a board: two wires, and everything behind them.

    Parameters
    ----------
    bit_cycles : int
        Clock cycles that a bit on the line lasts.
    machine : mapping
        Parameters of the ``Machine``.
    has_bus : bool
        There is a bus beside the line.

    Members
    -------
    rx : In(1), tx : Out(1)
        The serial line; 1 when idle.
    i_request : In(stream of BusRequest), o_reply : Out(stream of 64 bits)
        As of the ``Machine``; served before what comes over the line.

    Raises
    ------
    TypeError, ValueError
        As the parts.
    """

    def __init__(self, *, bit_cycles, machine, has_bus=False):
        self.bit_cycles, self.machine, self.has_bus = bit_cycles, dict(machine), has_bus
        bus = {"i_request": In(stream.Signature(BusRequest)),
               "o_reply": Out(stream.Signature(BUS_REPLY))}
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), **(bus if has_bus else {})})

    def elaborate(self, platform):
        m = Module()
        m.submodules.port = port = SerialPort(
            bit_cycles=self.bit_cycles, memory_words=self.machine["memory_words"],
            target=self.machine["engine"]["target"])
        m.submodules.machine = machine = Machine(**self.machine)
        m.d.comb += [
            port.rx.eq(self.rx), self.tx.eq(port.tx),
            machine.link.eq(Cat(port.taken, port.dropped, port.repeated)),
        ]
        if self.has_bus:
            self._share(m, machine, port)
        else:
            wiring.connect(m, port.o_request, machine.i_request)
            wiring.connect(m, machine.o_reply, port.i_reply)
        return m

    def _share(self, m, machine, port):
        """One bus for two. A read is answered before the machine takes another request."""
        is_ours = Signal()       # whose read was taken last
        waits = Signal()         # the port's request was offered, and stays so
        chooses = Signal()       # ours is the one that is offered
        mine, theirs = self.i_request, port.o_request
        request, reply = machine.i_request, machine.o_reply
        m.d.comb += [
            chooses.eq(mine.valid & ~waits),
            request.valid.eq(mine.valid | theirs.valid),
            request.payload.eq(Mux(chooses, mine.payload, theirs.payload)),
            mine.ready.eq(request.ready & chooses), theirs.ready.eq(request.ready & ~chooses),
            self.o_reply.payload.eq(reply.payload), port.i_reply.payload.eq(reply.payload),
            self.o_reply.valid.eq(reply.valid & is_ours),
            port.i_reply.valid.eq(reply.valid & ~is_ours),
            reply.ready.eq(Mux(is_ours, self.o_reply.ready, port.i_reply.ready)),
        ]
        m.d.sync += waits.eq(request.valid & ~request.ready & ~chooses)
        with m.If(request.valid & request.ready):
            m.d.sync += is_ours.eq(chooses)
