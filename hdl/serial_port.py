"""A serial port to the bus: the link over a UART."""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .link import Link
from .protocol import BUS_REPLY, BusRequest
from .session import check_memory_words
from .uart import UartReceiver, UartTransmitter, check_bit_cycles

__all__ = ["SerialPort"]


class SerialPort(wiring.Component):
    """Executes what comes over a serial line on the bus, and answers.

    Parameters
    ----------
    bit_cycles : int
        At least ``LEAST_CYCLES``: cycles that a bit lasts.
    memory_words, target
        As in ``Link``.

    Members
    -------
    rx : In(1), tx : Out(1)
        The line, as in ``UartReceiver`` and ``UartTransmitter``.
    o_request, i_reply, taken, dropped, repeated
        As in ``Link``.

    Timing
    ------
    A byte in and one out every ``10 * bit_cycles`` cycles: the link behind is always faster.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a legal one.
    """

    def __init__(self, *, bit_cycles, memory_words, target="generic"):
        check_bit_cycles(bit_cycles)
        check_memory_words(memory_words)
        self.bit_cycles, self.memory_words, self.target = bit_cycles, memory_words, target
        super().__init__({
            "rx": In(1, init=1), "tx": Out(1, init=1),
            "o_request": Out(stream.Signature(BusRequest)),
            "i_reply": In(stream.Signature(BUS_REPLY)),
            "taken": Out(32), "dropped": Out(16), "repeated": Out(16),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(bit_cycles=self.bit_cycles)
        m.submodules.transmitter = transmitter = UartTransmitter(bit_cycles=self.bit_cycles)
        m.submodules.link = link = Link(memory_words=self.memory_words, target=self.target)
        wiring.connect(m, receiver.o, link.i)
        wiring.connect(m, link.o, transmitter.i)
        wiring.connect(m, link.o_request, wiring.flipped(self.o_request))
        wiring.connect(m, wiring.flipped(self.i_reply), link.i_reply)
        m.d.comb += [
            receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx),
            self.taken.eq(link.taken), self.dropped.eq(link.dropped),
            self.repeated.eq(link.repeated),
        ]
        return m
