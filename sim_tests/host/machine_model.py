"""The machine by docs/machine.md, in Python: a bus to test drivers with.

The engine is the compiled one; softmax and elementwise unit are the golden model. A mover that
feeds a unit takes all its words at once. A unit works when every one of its streams has come to its
end, so that its cycles are those of an unstalled one.
"""

from collections import deque

import numpy as np

from exactum.benches import elementwise_cases, softmax_cases
from exactum.hdl.elementwise import ElementwiseOperation, ElementwiseRow
from exactum.hdl.formats import FORMATS, FP32
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
from exactum.host.elementwise import elementwise_cycles
from exactum.host.softmax import softmax_cycles

__all__ = ["ModelBus"]

ITEM_CHANNELS = (Channel.ENGINE_OPERATION, Channel.ENGINE_B, Channel.ENGINE_ROW,
                 Channel.ENGINE_MASK, Channel.ENGINE_VALUES, Channel.SOFTMAX_OPERATION,
                 Channel.ELEMENTWISE_OPERATION, Channel.ELEMENTWISE_ROW)
NAMES = {fmt.code: name for name, fmt in FORMATS.items()}
RESULTS = {Channel.ENGINE_RESULT: "engine", Channel.SOFTMAX_RESULT: "softmax",
           Channel.ELEMENTWISE_RESULT: "elementwise"}


class Failed(Exception):
    """The list fails, for a reason."""


class ModelBus:
    """A machine of a configuration, around a compiled engine (`NativeUnit`) of its `vpcu`."""

    def __init__(self, config, engine):
        self.config, self.engine = config, engine
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

    def run_engine(self):
        queues, wanted = self.queues, 0
        for bits in queues[Channel.ENGINE_OPERATION]:
            operation = Operation.from_bits(bits)
            wide = FP32.code in (operation.format_a, operation.format_b)
            columns = self.config.vpcu.lanes * (1 if wide else 4)
            wanted += operation.drain * operation.rows * columns
        self.engine.reset()
        done = self.engine.run(
            {name: queues[Channel["ENGINE" + name[1:].upper()]] for name in self.engine.inputs},
            {"o": wanted})
        assert not any(self.engine.pending.values()), self.engine.pending
        found = done.outputs["o"].tolist()
        self.lost += sum(item >> Result["lost"].offset & 1 for item in found)
        self.out["engine"].extend(item & 0xFFFFFFFF for item in found)
        return done.span("i_operation", "o")

    def run_softmax(self):
        rows, cycles, count = deque(self.queues[Channel.SOFTMAX_ROW]), 0, 0
        for bits in self.queues[Channel.SOFTMAX_OPERATION]:
            operation = SoftmaxOperation.from_bits(bits)
            given = [rows.popleft() for _ in range(operation.rows)]
            if operation.part not in (Part.WHOLE, Part.PROBABILITIES):
                continue
            if operation.part == Part.PROBABILITIES:
                given = [[bits for row in given for bits in row]]
            for row in given:
                self.out["softmax"].extend(softmax_cases.expected(
                    row, NAMES[operation.format], NAMES[operation.result],
                    self.config.softmax.model_dump()))
            count += len(given)
            cycles = softmax_cycles(self.config, count, len(given[0]))
        assert not rows
        return cycles

    def run_elementwise(self):
        queues = self.queues
        q, t = deque(queues[Channel.ELEMENTWISE_Q]), deque(queues[Channel.ELEMENTWISE_T])
        rows, numbers = deque(queues[Channel.ELEMENTWISE_X]), deque(queues[Channel.ELEMENTWISE_ROW])
        cycles, count = 0, len(rows)
        for bits in queues[Channel.ELEMENTWISE_OPERATION]:
            operation = ElementwiseOperation.from_bits(bits)
            formats = [NAMES[code] for code in (operation.x, operation.q, operation.t)]
            mode = operation.q_is_scalar, operation.t_is_scalar, operation.negate
            for _ in range(operation.rows):
                row, with_q, with_t = rows.popleft()
                assert (with_q, with_t) == (not mode[0], not mode[1])
                own = numbers.popleft()
                given = elementwise_cases.Row(
                    row, q.popleft() if with_q else [], t.popleft() if with_t else [],
                    tuple(own >> ElementwiseRow[name].offset & 0xFFFFFFFF for name in "sqt"))
                (found,) = elementwise_cases.expected(
                    elementwise_cases.Operation([given], formats, mode))
                self.out["elementwise"].extend(found)
                cycles = elementwise_cycles(self.config, count, len(row))
        assert not any((rows, numbers, q, t))
        return cycles


def signed(value):
    """32 bits as a number with a sign."""
    return value - (value >> 31 << 32)
