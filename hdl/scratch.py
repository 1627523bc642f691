"""The machine's scratch memory: many readers and writers, one word of each per cycle."""

from amaranth.hdl import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import any_of, delayed, register, register_like

__all__ = ["BYTES", "READ_LATENCY", "ReadPort", "Scratch", "write_request"]

BYTES = 8
"""Of a word."""

READ_LATENCY = 3
"""Cycles from a read that is granted to its word: choice, memory, register."""


class ReadPort(wiring.Signature):
    """A reader's end: while it ``wants`` the word at ``address``, it may be ``granted`` it.

    ``READ_LATENCY`` cycles later the word is there: ``valid``. It cannot be refused.
    """

    def __init__(self, width):
        super().__init__({"wants": Out(1), "address": Out(width), "granted": In(1),
                          "valid": In(1), "data": In(8 * BYTES)})


def write_request(width):
    """A word to be written: those of its bytes that ``bytes`` says."""
    return data.StructLayout({"address": width, "data": 8 * BYTES, "bytes": BYTES})


class Scratch(wiring.Component):
    """A memory of 64-bit words, written by byte; the first of those who want it gets it.

    No reader can hold up the others for ever, if each of them wants only what it has room for.

    Parameters
    ----------
    depth : int
        Words, a power of two.
    readers, writers : int
        How many there are, the most urgent first.
    steady : int
        Readers, the first ones, that ``clear`` does not concern.

    Members
    -------
    read : In(ReadPort(log2 depth)), ``readers`` times
    write : In(stream of write_request(log2 depth)), ``writers`` times
    clear : In(1)
        Words that are on their way will not come, nor those that are granted in this cycle.

    Timing
    ------
    One word read and one written per cycle. A word that is written can be read, if that is granted
    two cycles later or more.
    """

    def __init__(self, *, depth, readers, writers, steady=0):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth is a power of two, 2 or more; got {depth}")
        self.depth, self.steady = depth, steady
        width = depth.bit_length() - 1
        super().__init__({
            "read": In(ReadPort(width)).array(readers),
            "write": In(stream.Signature(write_request(width))).array(writers),
            "clear": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = memory.Memory(shape=8 * BYTES, depth=self.depth, init=[])
        self._read(m, words.read_port())
        self._write(m, words.write_port(granularity=8))
        return m

    def _read(self, m, port):
        wants = Cat(reader.wants for reader in self.read)
        granted = Signal(len(wants))
        m.d.comb += granted.eq(_first(wants))
        # The choice is one step, to fetch the address of the chosen one the next.
        keeps = Mux(self.clear, (1 << self.steady) - 1, (1 << len(wants)) - 1)
        s1_granted = delayed(m, granted & keeps, 1, "granted", reset_less=False)
        addresses = []
        for number, reader in enumerate(self.read):
            address = register_like(reader.address, name=f"s1_address_{number}")
            m.d.sync += address.eq(reader.address)
            addresses.append(Mux(s1_granted[number], address, 0))
        m.d.comb += [port.addr.eq(any_of(addresses)), port.en.eq(1)]
        s3_data = register(8 * BYTES)
        m.d.sync += s3_data.eq(port.data)
        valid = s1_granted
        for number in range(2, READ_LATENCY + 1):
            stage = Signal(len(wants), name=f"s{number}_valid")
            m.d.sync += stage.eq(valid & keeps)
            valid = stage
        for number, reader in enumerate(self.read):
            m.d.comb += [reader.granted.eq(granted[number]), reader.valid.eq(valid[number]),
                         reader.data.eq(s3_data)]

    def _write(self, m, port):
        valid = Cat(writer.valid for writer in self.write)
        granted = Signal(len(valid))
        m.d.comb += granted.eq(_first(valid))
        chosen = register(self.write[0].payload.shape())
        writes = Signal()
        m.d.sync += [
            writes.eq(valid.any()),
            chosen.as_value().eq(any_of([Mux(granted[number], writer.payload.as_value(), 0)
                                         for number, writer in enumerate(self.write)])),
        ]
        for number, writer in enumerate(self.write):
            m.d.comb += writer.ready.eq(granted[number])
        m.d.comb += [port.addr.eq(chosen.address), port.data.eq(chosen.data),
                     port.en.eq(Mux(writes, chosen.bytes, 0))]


def _first(bits):
    """The lowest bit that is set, alone."""
    return bits & (~bits + 1)
