"""The machine's bus: words of the scratch memory, and the registers (docs/machine.md)."""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register
from .machine_layouts import IDENTITY, REGISTER_BASE, REGISTERS, Register
from .protocol import BUS_REPLY, BusRequest
from .scratch import ReadPort, write_request
from .sequencer import WATCHDOG_WIDTH

__all__ = ["Registers"]

WORD = 64
DEFAULT_PATIENCE = 1 << 20


class Registers(wiring.Component):
    """Answers a bus: reads and writes the scratch memory and the registers.

    Parameters
    ----------
    width : int
        Bits of a word's address in the scratch memory.
    geometry : int
        GEOMETRY.
    hash : int
        The configuration's, 256 bits.
    units : int
        How many units have CYCLES.

    Members
    -------
    i, o : In(stream of BusRequest), Out(stream of 64 bits)
        Words that are read, in order. What is written outside of the memory and of the registers
        that can be written is lost; what is read there is 0.
    read, write : Out(ReadPort(width)), Out(stream of write_request(width))
        To the scratch memory.
    status, link, stalled, lost : In(64)
    cycles : In(64), ``units`` times
        Registers of these names.
    stop, start : Out(1)
        CONTROL, for one cycle.
    list : Out(32)
        With ``start``.
    patience : Out(WATCHDOG_WIDTH)

    Timing
    ------
    A write per cycle; a read takes 2 cycles, of the memory ``READ_LATENCY`` and 2 or more.
    """

    def __init__(self, *, width, geometry, hash, units):
        self.width, self.geometry, self.hash, self.units = width, geometry, hash, units
        super().__init__({
            "i": In(stream.Signature(BusRequest)), "o": Out(stream.Signature(BUS_REPLY)),
            "read": Out(ReadPort(width)), "write": Out(stream.Signature(write_request(width))),
            "status": In(WORD), "link": In(WORD), "stalled": In(WORD), "lost": In(WORD),
            "cycles": In(WORD).array(units),
            "stop": Out(1), "start": Out(1), "list": Out(32),
            "patience": Out(WATCHDOG_WIDTH, init=DEFAULT_PATIENCE),
        })

    def elaborate(self, platform):
        m = Module()
        request = self.i.payload
        is_register = request.address[REGISTER_BASE.bit_length() - 1]
        in_memory = ~request.address[self.width:].any()
        number = request.address[:REGISTERS.bit_length() - 1]
        in_registers = is_register & ~request.address[len(number):-1].any()
        answer = register(WORD)
        m.d.comb += [
            self.read.address.eq(request.address),
            self.write.payload.address.eq(request.address),
            self.write.payload.data.eq(request.data), self.write.payload.bytes.eq(~0),
            self.o.payload.eq(answer), self.list.eq(request.data[32:]),
        ]
        value = Signal(WORD)
        self._values(m, value, number)
        writes_register = Signal()
        with m.FSM(name="step"):
            with m.State("IDLE"), m.If(self.i.valid):
                with m.If(request.write & in_memory):
                    m.d.comb += [self.write.valid.eq(1), self.i.ready.eq(self.write.ready)]
                with m.Elif(~request.write & in_memory):
                    m.d.comb += [self.read.wants.eq(1), self.i.ready.eq(self.read.granted)]
                    with m.If(self.read.granted):
                        m.next = "FETCH"
                with m.Else():
                    m.d.comb += [self.i.ready.eq(1),
                                 writes_register.eq(request.write & in_registers)]
                    m.d.sync += answer.eq(Mux(in_registers, value, 0))
                    with m.If(~request.write):
                        m.next = "ANSWER"
            with m.State("FETCH"):
                m.d.sync += answer.eq(self.read.data)
                with m.If(self.read.valid):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "IDLE"
        m.d.comb += [
            self.stop.eq(writes_register & (number == Register.CONTROL) & request.data[0]),
            self.start.eq(writes_register & (number == Register.CONTROL) & request.data[1]
                          & ~request.data[0]),
        ]
        with m.If(writes_register & (number == Register.WATCHDOG)):
            m.d.sync += self.patience.eq(Mux(
                request.data[WATCHDOG_WIDTH:].any(), ~0, request.data[:WATCHDOG_WIDTH]))
        with m.If(self.stop):
            m.d.sync += self.patience.eq(DEFAULT_PATIENCE)
        return m

    def _values(self, m, value, number):
        """What each register reads as."""
        hash_words = [self.hash >> WORD * n & (1 << WORD) - 1 for n in range(256 // WORD)]
        values = {
            Register.IDENTITY: IDENTITY, Register.GEOMETRY: self.geometry,
            Register.STATUS: self.status, Register.WATCHDOG: self.patience,
            Register.LINK: self.link, Register.STALLED: self.stalled, Register.LOST: self.lost,
        }
        places = {place.value: word for place, word in values.items()}
        places |= {Register.HASH.value + n: word for n, word in enumerate(hash_words)}
        places |= {Register.CYCLES.value + n: word for n, word in enumerate(self.cycles)}
        with m.Switch(number):
            for place, word in places.items():
                with m.Case(place):
                    m.d.comb += value.eq(word)
