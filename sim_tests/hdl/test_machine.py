"""The machine, compiled, around units that only pass their words on."""

import random

import pytest

from exactum.gen.native import compile_unit
from exactum.gen.units import SYSTEMS
from exactum.hdl.geometry import TARGETS
from exactum.hdl.machine import Machine
from exactum.hdl.machine_layouts import (
    REGISTER_BASE,
    UNIT_NAMES,
    Channel,
    Fault,
    Opcode,
    Register,
    State,
)
from exactum.host.native import NativeUnit
from sim_tests.hdl.machine_bench import (
    CONFIG,
    END,
    LANES,
    WORDS,
    Bus,
    command,
    digest,
    elements_at,
    mask_of,
    passers,
)


@pytest.fixture(scope="module", params=TARGETS)
def compiled(request):
    """The machine around the passers, compiled; on an ECP5 it is clocks that are held."""
    config = CONFIG.replace({"target": request.param})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Machine, "units", passers)
        with NativeUnit(compile_unit(SYSTEMS["machine"], config)) as unit:
            yield unit


@pytest.fixture
def bus(compiled):
    compiled.reset()
    bus = Bus(compiled)
    bus.write(0, [0] * WORDS)
    return bus


def test_memory_and_registers_answer_in_order(bus):
    assert bytes((bus.register(Register.IDENTITY)).to_bytes(8, "little")) == b"EXACTUM1"
    found = [bus.register(Register.HASH, n) for n in range(4)]
    text = b"".join(word.to_bytes(8, "little") for word in found).hex()
    assert text in [CONFIG.replace({"target": target}).hash for target in TARGETS]
    geometry = bus.register(Register.GEOMETRY)
    assert geometry & 0xFFFFFFFF == WORDS
    assert geometry >> 32 == CONFIG.vpcu.lanes | LANES << 8 | LANES << 16
    bus.write(WORDS - 2, [5, 7])
    assert bus.read(WORDS - 3, 3) == [0, 5, 7]
    bus.write(REGISTER_BASE + Register.WATCHDOG.value, [1234])
    assert bus.register(Register.WATCHDOG) == 1234



def test_what_lies_outside_is_not_written_and_reads_as_zero(bus):
    bus.write(0, [1, 2])
    for address in (WORDS, WORDS + 1, REGISTER_BASE - 1, REGISTER_BASE + Register.HASH.value,
                    REGISTER_BASE + 63, 2 * REGISTER_BASE - 1):
        bus.write(address, [99])
        assert 99 not in bus.read(address)
    assert bus.read(0, 3) == [1, 2, 0]
    assert bus.read(WORDS) == [0]



@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 70])
def test_words_pass_unchanged_and_the_unit_never_waits(bus, count):
    words = [random.Random(count).getrandbits(64) for _ in range(count)]
    bus.write(64, [*words, *[1] * count])
    status = bus.run([
        command(Opcode.MOVE, Channel.COMPRESSOR_PLAIN, address=8 * 64, inner=count),
        command(Opcode.MOVE, Channel.COMPRESSOR_OPERATION, address=8 * (64 + count),
                inner=count),
        command(Opcode.GO, mask=1 << UNIT_NAMES.index("compressor")),
        command(Opcode.MOVE, Channel.COMPRESSOR_RESULT, address=8 * 256, inner=count),
        command(Opcode.WAIT, mask=mask_of(Channel.COMPRESSOR_RESULT)),
        END])
    assert status.state == State.IDLE.value
    assert status.busy == 0
    assert status.running == 1 << UNIT_NAMES.index("compressor")
    found = bus.read(256, 2 * count)  # a result has 65 bits: two words
    assert found == [part for word in words for part in (word, 0)]
    assert bus.register(Register.CYCLES, UNIT_NAMES.index("compressor")) == count + 1



