"""A device at the other end of a serial line: for simulation, where a host has bytes, not wires.

::

    i ---> transmitter --> rx  Device
    o <--- receiver <----- tx
    i_request, o_reply ------- its bus
"""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .device import Device
from .protocol import BUS_REPLY, BusRequest
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
        As of the ``Device``.
    """

    def __init__(self, *, bit_cycles, machine):
        self.bit_cycles, self.machine = bit_cycles, dict(machine)
        super().__init__({
            "i": In(stream.Signature(8)), "o": Out(stream.Signature(8)),
            "i_request": In(stream.Signature(BusRequest)),
            "o_reply": Out(stream.Signature(BUS_REPLY))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.device = device = Device(
            bit_cycles=self.bit_cycles, machine=self.machine, has_bus=True)
        m.submodules.transmitter = transmitter = UartTransmitter(bit_cycles=self.bit_cycles)
        m.submodules.receiver = receiver = UartReceiver(bit_cycles=self.bit_cycles)
        wiring.connect(m, wiring.flipped(self.i), transmitter.i)
        wiring.connect(m, receiver.o, wiring.flipped(self.o))
        wiring.connect(m, wiring.flipped(self.i_request), device.i_request)
        wiring.connect(m, device.o_reply, wiring.flipped(self.o_reply))
        m.d.comb += [device.rx.eq(transmitter.tx), receiver.rx.eq(device.tx)]
        return m
