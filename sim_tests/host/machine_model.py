"""The machine by docs/machine.md, in Python around the compiled units: a bus to test drivers with.

A mover that feeds a unit takes all its words at once. A unit works when every one of its streams
has come to its end, so that its cycles are those of an unstalled one.
"""

from collections import deque
from functools import cache

import numpy as np

from exactum.benches import elementwise_cases, softmax_cases
from exactum.hdl.elementwise import ElementwiseOperation
from exactum.hdl.formats import FP32, lookup
from exactum.hdl.layouts import UNSCALED, Operation, Result, mask_word
from exactum.hdl.machine_layouts import (
    COMMAND_WORDS,
    IDENTITY,
    REGISTER_BASE,
    UNIT_NAMES,
    Channel,
    Command,
    Fault,
    Opcode,
    Register,
    State,
    StatusWord,
)
from exactum.hdl.softmax_layouts import Part, SoftmaxOperation
from exactum.host.native import NativeUnit, pack
from sim_tests.repository import ROOT

__all__ = ["ModelBus"]

ITEM_CHANNELS = (Channel.ENGINE_OPERATION, Channel.ENGINE_B, Channel.ENGINE_ROW,
                 Channel.ENGINE_MASK, Channel.ENGINE_VALUES, Channel.SOFTMAX_OPERATION,
                 Channel.ELEMENTWISE_OPERATION, Channel.ELEMENTWISE_ROW)
RESULTS = {Channel.ENGINE_RESULT: "engine", Channel.SOFTMAX_RESULT: "softmax",
           Channel.ELEMENTWISE_RESULT: "elementwise"}


class Failed(Exception):
    """The list fails, for a reason."""


@cache
def compiled(unit, config):
    """A unit, kept between tests of one process."""
    return NativeUnit.of(unit, config, ROOT / "build" / "native")