def test_a_stream_in_parts_is_one_stream(bus):
    """With ``more`` a unit is frozen between the parts: it takes the same cycles."""
    words = list(range(100, 130))
    bus.write(64, [*words, *[1] * 30])
    feed = [command(Opcode.MOVE, Channel.COMPRESSOR_PLAIN, address=8 * (64 + first),
                    inner=10, more=first < 20) for first in (0, 10, 20)]
    bus.run([
        command(Opcode.MOVE, Channel.COMPRESSOR_OPERATION, address=8 * 94, inner=30),
        feed[0],
        command(Opcode.GO, mask=1 << UNIT_NAMES.index("compressor")),
        command(Opcode.MOVE, Channel.COMPRESSOR_RESULT, address=8 * 256, inner=30),
        END])
    for _ in range(50):
        assert (bus.status()).busy == mask_of(
            Channel.COMPRESSOR_RESULT, Channel.COMPRESSOR_OPERATION)
    waited = bus.register(Register.STALLED)
    assert waited > 50
    bus.run([feed[1], END])
    bus.run([feed[2], command(Opcode.WAIT, mask=mask_of(Channel.COMPRESSOR_RESULT)),
                   command(Opcode.HALT, mask=31), END])
    assert (bus.read(256, 60))[::2] == words
    assert bus.register(Register.CYCLES, UNIT_NAMES.index("compressor")) == 31
    assert (bus.status()).running == 0



def test_counts_go_on_where_they_are_to_be_kept(bus):
    bus.write(64, [1] * 12)
    number = UNIT_NAMES.index("compressor")

    def work(count, more):
        return [command(Opcode.MOVE, Channel.COMPRESSOR_PLAIN, address=512, inner=count),
                command(Opcode.MOVE, Channel.COMPRESSOR_OPERATION, address=512, inner=count),
                command(Opcode.GO, mask=1 << number, more=more),
                command(Opcode.MOVE, Channel.COMPRESSOR_RESULT, address=2048, inner=count),
                command(Opcode.WAIT, mask=mask_of(Channel.COMPRESSOR_RESULT)),
                command(Opcode.HALT, mask=1 << number)]

    bus.run([*work(5, 0), *work(3, 1), END])
    assert bus.register(Register.CYCLES, number) == 6 + 4
    bus.run([*work(2, 0), END])
    assert bus.register(Register.CYCLES, number) == 3


def test_items_of_two_words_are_joined_and_split(bus):
    words = [7, 1, 1 << 63, 0, 9, 1]
    bus.write(64, [*words, 0, 0, 0])
    bus.run([
        command(Opcode.MOVE, Channel.DECOMPRESSOR_WORD, address=8 * 64, inner=3),
        command(Opcode.MOVE, Channel.DECOMPRESSOR_OPERATION, address=8 * 70, inner=3),
        command(Opcode.GO, mask=1 << UNIT_NAMES.index("decompressor")),
        command(Opcode.MOVE, Channel.DECOMPRESSOR_RESULT, address=8 * 256, inner=3),
        command(Opcode.WAIT, mask=mask_of(Channel.DECOMPRESSOR_RESULT)), END])
    assert bus.read(256, 6) == [7, 2, 1 << 63, 0, 9, 2]  # `error` is its bit 65



@pytest.mark.parametrize(("size", "step", "stride", "rows", "columns"), [
    (2, 4, 20, 3, 5), (1, 2, 14, 2, 7), (0, 1, 3, 4, 3), (0, 8, 1, 8, 5), (1, -2, 64, 2, 3),
    (2, 4, 4, 1, 1), (0, 5, 0, 2, 4)])
