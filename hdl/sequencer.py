"""Runs a list of commands out of the scratch memory (docs/machine.md)."""

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register
from .machine_layouts import CHANNELS, COMMAND_WORDS, UNIT_NAMES, Command, Fault, Opcode, State
from .scratch import BYTES, ReadPort

__all__ = ["WATCHDOG_WIDTH", "Sequencer"]

WATCHDOG_WIDTH = 32


class Sequencer(wiring.Component):
    """Fetches commands and gives them to movers and units, one after the other.

    Parameters
    ----------
    width : int
        Bits of a word's address.
    channels : sequence of int
        Those that there are.

    Members
    -------
    start : In(1)
        Begin at ``list``; only while not RUNNING.
    list : In(32)
        Address of a word.
    read : Out(ReadPort(width))
    command : Out(Command)
        For the mover whose bit of ``starts`` is set.
    starts, busy, faults : Out(CHANNELS), In(CHANNELS), In(CHANNELS)
        The movers'. ``busy`` must follow ``starts`` in the next cycle.
    go, halt : Out(units)
        For one cycle; ``command.more`` with ``go`` says that counts are kept.
    moves : In(1)
        Something moved: the watchdog is at ease.
    patience : In(WATCHDOG_WIDTH)
        Cycles that it waits; 0: for ever.
    state, fault : Out(State), Out(Fault)
    fails : Out(1)
        In this cycle, for ``fault``: everything else is to be reset.

    Timing
    ------
    A command takes 12 cycles or more, if the memory grants each word at once.
    """

    def __init__(self, *, width, channels=range(CHANNELS)):
        self.width, self.channels = width, tuple(channels)
        units = len(UNIT_NAMES)
        super().__init__({
            "start": In(1), "list": In(32), "read": Out(ReadPort(width)), "command": Out(Command),
            "starts": Out(CHANNELS), "busy": In(CHANNELS), "faults": In(CHANNELS),
            "go": Out(units), "halt": Out(units), "moves": In(1), "patience": In(WATCHDOG_WIDTH),
            "state": Out(State), "fault": Out(Fault), "fails": Out(1)})

    def elaborate(self, platform):
        m = Module()
        command = register(Command)
        address = register(32)
        place = Signal(range(COMMAND_WORDS))
        found = Signal(Fault)
        is_legal = ~address[self.width:].any()
        channel_busy = self.busy.bit_select(command.channel[:5], 1)
        mask = command.mask[:len(self.go)]
        m.d.comb += [
            self.command.eq(command), self.read.address.eq(address),
            self.fails.eq(found != Fault.NONE),
        ]
        with m.FSM(name="step"):
            with m.State("IDLE"), m.If(self.start & ~self.fails):
                m.d.sync += [address.eq(self.list), self.state.eq(State.RUNNING),
                             self.fault.eq(Fault.NONE)]
                m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += self.read.wants.eq(is_legal)
                with m.If(~is_legal):
                    m.d.comb += found.eq(Fault.ADDRESS)
                with m.If(self.read.granted):
                    m.d.sync += address.eq(address + 1)
                    m.next = "ARRIVE"
                self._give_up(m)
            with m.State("ARRIVE"):
                with m.If(self.read.valid):
                    m.d.sync += [
                        command.eq(Cat(command.as_value()[8 * BYTES:], self.read.data)),
                        place.eq(Mux(place == COMMAND_WORDS - 1, 0, place + 1))]
                    m.next = "FETCH"
                    with m.If(place == COMMAND_WORDS - 1):
                        m.next = "EXECUTE"
                self._give_up(m)
            with m.State("EXECUTE"):
                m.next = "FETCH"
                with m.Switch(command.opcode):
                    with m.Case(Opcode.END):
                        m.d.sync += self.state.eq(State.IDLE)
                        m.next = "IDLE"
                    with m.Case(Opcode.MOVE):
                        with m.If(~command.channel.matches(*self.channels)):
                            m.d.comb += found.eq(Fault.CHANNEL)
                        with m.Elif(channel_busy):
                            m.next = "EXECUTE"
                        with m.Else():
                            m.d.comb += self.starts.eq(1 << command.channel[:5])
                    with m.Case(Opcode.WAIT), m.If((self.busy & command.mask).any()):
                        m.next = "EXECUTE"
                    with m.Case(Opcode.GO):
                        m.d.comb += self.go.eq(mask)
                    with m.Case(Opcode.HALT):
                        m.d.comb += self.halt.eq(mask)
                    with m.Default():
                        m.d.comb += found.eq(Fault.OPCODE)
                self._give_up(m)
        self._watch(m, found)
        with m.If(self.fails):
            m.d.sync += [self.state.eq(State.FAILED), self.fault.eq(found), place.eq(0)]
        return m

    def _give_up(self, m):
        """At the end of a step."""
        with m.If(self.fails):
            m.next = "IDLE"

    def _watch(self, m, found):
        """Nothing moves, or a mover has lost its way."""
        idle = Signal(WATCHDOG_WIDTH)
        s1_faults = Signal()
        m.d.sync += [s1_faults.eq(self.faults.any()), idle.eq(idle + 1)]
        with m.If(self.moves | (self.state != State.RUNNING)):
            m.d.sync += idle.eq(0)
        with m.Elif(self.patience.any() & (idle >= self.patience)):
            m.d.comb += found.eq(Fault.WATCHDOG)
        with m.If(s1_faults):
            m.d.comb += found.eq(Fault.ADDRESS)
