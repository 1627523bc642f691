"""The machine: all units, a scratch memory, movers between them and a sequencer (docs/machine.md).

::

    i, o (bus) -- Registers ---.
                               Scratch <--> movers <--> Shell(unit), five of them
                Sequencer -----'               ^
                    `----- commands -----------'
"""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import any_of
from .beats import BeatQueue, BeatSplitter
from .compressor import Compressor
from .decompressor import Decompressor
from .elementwise import Elementwise, elementwise_beat
from .engine import Engine
from .formats import lookup
from .machine_layouts import CHANNELS, UNIT_NAMES, Channel, StatusWord
from .movers import ElementFeeder, ElementTaker, WordFeeder, WordTaker
from .protocol import BUS_REPLY, BusRequest
from .registers import Registers
from .row_squeezer import RowFeeder
from .scratch import Scratch
from .sequencer import Sequencer
from .shell import Shell
from .softmax import Softmax
from .softmax_layouts import row_beat, row_sum

__all__ = ["Machine"]

WORD_STREAMS = {
    Channel.ENGINE_OPERATION: ("engine", "i_operation"), Channel.ENGINE_B: ("engine", "i_b"),
    Channel.ENGINE_ROW: ("engine", "i_row"), Channel.ENGINE_MASK: ("engine", "i_mask"),
    Channel.ENGINE_VALUES: ("engine", "i_values"),
    Channel.SOFTMAX_OPERATION: ("softmax", "i_operation"),
    Channel.ELEMENTWISE_OPERATION: ("elementwise", "i_operation"),
    Channel.ELEMENTWISE_ROW: ("elementwise", "i_row"),
    Channel.COMPRESSOR_OPERATION: ("compressor", "i_operation"),
    Channel.COMPRESSOR_PLAIN: ("compressor", "i"),
    Channel.DECOMPRESSOR_OPERATION: ("decompressor", "i_operation"),
    Channel.DECOMPRESSOR_WORD: ("decompressor", "i"),
}
ELEMENT_FEEDERS = (Channel.SOFTMAX_ROW, Channel.ELEMENTWISE_X, Channel.ELEMENTWISE_Q,
                   Channel.ELEMENTWISE_T)
ELEMENT_TAKERS = (Channel.ENGINE_RESULT, Channel.SOFTMAX_RESULT, Channel.ELEMENTWISE_RESULT)
WORD_TAKERS = {Channel.COMPRESSOR_RESULT: "compressor", Channel.DECOMPRESSOR_RESULT: "decompressor"}
BEGINS = {"engine": "i_operation", "softmax": "i", "elementwise": "i",
          "compressor": "i_operation", "decompressor": "i_operation"}