class ModelBus:
    """A machine of a configuration."""

    def __init__(self, config):
        self.config = config
        self.generation = 1
        self.closed = False
        self.bytes = np.zeros(8 * config.device.memory_words, np.uint8)
        self.memory = self.bytes.view("<u8")
        self.watchdog = 1 << 20
        self.lists = 0
        mask_words = -(-mask_word(config.vpcu.scale_block).size // 64)
        self.item_words = {Channel.ENGINE_MASK: mask_words, Channel.ELEMENTWISE_ROW: 2}
        self.stop()

    def stop(self):
        self.state, self.fault, self.running = State.IDLE, Fault.NONE, 0
        self.queues = {channel: [] for channel in Channel}
        self.more = dict.fromkeys(Channel, False)
        self.work = {}
        self.out = {unit: deque() for unit in RESULTS.values()}
        self.fresh = set()
        self.cycles = [0] * len(UNIT_NAMES)
        self.lost = 0

    def close(self):
        self.closed = True

    def read(self, address, count):
        if address < REGISTER_BASE:
            assert address + count <= len(self.memory)
            return self.memory[address:address + count].astype(np.uint64)
        return np.array([self.register(address - REGISTER_BASE + n) for n in range(count)],
                        np.uint64)

    def write(self, address, words):
        assert words.dtype == np.uint64
        if address < REGISTER_BASE:
            assert address + len(words) <= len(self.memory)
            self.memory[address:address + len(words)] = words
        elif address == REGISTER_BASE + Register.CONTROL.value:
            if int(words[0]) & 1:
                self.stop()
            elif int(words[0]) & 2 and self.state != State.RUNNING:
                self.run(int(words[0]) >> 32)

    def register(self, number):
        if number == Register.IDENTITY.value:
            return IDENTITY
        if 0 <= number - Register.HASH.value < 4:
            at = 8 * (number - Register.HASH.value)
            return int.from_bytes(bytes.fromhex(self.config.hash)[at:at + 8], "little")
        if number == Register.STATUS.value:
            return StatusWord.const({
                "state": self.state, "fault": self.fault, "running": self.running,
                "busy": sum(1 << channel.value for channel in self.work)}).as_bits()
        if number == Register.LOST.value:
            return self.lost
        if 0 <= number - Register.CYCLES.value < len(UNIT_NAMES):
            return self.cycles[number - Register.CYCLES.value]
        return 0

    def run(self, at):
        """A list, until its end."""
        self.lists += 1
        self.state = State.RUNNING
        try:
            while self.state == State.RUNNING:
                words = self.memory[at:at + COMMAND_WORDS].astype("<u8").tobytes()
                if len(words) < 8 * COMMAND_WORDS:
                    raise Failed(Fault.ADDRESS)
                self.execute(Command.from_bits(int.from_bytes(words, "little")))
                at += COMMAND_WORDS
        except Failed as failure:
            self.stop()
            self.state, self.fault = State.FAILED, failure.args[0]

    def execute(self, command):
        if command.opcode not in {opcode.value for opcode in Opcode}:
            raise Failed(Fault.OPCODE)
        opcode = Opcode(command.opcode)
        if opcode == Opcode.END:
            self.advance()
            self.state = State.IDLE
        elif opcode == Opcode.MOVE:
            if command.channel not in {channel.value for channel in Channel}:
                raise Failed(Fault.CHANNEL)
            self.move(Channel(command.channel), command)
        elif opcode == Opcode.WAIT:
            self.advance()
            if any(command.mask >> channel.value & 1 for channel in self.work):
                raise Failed(Fault.WATCHDOG)
        elif opcode == Opcode.GO:
            self.running |= command.mask
            for number, name in enumerate(UNIT_NAMES):
                if command.mask >> number & 1:
                    self.fresh.add(name)
                    self.cycles[number] = 0
                    self.lost = 0 if name == "engine" else self.lost
        else:
            self.running &= ~command.mask

    def move(self, channel, command):
        if channel in RESULTS:
            self.advance()
            if channel in self.work:
                raise Failed(Fault.WATCHDOG)
            if command.inner and command.outer:
                self.work[channel] = self.places(command), command.size, command.mask
        elif channel in ITEM_CHANNELS:
            size = self.item_words.get(channel, 1)
            items, at = command.outer << 16 | command.inner, command.address // 8
            if command.address % 8 or at + items * size > len(self.memory):
                raise Failed(Fault.ADDRESS)
            found = self.memory[at:at + items * size].reshape(items, size).tolist()
            self.queues[channel] += [sum(word << 64 * n for n, word in enumerate(item))
                                     for item in found]
        else:
            width = 1 << command.size
            rows = [[int.from_bytes(self.bytes[at:at + width].tobytes(), "little") for at in row]
                    for row in self.places(command)]
            if channel == Channel.ENGINE_A:
                self.squeeze(rows, 8 * width)
            elif channel == Channel.ELEMENTWISE_X:
                flags = bool(command.with_q), bool(command.with_t)
                self.queues[channel] += [(row, *flags) for row in rows]
            else:
                self.queues[channel] += rows
        self.more[channel] = bool(command.more)

    def places(self, command):
        """The addresses of the elements, row by row."""
        width = 1 << command.size
        found = (command.address + np.arange(command.outer)[:, None] * signed(command.stride)
                 + np.arange(command.inner) * signed(command.step))
        wrong = (found < 0) | (found + width > len(self.bytes)) | (found % width != 0)
        if command.size > 2 or wrong.any():
            raise Failed(Fault.ADDRESS)
        return found

    def squeeze(self, rows, bits):
        """Masks and values of rows of elements."""
        block, per_word = self.config.vpcu.scale_block, 64 // bits
        for row in rows:
            for start in range(0, len(row), 64):
                part = row[start:start + 64]
                mask = {"mask": sum(bool(x & (1 << bits - 1) - 1) << n for n, x in enumerate(part))}
                if block:
                    mask["scales"] = [UNSCALED] * (64 // block)
                self.queues[Channel.ENGINE_MASK].append(mask_word(block).const(mask).as_bits())
            values = [x for x in row if x & (1 << bits - 1) - 1]
            for start in range(0, len(values), per_word):
                self.queues[Channel.ENGINE_VALUES].append(
                    sum(x << bits * n for n, x in enumerate(values[start:start + per_word])))

    def advance(self):
        """Units work whose streams have ended, and results go where they are to go."""
        for number, name in enumerate(UNIT_NAMES[:3]):
            channels = [c for c in Channel if c.name.startswith(name.upper()) and c not in RESULTS]
            if name in self.fresh and not any(self.more[c] for c in channels):
                self.fresh.discard(name)
                self.cycles[number] = getattr(self, f"run_{name}")()
                for channel in channels:
                    self.queues[channel] = []
        for channel in list(self.work):
            places, size, drop = self.work[channel]
            out = self.out[RESULTS[channel]]
            done = 0
            for row in places:
                if len(out) < len(row) + drop:
                    break
                for at in row:
                    self.bytes[at:at + (1 << size)] = np.frombuffer(
                        (out.popleft() & (1 << (8 << size)) - 1).to_bytes(1 << size, "little"),
                        np.uint8)
                for _ in range(drop):
                    out.popleft()
                done += 1
            self.work[channel] = places[done:], size, drop
            if done == len(places):
                del self.work[channel]

    def send(self, unit, inputs, wanted):
        native = compiled(unit, self.config)
        native.reset()
        packed = {name: pack(items, native._widths[name]) for name, items in inputs.items()}
        done = native.run(packed, {"o": wanted})
        assert not any(native.pending.values()), native.pending
        return done, [int.from_bytes(item.tobytes(), "little") for item in done.outputs["o"]]

    def run_engine(self):
        queues, wanted = self.queues, 0
        for bits in queues[Channel.ENGINE_OPERATION]:
            operation = Operation.from_bits(bits)
            wide = FP32.code in (operation.format_a, operation.format_b)
            columns = self.config.vpcu.lanes * (1 if wide else 4)
            wanted += operation.drain * operation.rows * columns
        done, found = self.send("engine", {
            "i_operation": queues[Channel.ENGINE_OPERATION], "i_b": queues[Channel.ENGINE_B],
            "i_row": queues[Channel.ENGINE_ROW], "i_mask": queues[Channel.ENGINE_MASK],
            "i_values": queues[Channel.ENGINE_VALUES]}, wanted)
        self.lost += sum(item >> Result["lost"].offset & 1 for item in found)
        self.out["engine"].extend(item & 0xFFFFFFFF for item in found)
        return done.span("i_operation", "o")

    def run_softmax(self):
        lanes, wanted = self.config.softmax.lanes, 0
        rows = deque(self.queues[Channel.SOFTMAX_ROW])
        beats = []
        for bits in self.queues[Channel.SOFTMAX_OPERATION]:
            operation = SoftmaxOperation.from_bits(bits)
            for _ in range(operation.rows):
                made = softmax_cases.pack_row(rows.popleft(), lanes)
                beats += made
                if operation.part in (Part.WHOLE, Part.PROBABILITIES):
                    wanted += len(made)
        assert not rows
        done, found = self.send("softmax", {
            "i_operation": self.queues[Channel.SOFTMAX_OPERATION], "i": beats}, wanted)
        self.out["softmax"].extend(
            bits for row in softmax_cases.unpack_rows(found, lanes) for bits in row)
        return done.span("i", "o")

    def run_elementwise(self):
        lanes, queues = self.config.elementwise.lanes, self.queues
        q, t = deque(queues[Channel.ELEMENTWISE_Q]), deque(queues[Channel.ELEMENTWISE_T])
        rows = deque(queues[Channel.ELEMENTWISE_X])
        beats = []
        for bits in queues[Channel.ELEMENTWISE_OPERATION]:
            operation = ElementwiseOperation.from_bits(bits)
            formats = tuple(next(name for name in ("e4m3", "e5m2", "fp16", "bf16", "fp32")
                                 if lookup(name).code == code)
                            for code in (operation.x, operation.q, operation.t))
            for _ in range(operation.rows):
                row, with_q, with_t = rows.popleft()
                assert (with_q, with_t) == (not operation.q_is_scalar, not operation.t_is_scalar)
                none = [0] * len(row)
                given = elementwise_cases.Row(row, q.popleft() if with_q else none,
                                              t.popleft() if with_t else none, ())
                beats += elementwise_cases.pack_beats(
                    elementwise_cases.Operation([given], formats), lanes)
        assert not rows
        assert not q
        assert not t
        done, found = self.send("elementwise", {
            "i_operation": queues[Channel.ELEMENTWISE_OPERATION],
            "i_row": queues[Channel.ELEMENTWISE_ROW], "i": beats}, len(beats))
        self.out["elementwise"].extend(
            bits for row in elementwise_cases.unpack_rows(found, lanes) for bits in row)
        return done.span("i", "o")


def signed(value):
    """32 bits as a number with a sign."""
    return value - (value >> 31 << 32)