def test_elements_are_walked_by_step_and_stride(bus, size, step, stride, rows, columns):
    rng = random.Random(stride)
    words = [rng.getrandbits(64) for _ in range(40)]
    start = 8 * 64 + 32 * (step < 0)
    bus.write(64, words)
    bus.write(120, [1] * (rows * columns))
    status = bus.run([
        command(Opcode.MOVE, Channel.SOFTMAX_ROW, size=size, address=start, step=step,
                inner=columns, outer=rows, stride=stride),
        command(Opcode.MOVE, Channel.SOFTMAX_OPERATION, address=8 * 120,
                inner=rows * -(-columns // LANES)),
        command(Opcode.GO, mask=1 << UNIT_NAMES.index("softmax")),
        command(Opcode.MOVE, Channel.SOFTMAX_RESULT, size=size, address=8 * 256 + 8,
                step=1 << size, inner=columns, outer=rows, stride=columns << size),
        command(Opcode.WAIT, mask=mask_of(Channel.SOFTMAX_RESULT)), END])
    assert status.state == State.IDLE.value
    wanted = elements_at(words, start - 8 * 64, step, stride, rows, columns, size)
    count = rows * columns << size
    found = bus.read(256, 3 + count // 8)
    text = b"".join(word.to_bytes(8, "little") for word in found)
    assert text[8:8 + count] == b"".join(
        x.to_bytes(1 << size, "little") for row in wanted for x in row)
    assert not any(text[:8])
    assert not any(text[8 + count:])
    beats = rows * -(-columns // LANES)
    assert bus.register(Register.CYCLES, UNIT_NAMES.index("softmax")) == beats + 1



@pytest.mark.parametrize(("with_q", "with_t"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_elements_of_three_ways_meet(bus, with_q, with_t):
    x, q, t = [3, 1, 4, 1, 5, 9], [2, 7, 1, 8, 2, 8], [1, 4, 1, 4, 2, 1]
    bus.write(64, [*x, *q, *t])
    bus.write(100, [0] * 40)
    moves = [command(Opcode.MOVE, channel, size=0, address=8 * at, step=8, inner=3, outer=2,
                     stride=24, with_q=with_q, with_t=with_t)
             for channel, at, on in ((Channel.ELEMENTWISE_X, 64, 1),
                                     (Channel.ELEMENTWISE_Q, 70, with_q),
                                     (Channel.ELEMENTWISE_T, 76, with_t)) if on]
    bus.run([
        command(Opcode.MOVE, Channel.ELEMENTWISE_OPERATION, address=800, inner=4),
        command(Opcode.MOVE, Channel.ELEMENTWISE_ROW, address=800, inner=2), *moves,
        command(Opcode.GO, mask=1 << UNIT_NAMES.index("elementwise")),
        command(Opcode.MOVE, Channel.ELEMENTWISE_RESULT, size=2, address=8 * 256, step=4,
                inner=3, outer=2, stride=16),
        command(Opcode.WAIT, mask=mask_of(Channel.ELEMENTWISE_RESULT)), END])
    found = elements_at(bus.read(256, 4), 0, 4, 16, 2, 3, 2)
    wanted = [a + with_q * (b << 8) + with_t * (c << 16)
              for a, b, c in zip(x, q, t, strict=True)]
    assert [*found[0], *found[1]] == wanted



def squeezed(rows, size):
    """Masks and words of values of rows of elements, as the engine takes them."""
    masks, words, per_word = [], [], 8 >> size
    for row in rows:
        kept = [x for x in row if x & (1 << (8 << size) - 1) - 1]
        for first in range(0, len(row), 64):
            masks.append(sum(1 << n for n, x in enumerate(row[first:first + 64])
                             if x & (1 << (8 << size) - 1) - 1))
        words += [sum(x << (8 << size) * n for n, x in enumerate(kept[first:first + per_word]))
                  for first in range(0, len(kept), per_word)]
    return masks, words


@pytest.mark.parametrize(("size", "columns", "density"), [
    (0, 64, .5), (0, 10, 0), (1, 37, .9), (2, 64, .1), (0, 64, 1), (1, 1, .5)])
def test_rows_of_a_become_masks_and_values(bus, size, columns, density):
    rows, rng = 6, random.Random(columns)
    sign = 1 << (8 << size) - 1
    data = [[rng.randrange(1, 2 * sign) if rng.random() < density else rng.choice((0, sign))
             for _ in range(columns)] for _ in range(rows)]
    masks, values = squeezed(data, size)
    text = b"".join(x.to_bytes(1 << size, "little") for row in data for x in row)
    text += bytes(-len(text) % 8)
    bus.write(64, [int.from_bytes(text[at:at + 8], "little") for at in range(0, len(text), 8)])
    bus.run([
        command(Opcode.MOVE, Channel.ENGINE_A, size=size, address=8 * 64, step=1 << size,
                inner=columns, outer=rows, stride=columns << size),
        command(Opcode.GO, mask=1),
        command(Opcode.MOVE, Channel.ENGINE_RESULT, size=2, address=8 * 400, step=4,
                inner=rows, outer=1, stride=0),
        command(Opcode.WAIT, mask=mask_of(Channel.ENGINE_RESULT)), END])
    found = elements_at(bus.read(400, 4), 0, 4, 0, 1, rows, 2)[0]
    assert found == [mask & 0xFFFFFFFF for mask in masks]
    assert bus.register(Register.LOST) == sum(mask >> 31 & 1 for mask in masks)
    bus.run([
        command(Opcode.MOVE, Channel.ENGINE_OPERATION, address=8 * 400, inner=1),
        command(Opcode.MOVE, Channel.ENGINE_RESULT, size=2, address=8 * 410, inner=1, outer=1),
        command(Opcode.WAIT, mask=mask_of(Channel.ENGINE_RESULT)), END])
    assert bus.read(410)[0] == digest(values)


def test_results_are_placed_by_rows_and_padding_is_dropped(bus):
    bus.write(64, [word for n in range(12) for word in (n + 1, 0)])
    bus.run([
        command(Opcode.MOVE, Channel.ENGINE_MASK, address=8 * 64, inner=12),
        command(Opcode.GO, mask=1),
        command(Opcode.MOVE, Channel.ENGINE_RESULT, size=1, address=8 * 256, step=2,
                inner=3, outer=3, stride=8, mask=1),
        command(Opcode.WAIT, mask=mask_of(Channel.ENGINE_RESULT)), END])
    assert elements_at(bus.read(256, 3), 0, 2, 8, 3, 4, 1) == [
        [1, 2, 3, 0], [5, 6, 7, 0], [9, 10, 11, 0]]
    assert (bus.status()).busy == 0



@pytest.mark.parametrize(("words", "fault"), [
    ([9, 0, 0], Fault.OPCODE),
    ([Opcode.MOVE.value | len(Channel) << 8, 0, 0], Fault.CHANNEL),
    (command(Opcode.MOVE, Channel.SOFTMAX_SUM), Fault.CHANNEL),  # without logarithms
    ([Opcode.MOVE.value | 255 << 8, 0, 0], Fault.CHANNEL),
    (command(Opcode.MOVE, Channel.ENGINE_B, address=8 * WORDS, inner=1), Fault.ADDRESS),
    (command(Opcode.MOVE, Channel.ENGINE_B, address=8 * (WORDS - 1), inner=2), Fault.ADDRESS),
    (command(Opcode.MOVE, Channel.ENGINE_B, address=4, inner=1), Fault.ADDRESS),
    (command(Opcode.MOVE, Channel.SOFTMAX_ROW, size=2, address=2, inner=1, outer=1),
     Fault.ADDRESS),
    (command(Opcode.MOVE, Channel.SOFTMAX_ROW, size=1, address=1, inner=1, outer=1),
     Fault.ADDRESS),
    (command(Opcode.MOVE, Channel.SOFTMAX_ROW, size=3, address=0, inner=1, outer=1),
     Fault.ADDRESS),
    (command(Opcode.MOVE, Channel.SOFTMAX_ROW, address=0, step=-1, inner=2, outer=1),
     Fault.ADDRESS),
    (command(Opcode.MOVE, Channel.SOFTMAX_RESULT, address=1 << 31, inner=1, outer=1),
     Fault.ADDRESS),
    (command(Opcode.MOVE, Channel.COMPRESSOR_RESULT, address=8 * WORDS, inner=1), Fault.ADDRESS),
    (command(Opcode.WAIT, mask=mask_of(Channel.ENGINE_B)), None),
])
def test_a_bad_command_ends_the_list_and_the_next_one_runs(bus, words, fault):
    bus.write(0, [5] * 16)
    status = bus.run([words, command(Opcode.WAIT, mask=0xFFFFFFFF), END], at=16)
    if fault is None:
        assert status.state == State.IDLE.value
        return
    assert status.state == State.FAILED.value
    assert status.fault == fault.value
    assert status.busy == status.running == 0
    assert bus.read(0, 16) == [5] * 16
    again = bus.run([END], at=16)
    assert again.state == State.IDLE.value
    assert again.fault == Fault.NONE.value



def test_the_watchdog_ends_a_list_that_waits_for_ever(bus):
    bus.write(REGISTER_BASE + Register.WATCHDOG.value, [200])
    status = bus.run([
        command(Opcode.MOVE, Channel.COMPRESSOR_RESULT, address=0, inner=1),
        command(Opcode.WAIT, mask=mask_of(Channel.COMPRESSOR_RESULT)), END], at=16)
    assert status.state == State.FAILED.value
    assert status.fault == Fault.WATCHDOG.value
    assert status.busy == 0



def test_stop_brings_everything_back_to_idle(bus):
    bus.write(64, [1] * 8)
    bus.write(0, [word for words in (
        command(Opcode.MOVE, Channel.COMPRESSOR_PLAIN, address=512, inner=8, more=1),
        command(Opcode.GO, mask=31),
        command(Opcode.MOVE, Channel.SOFTMAX_RESULT, address=0, inner=1, outer=1),
        command(Opcode.WAIT, mask=0xFFFFFFFF), END) for word in words])
    bus.start(0)
    while not (bus.status()).running:
        pass
    bus.write(REGISTER_BASE + Register.CONTROL.value, [1])
    status = bus.status()
    assert (status.state, status.busy, status.running) == (State.IDLE.value, 0, 0)
    assert bus.read(64, 8) == [1] * 8
    # What was left in queues is gone: the next stream begins anew.
    bus.write(64, [7, 8, 0, 0])
    bus.run([
        command(Opcode.MOVE, Channel.COMPRESSOR_PLAIN, address=512, inner=2),
        command(Opcode.MOVE, Channel.COMPRESSOR_OPERATION, address=528, inner=2),
        command(Opcode.GO, mask=8),
        command(Opcode.MOVE, Channel.COMPRESSOR_RESULT, address=2048, inner=2),
        command(Opcode.WAIT, mask=mask_of(Channel.COMPRESSOR_RESULT)), END])
    assert bus.read(256, 4) == [7, 0, 8, 0]



BUSY_LIST = [
    command(Opcode.MOVE, Channel.DECOMPRESSOR_WORD, address=512, inner=10),
    command(Opcode.MOVE, Channel.COMPRESSOR_PLAIN, address=512, inner=20),
    command(Opcode.MOVE, Channel.SOFTMAX_ROW, size=2, address=512, step=4, inner=40, outer=1),
    command(Opcode.MOVE, Channel.ENGINE_A, size=1, address=512, step=2, inner=60, outer=1),
    command(Opcode.GO, mask=31)]


def check_afresh(bus):
    """Nothing is left of what was before: a stream through two channels that were busy."""
    assert (bus.status().busy, bus.status().running) == (0, 0)
    bus.write(200, [7, 0, 8, 1, 9, 0, 3, 4])
    found = bus.run([
        command(Opcode.MOVE, Channel.COMPRESSOR_PLAIN, address=1600, inner=3),
        command(Opcode.MOVE, Channel.COMPRESSOR_OPERATION, address=1600, inner=3),
        command(Opcode.MOVE, Channel.DECOMPRESSOR_WORD, address=1600, inner=3),
        command(Opcode.MOVE, Channel.DECOMPRESSOR_OPERATION, address=1600, inner=3),
        command(Opcode.GO, mask=24),
        command(Opcode.MOVE, Channel.COMPRESSOR_RESULT, address=2048, inner=3),
        command(Opcode.MOVE, Channel.DECOMPRESSOR_RESULT, address=2304, inner=3),
        command(Opcode.WAIT, mask=mask_of(Channel.COMPRESSOR_RESULT, Channel.DECOMPRESSOR_RESULT)),
        command(Opcode.HALT, mask=31), END])
    assert found.state == State.IDLE.value
    assert bus.read(256, 6) == [7, 0, 0, 0, 8, 0]
    assert bus.read(288, 6) == [7, 0, 8, 2, 9, 0]


def test_a_stop_in_any_cycle_leaves_nothing_behind(bus):
    """Words are on their way from the memory: to a mover, to the sequencer."""
    bus.write(64, range(1, 65))
    bus.write(0, [word for words in (*BUSY_LIST, END) for word in words])
    for wait in range(110):
        bus.start(0)
        for _ in range(wait):
            bus.write(400, [wait])      # a cycle each
        bus.write(REGISTER_BASE + Register.CONTROL.value, [1])
        check_afresh(bus)
        bus.write(0, [word for words in (*BUSY_LIST, END) for word in words])


@pytest.mark.parametrize("commands", range(1, len(BUSY_LIST)))
def test_a_failure_in_the_middle_leaves_nothing_behind(bus, commands):
    bus.write(64, range(1, 65))
    for wrong in ([9, 0, 0], command(Opcode.MOVE, Channel.ENGINE_B, address=4, inner=1)):
        status = bus.run([*BUSY_LIST[:commands], wrong, END])
        assert status.state == State.FAILED.value
        check_afresh(bus)


def test_elements_keep_the_company_that_their_own_command_gave_them(bus):
    bus.write(64, [*range(1, 41), *[100] * 8])
    bus.write(150, [0] * 60)
    moves = [command(Opcode.MOVE, Channel.ELEMENTWISE_X, size=0, address=512, step=8, inner=32,
                     outer=1, more=1),
             command(Opcode.MOVE, Channel.ELEMENTWISE_Q, size=0, address=512 + 320, step=8,
                     inner=8, outer=1),
             command(Opcode.MOVE, Channel.ELEMENTWISE_X, size=0, address=512 + 256, step=8,
                     inner=8, outer=1, with_q=1)]
    bus.run([
        command(Opcode.MOVE, Channel.ELEMENTWISE_OPERATION, address=1200, inner=20),
        command(Opcode.MOVE, Channel.ELEMENTWISE_ROW, address=1200, inner=2),
        moves[0], command(Opcode.GO, mask=1 << UNIT_NAMES.index("elementwise")),
        command(Opcode.MOVE, Channel.ELEMENTWISE_RESULT, size=2, address=2048, step=4, inner=40,
                outer=1), *moves[1:],
        command(Opcode.WAIT, mask=mask_of(Channel.ELEMENTWISE_RESULT)), END])
    found = elements_at(bus.read(256, 20), 0, 4, 0, 1, 40, 2)[0]
    assert found == [*range(1, 33), *(x + (100 << 8) for x in range(33, 41))]


@pytest.mark.parametrize(("written", "kept"), [(0, 0), (1, 1), (1 << 32, (1 << 32) - 1),
                                               ((1 << 64) - 1, (1 << 32) - 1)])
def test_a_watchdog_of_any_patience(bus, written, kept):
    """None at all, or as long as can be; a stop brings back the usual one."""
    at = REGISTER_BASE + Register.WATCHDOG.value
    bus.write(at, [written])
    assert bus.register(Register.WATCHDOG) == kept
    if written != 1:
        assert bus.run([command(Opcode.HALT, mask=1)] * 3 + [END]).state == State.IDLE.value
    bus.write(REGISTER_BASE + Register.CONTROL.value, [1])
    assert bus.register(Register.WATCHDOG) == 1 << 20


def test_a_list_that_is_started_while_one_runs_is_not(bus):
    bus.write(0, command(Opcode.WAIT, mask=mask_of(Channel.COMPRESSOR_RESULT)) + END)
    bus.write(32, command(
        Opcode.MOVE, Channel.COMPRESSOR_RESULT, address=0, inner=1)
        + command(Opcode.WAIT, mask=mask_of(Channel.COMPRESSOR_RESULT)) + END)
    bus.start(32)
    bus.start(0)
    for _ in range(20):
        assert (bus.status()).state == State.RUNNING.value
    bus.write(REGISTER_BASE + Register.CONTROL.value, [1])
    assert (bus.run([END], at=48)).state == State.IDLE.value