class Machine(wiring.Component):
    """Runs lists of commands: whole products, softmax, attention, without a host in between.

    Parameters
    ----------
    engine, softmax, elementwise, codec : mapping
        Parameters of the units (``Engine``, ``Softmax``, ``Elementwise``; ``Compressor`` and
        ``Decompressor``).
    memory_words : int
        Words of the scratch memory, a power of two.
    hash : str
        The configuration's, 64 hexadecimal digits.

    Members
    -------
    i_request : In(stream of BusRequest)
        Words to read and to write.
    o_reply : Out(stream of 64 bits)
        Those that were read, in order.
    link : In(64)
        Register LINK.

    Timing
    ------
    A list begins some cycles after it is started; each command takes some twelve. The units take
    exactly their own cycles, and wait for the memory in others (``Gate``).

    Raises
    ------
    TypeError, ValueError
        As the units.
    """

    def __init__(self, *, engine, softmax, elementwise, codec, memory_words, hash):
        self.engine, self.softmax, self.elementwise, self.codec = (
            dict(x) for x in (engine, softmax, elementwise, codec))
        if not 512 <= memory_words <= 65536 or memory_words & (memory_words - 1):
            raise ValueError(f"memory_words is a power of two, 512 to 65536; got {memory_words}")
        if len(hash) != 64:
            raise ValueError(f"hash has 64 hexadecimal digits; got {hash!r}")
        self.memory_words, self.hash = memory_words, hash
        super().__init__({
            "i_request": In(stream.Signature(BusRequest)),
            "o_reply": Out(stream.Signature(BUS_REPLY)),
            "link": In(64),
        })

    def units(self):
        """New units, by name."""
        return {
            "engine": Engine(**self.engine), "softmax": Softmax(**self.softmax),
            "elementwise": Elementwise(**self.elementwise),
            "compressor": Compressor(**self.codec), "decompressor": Decompressor(**self.codec)}

    def elaborate(self, platform):
        m = Module()
        width = self.memory_words.bit_length() - 1
        reset = Signal()
        shells = {name: Shell(unit, begins=BEGINS[name], target=self.engine["target"])
                  for name, unit in self.units().items()}
        movers = self._movers(shells, width)
        for name, part in shells.items():
            m.submodules[name] = part
            m.d.comb += part.reset.eq(reset)
        for channel, mover in movers.items():
            m.submodules[f"mover_{channel.name.lower()}"] = ResetInserter(reset)(mover)
        self._engine(m, shells["engine"], movers)
        self._rows(m, reset, shells, movers)
        self._codec(m, shells, movers)
        sequencer, registers = self._control(m, reset, shells, movers, width)
        self._memory(m, reset, movers, sequencer, registers)
        return m

    def _movers(self, shells, width):
        """A mover for each channel."""
        movers = {}
        for channel in Channel:
            if channel == Channel.SOFTMAX_SUM:
                if hasattr(shells["softmax"], "o_sum"):
                    movers[channel] = WordTaker(row_sum, width=width)
            elif channel in WORD_STREAMS:
                unit, name = WORD_STREAMS[channel]
                shape = getattr(shells[unit], name).payload.shape()
                movers[channel] = WordFeeder(shape, width=width)
            elif channel in WORD_TAKERS:
                shape = shells[WORD_TAKERS[channel]].o.payload.shape()
                movers[channel] = WordTaker(shape, width=width)
            elif channel in ELEMENT_FEEDERS:
                movers[channel] = ElementFeeder(width=width)
            elif channel in ELEMENT_TAKERS:
                movers[channel] = ElementTaker(width=width)
            else:
                movers[channel] = RowFeeder(
                    width=width, b_depth=self.engine["b_depth"],
                    scale_block=self.engine["scale_block"],
                    widest=max(lookup(x).width for x in self.engine["formats"]))
        return movers

    def _engine(self, m, shell, movers):
        rows, taker = movers[Channel.ENGINE_A], movers[Channel.ENGINE_RESULT]
        for channel in (Channel.ENGINE_OPERATION, Channel.ENGINE_B, Channel.ENGINE_ROW):
            _feed(m, shell, WORD_STREAMS[channel][1], movers[channel])
        for name, squeezed, ahead, channel in (
                ("i_mask", rows.o_mask, rows.mask_ahead, Channel.ENGINE_MASK),
                ("i_values", rows.o_values, rows.values_ahead, Channel.ENGINE_VALUES)):
            feeder, stream_in = movers[channel], getattr(shell, name)
            m.d.comb += [
                stream_in.valid.eq(squeezed.valid | feeder.o.valid),
                stream_in.payload.eq(Mux(squeezed.valid, squeezed.payload, feeder.o.payload)),
                squeezed.ready.eq(stream_in.ready),
                feeder.o.ready.eq(stream_in.ready & ~squeezed.valid),
                getattr(shell, f"supplied_{name}").eq(
                    feeder.ahead | ahead | (feeder.ends & rows.ends)),
            ]
        m.d.comb += [
            taker.i.valid.eq(shell.o.valid), taker.i.payload.eq(shell.o.payload.data),
            shell.o.ready.eq(taker.i.ready),
        ]

    def _rows(self, m, reset, shells, movers):
        """Softmax and elementwise: elements become beats, and beats elements."""
        lanes = {name: getattr(self, name)["lanes"] for name in ("softmax", "elementwise")}
        for channel in (Channel.SOFTMAX_OPERATION, Channel.ELEMENTWISE_OPERATION,
                        Channel.ELEMENTWISE_ROW):
            unit, name = WORD_STREAMS[channel]
            _feed(m, shells[unit], name, movers[channel])
        sources = {
            "softmax": [movers[Channel.SOFTMAX_ROW]],
            "elementwise": [movers[channel] for channel in (
                Channel.ELEMENTWISE_X, Channel.ELEMENTWISE_Q, Channel.ELEMENTWISE_T)]}
        shapes = {"softmax": (row_beat, ["elements"]),
                  "elementwise": (elementwise_beat, ["x", "q", "t"])}
        for unit, feeders in sources.items():
            make, fields = shapes[unit]
            beats = BeatQueue(make(lanes[unit]), fields=fields, lanes=lanes[unit])
            splitter = BeatSplitter(row_beat(lanes[unit]), lanes=lanes[unit])
            m.submodules[f"{unit}_beats"] = ResetInserter(reset)(beats)
            m.submodules[f"{unit}_splitter"] = ResetInserter(reset)(splitter)
            for i, feeder in zip(beats.i, feeders, strict=True):
                wiring.connect(m, feeder.o, i)
            shell = shells[unit]
            wiring.connect(m, beats.o, shell.i)
            m.d.comb += [
                shell.supplied_i.eq(beats.ahead | feeders[0].ends),
                beats.start.eq(feeders[0].start), beats.command.eq(feeders[0].command)]
            wiring.connect(m, shell.o, splitter.i)
            wiring.connect(m, splitter.o, movers[Channel[f"{unit.upper()}_RESULT"]].i)
        if Channel.SOFTMAX_SUM in movers:
            # What nobody asks for is dropped.
            taker, sums = movers[Channel.SOFTMAX_SUM], shells["softmax"].o_sum
            m.d.comb += [taker.i.valid.eq(sums.valid), taker.i.payload.eq(sums.payload),
                         sums.ready.eq(taker.i.ready | ~taker.expects)]

    def _codec(self, m, shells, movers):
        for channel, (unit, name) in WORD_STREAMS.items():
            if unit in WORD_TAKERS.values():
                _feed(m, shells[unit], name, movers[channel])
        for channel, unit in WORD_TAKERS.items():
            wiring.connect(m, shells[unit].o, movers[channel].i)

    def _control(self, m, reset, shells, movers, width):
        sizes = (self.memory_words, self.engine["lanes"], self.softmax["lanes"],
                 self.elementwise["lanes"])
        geometry = sum(size << place for size, place in zip(sizes, (0, 32, 40, 48), strict=True))
        m.submodules.registers = registers = Registers(
            width=width, geometry=geometry, hash=int.from_bytes(bytes.fromhex(self.hash), "little"),
            units=len(UNIT_NAMES))
        m.submodules.sequencer = sequencer = ResetInserter(registers.stop)(Sequencer(
            width=width, channels=[channel.value for channel in movers]))
        wiring.connect(m, wiring.flipped(self.i_request), registers.i)
        wiring.connect(m, registers.o, wiring.flipped(self.o_reply))
        status = Signal(StatusWord)
        stalled = Signal(64)
        lost = Signal(64)
        running = Cat(shells[name].running for name in UNIT_NAMES)
        busy = Signal(CHANNELS)
        engine = shells["engine"].o
        # What moves is seen a cycle later; the longest patience has no use for it sooner.
        moves = Signal()
        m.d.sync += moves.eq(any_of([
            sequencer.read.granted, *(port.granted for port in _read_ports(movers)),
            *(port.valid & port.ready for port in _write_ports(movers))]))
        m.d.comb += [
            reset.eq(registers.stop | sequencer.fails),
            *(busy[channel.value].eq(mover.busy) for channel, mover in movers.items()),
            status.state.eq(sequencer.state), status.fault.eq(sequencer.fault),
            status.running.eq(running), status.busy.eq(busy),
            registers.status.eq(status), registers.link.eq(self.link),
            registers.stalled.eq(stalled), registers.lost.eq(lost),
            *(cycles.eq(shells[name].cycles)
              for cycles, name in zip(registers.cycles, UNIT_NAMES, strict=True)),
            sequencer.start.eq(registers.start), sequencer.list.eq(registers.list),
            sequencer.patience.eq(registers.patience), sequencer.moves.eq(moves),
            sequencer.busy.eq(busy),
            *(sequencer.faults[channel.value].eq(mover.fault)
              for channel, mover in movers.items()),
        ]
        for channel, mover in movers.items():
            m.d.comb += [mover.command.eq(sequencer.command),
                         mover.start.eq(sequencer.starts[channel.value])]
        for number, name in enumerate(UNIT_NAMES):
            m.d.comb += [shells[name].go.eq(sequencer.go[number]),
                         shells[name].halt.eq(sequencer.halt[number]),
                         shells[name].keep.eq(sequencer.command.more)]
        stalls = any_of([shells[name].stalls for name in UNIT_NAMES])
        m.d.sync += stalled.eq(stalled + stalls)
        begins = Mux(sequencer.command.more, 0, sequencer.go)
        with m.If(begins.any()):
            m.d.sync += stalled.eq(0)
        with m.If(begins[UNIT_NAMES.index("engine")]):
            m.d.sync += lost.eq(0)
        with m.Elif(engine.valid & engine.ready & engine.payload.lost):
            m.d.sync += lost.eq(lost + 1)
        return sequencer, registers

    def _memory(self, m, reset, movers, sequencer, registers):
        """A reset forgets what movers and sequencer are still to get; the bus gets its words."""
        readers = [registers.read, sequencer.read, *_read_ports(movers)]
        writers = [registers.write, *_write_ports(movers)]
        m.submodules.scratch = scratch = Scratch(
            depth=self.memory_words, readers=len(readers), writers=len(writers), steady=1)
        m.d.comb += scratch.clear.eq(reset)
        for port, reader in zip(scratch.read, readers, strict=True):
            wiring.connect(m, reader, port)
        for port, writer in zip(scratch.write, writers, strict=True):
            wiring.connect(m, writer, port)


def _feed(m, shell, name, feeder):
    """A mover of words, straight into a stream."""
    wiring.connect(m, feeder.o, getattr(shell, name))
    m.d.comb += getattr(shell, f"supplied_{name}").eq(feeder.ahead | feeder.ends)


def _read_ports(movers):
    return [mover.read for mover in movers.values() if hasattr(mover, "read")]


def _write_ports(movers):
    return [mover.write for mover in movers.values() if hasattr(mover, "write")]
