"""A device at the other end of a serial line: for simulation, where a host has bytes, not wires.

::

    i ---> transmitter --- rx . .................. .
                              : port ---+          :
    o <--- receiver ------ tx :         +- machine : a ``Device``, but for the bus beside the port
    i_request, o_reply ------ : --------+          :
                              . .................. .
"""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .machine import Machine
from .protocol import BUS_REPLY, BusRequest
from .serial_port import SerialPort
from .uart import UartReceiver, UartTransmitter

__all__ = ["SerialLine"]


class SerialLine(wiring.Component):
    """A device whose line carries bytes, and whose bus can be had without the line, which is slow.

    Parameters
    ----------
    bit_cycles, machine
        As of the ``Device``.

    Members
    -------
    i, o : In(stream of 8 bits), Out(stream of 8 bits)
        Bytes to the device and from it. What is not taken in time is lost.
    i_request, o_reply : In(stream of BusRequest), Out(stream of 64 bits)
        Words of the machine, as of the ``Machine``; before what comes over the line.
    """

    def __init__(self, *, bit_cycles, machine):
        self.bit_cycles, self.machine = bit_cycles, dict(machine)
        super().__init__({
            "i": In(stream.Signature(8)), "o": Out(stream.Signature(8)),
            "i_request": In(stream.Signature(BusRequest)),
            "o_reply": Out(stream.Signature(BUS_REPLY))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.port = port = SerialPort(
            bit_cycles=self.bit_cycles, memory_words=self.machine["memory_words"],
            target=self.machine["engine"]["target"])
        m.submodules.machine = machine = Machine(**self.machine)
        m.submodules.transmitter = transmitter = UartTransmitter(bit_cycles=self.bit_cycles)
        m.submodules.receiver = receiver = UartReceiver(bit_cycles=self.bit_cycles)
        wiring.connect(m, wiring.flipped(self.i), transmitter.i)
        wiring.connect(m, receiver.o, wiring.flipped(self.o))
        m.d.comb += [
            port.rx.eq(transmitter.tx), receiver.rx.eq(port.tx),
            machine.link.eq(Cat(port.taken, port.dropped, port.repeated)),
        ]
        self._share(m, machine, port)
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
