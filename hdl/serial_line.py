"""A device at the other end of a serial line: for simulation, where a host has bytes, not wires."""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .device import Device
from .uart import UartReceiver, UartTransmitter

__all__ = ["SerialLine"]


class SerialLine(wiring.Component):
    """Sends bytes over a wire to a ``Device``, and gives the bytes that come back.

    Parameters
    ----------
    bit_cycles, machine
        As of the ``Device``.

    Members
    -------
    i, o : In(stream of 8 bits), Out(stream of 8 bits)
        Bytes to the device and from it. What is not taken in time is lost.
    """

    def __init__(self, *, bit_cycles, machine):
        self.bit_cycles, self.machine = bit_cycles, dict(machine)
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.device = device = Device(bit_cycles=self.bit_cycles, machine=self.machine)
        m.submodules.transmitter = transmitter = UartTransmitter(bit_cycles=self.bit_cycles)
        m.submodules.receiver = receiver = UartReceiver(bit_cycles=self.bit_cycles)
        wiring.connect(m, wiring.flipped(self.i), transmitter.i)
        wiring.connect(m, receiver.o, wiring.flipped(self.o))
        m.d.comb += [device.rx.eq(transmitter.tx), receiver.rx.eq(device.tx)]
        return m
