"""What the machine is tested with: units that only pass their words on, a bus, commands."""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from exactum.gen.config import preset
from exactum.hdl.elementwise import ElementwiseOperation, ElementwiseRow, elementwise_beat
from exactum.hdl.layouts import (
    CodecOperation,
    CodecWord,
    Operation,
    PlainWord,
    Result,
    RowAnchor,
    mask_word,
)
from exactum.hdl.machine_layouts import (
    REGISTER_BASE,
    Channel,
    Command,
    Opcode,
    Register,
    State,
    StatusWord,
)
from exactum.hdl.protocol import BusRequest
from exactum.hdl.softmax_layouts import SoftmaxOperation, row_beat
from exactum.host.native import pack

__all__ = ["CONFIG", "END", "LANES", "WORDS", "Bus", "command", "digest", "elements_at", "mask_of",
           "passers"]

LANES = 2
WORDS = 512
CONFIG = preset("small", {"softmax.lanes": LANES, "elementwise.lanes": LANES,
                          "vpcu.b_depth": 64, "device.memory_words": WORDS})
REQUEST_WIDTH = Shape.cast(BusRequest).width


class Passer(wiring.Component):
    """A unit that gives each word of ``i`` again, a cycle later, and takes an operation for each.

    It never waits: a word that is missing makes it lose count.
    """

    def __init__(self, word, operation, result, convert):
        self.convert = convert
        super().__init__({"i_operation": In(stream.Signature(operation)),
                          "i": In(stream.Signature(word)), "o": Out(stream.Signature(result))})

    def elaborate(self, platform):
        m = Module()
        held = Signal.like(self.i.payload)
        has = Signal()
        m.d.comb += [
            self.i.ready.eq(self.o.ready | ~has), self.o.valid.eq(has),
            self.i_operation.ready.eq(self.i.valid & self.i.ready),
        ]
        m.d.comb += self.convert(held, self.o.payload)
        with m.If(self.i.ready):
            m.d.sync += [has.eq(self.i.valid), held.eq(self.i.payload)]
        return m


class RowPasser(Passer):
    """The same with a word for each row, taken with its last beat."""

    def __init__(self):
        wiring.Component.__init__(self, {
            "i_operation": In(stream.Signature(ElementwiseOperation)),
            "i_row": In(stream.Signature(ElementwiseRow)),
            "i": In(stream.Signature(elementwise_beat(LANES))),
            "o": Out(stream.Signature(row_beat(LANES)))})
        self.convert = lambda beat, o: [
            *(o.elements[n].eq(beat.x[n] + (beat.q[n] << 8) + (beat.t[n] << 16))
              for n in range(LANES)), o.count.eq(beat.count), o.last.eq(beat.last)]

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.i_row.ready.eq(
            self.i.valid & self.i.ready & self.i.payload.last)
        return m


class EnginePasser(wiring.Component):
    """Gives the lower half of each mask; and for an operation a digest of the values so far."""

    i_operation: In(stream.Signature(Operation))
    i_b: In(stream.Signature(64))
    i_row: In(stream.Signature(RowAnchor))
    i_mask: In(stream.Signature(mask_word(32)))
    i_values: In(stream.Signature(64))
    o: Out(stream.Signature(Result))

    def elaborate(self, platform):
        m = Module()
        digest = Signal(64)
        m.d.comb += [
            self.i_operation.ready.eq(~self.i_mask.valid), self.i_b.ready.eq(1),
            self.i_row.ready.eq(1), self.i_mask.ready.eq(1), self.i_values.ready.eq(1),
            self.o.valid.eq(self.i_mask.valid | self.i_operation.valid),
            self.o.payload.data.eq(Mux(self.i_mask.valid, self.i_mask.payload.mask[:32],
                                       digest[:32] ^ digest[32:])),
            self.o.payload.lost.eq(self.i_mask.valid & self.i_mask.payload.mask[31]),
        ]
        with m.If(self.i_values.valid):
            m.d.sync += digest.eq(digest.rotate_left(1) ^ self.i_values.payload)
        return m


def digest(words):
    """What ``EnginePasser`` makes of values."""
    found = 0
    for word in words:
        found = (found << 1 | found >> 63) & (1 << 64) - 1 ^ word
    return found & 0xFFFFFFFF ^ found >> 32


def passers(machine):
    beats = row_beat(LANES)
    return {
        "engine": EnginePasser(),
        "softmax": Passer(beats, SoftmaxOperation, beats, lambda i, o: [o.eq(i)]),
        "elementwise": RowPasser(),
        "compressor": Passer(64, CodecOperation, CodecWord, lambda i, o: [o.data.eq(i)]),
        "decompressor": Passer(CodecWord, CodecOperation, PlainWord,
                               lambda i, o: [o.data.eq(i.data), o.error.eq(i.last)]),
    }


def command(opcode, channel=Channel.ENGINE_OPERATION, **fields):
    """The three words of a command."""
    fields = {key: value & 0xFFFFFFFF if value < 0 else value for key, value in fields.items()}
    bits = Command.const({"opcode": opcode.value, "channel": channel.value, **fields}).as_bits()
    return [bits >> 64 * n & (1 << 64) - 1 for n in range(3)]


def mask_of(*channels):
    return sum(1 << channel.value for channel in channels)


END = command(Opcode.END)


class Bus:
    """The host's end."""

    def __init__(self, unit):
        self.unit = unit

    def write(self, address, words):
        self.unit.run({"i_request": pack((BusRequest.const({
            "data": word, "address": address + place, "write": 1}).as_bits()
            for place, word in enumerate(words)), REQUEST_WIDTH)})

    def read(self, address, count=1):
        requests = ((address + place) << 64 for place in range(count))
        return self.unit.run({"i_request": pack(requests, REQUEST_WIDTH)},
                             {"o_reply": count}).outputs["o_reply"].tolist()

    def register(self, register, offset=0):
        return self.read(REGISTER_BASE + register.value + offset)[0]

    def status(self):
        return StatusWord.from_bits(self.register(Register.STATUS))

    def start(self, address):
        self.write(REGISTER_BASE + Register.CONTROL.value, [address << 32 | 2])

    def run(self, commands, at=0):
        """Write a list, run it, and give the status behind its end."""
        self.write(at, [word for words in commands for word in words])
        self.start(at)
        for _ in range(5000):
            status = self.status()
            if status.state != State.RUNNING.value:
                return status
        raise AssertionError(f"the list does not end: {status}")


def elements_at(words, start, step, stride, rows, columns, size):
    """What a walk through the memory finds: rows of numbers."""
    text = b"".join(word.to_bytes(8, "little") for word in words)
    return [[int.from_bytes(text[at:at + (1 << size)], "little")
             for at in range(start + row * stride, start + row * stride + columns * step, step)]
            for row in range(rows)]
