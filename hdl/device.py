"""The whole device: the machine behind a serial port (docs/protocol.md, docs/machine.md)."""

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .machine import Machine
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

    Members
    -------
    rx : In(1), tx : Out(1)
        The serial line; 1 when idle.

    Raises
    ------
    TypeError, ValueError
        As the parts.
    """

    def __init__(self, *, bit_cycles, machine):
        self.bit_cycles, self.machine = bit_cycles, dict(machine)
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.port = port = SerialPort(
            bit_cycles=self.bit_cycles, memory_words=self.machine["memory_words"],
            target=self.machine["engine"]["target"])
        m.submodules.machine = machine = Machine(**self.machine)
        wiring.connect(m, port.o_request, machine.i_request)
        wiring.connect(m, machine.o_reply, port.i_reply)
        m.d.comb += [
            port.rx.eq(self.rx), self.tx.eq(port.tx),
            machine.link.eq(Cat(port.taken, port.dropped, port.repeated)),
        ]
        return m
