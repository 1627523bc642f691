# amaranth: UnusedElaboratable=no
"""The softmax unit in Amaranth's simulator, bit for bit against the golden model."""

import random
from types import SimpleNamespace

import pytest
from amaranth.hdl import *

from exactum.benches.softmax_cases import (
    expected,
    named_rows,
    pack_operation,
    pack_operations,
    pack_row,
    random_rows,
    unpack_operations,
)
from exactum.hdl import (
    softmax,
    softmax_input,
    softmax_maximum,
    softmax_output,
    softmax_passes,
    softmax_power,
    softmax_sum,
)
from exactum.hdl.softmax import Softmax, softmax_latency
from exactum.host.softmax import softmax_cycles
from sim_tests.streams import PATTERNS, alternate, flowing, get, put, simulate

SMALL = {"lanes": 2, "max_length": 16, "exp_entries": 4096, "reciprocal_entries": 2048,
         "value_width": 18}


def run(parameters, operations, stall=flowing, drain=flowing, cuts=None):
    """Send operations (format, result, rows), the rows of each cut into blocks of ``cuts`` elements
    where they are longer; returns (rows out, stamps in, stamps out)."""
    dut, lanes = Softmax(**parameters), parameters["lanes"]
    cuts = cuts or [parameters["max_length"]] * len(operations)
    tokens, beats = [], []
    for operation, cut in zip(operations, cuts, strict=True):
        for all_of, more in zip((tokens, beats), pack_operations([operation], lanes, cut),
                                strict=True):
            all_of += more
    out = sum(len(pack_row(row, lanes)) for _, _, rows in operations for row in rows)
    entered, left, received = [], [], []

    async def source_operations(ctx):
        await put(ctx, dut.i_operation, tokens)

    async def source(ctx):
        await put(ctx, dut.i, beats, stall(1), stamps=entered)

    async def sink(ctx):
        received.extend(await get(ctx, dut.o, out, drain(2), stamps=left))
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.o.valid)

    simulate(dut, source_operations, source, sink)
    return unpack_operations(received, operations, lanes, cuts), entered, left


def check(parameters, operations, **options):
    """Run operations and compare every bit."""
    rows, entered, left = run(parameters, operations, **options)
    wanted = [expected(row, f, r, parameters) for f, r, rows in operations for row in rows]
    assert rows == wanted
    return entered, left


@pytest.mark.parametrize(("format", "result"), [
    ("e4m3", "fp32"), ("e5m2", "fp16"), ("fp16", "bf16"), ("bf16", "e4m3"), ("fp32", "fp32"),
    ("fp32", "e5m2"), ("fp32", "fp16"),
])
def test_directed_rows_equal_the_golden_model(format, result):
    check(SMALL, [(format, result, named_rows(format, SMALL["max_length"]))])


def test_operations_of_all_formats_follow_without_a_bubble():
    names = ("e4m3", "e5m2", "fp16", "bf16", "fp32")
    operations = [(f, r, random_rows(f, [16, 15, 16], seed=i + 5 * j))
                  for i, f in enumerate(names) for j, r in enumerate(names)]
    entered, left = check(SMALL, operations)
    assert entered == list(range(entered[0], entered[0] + len(entered)))
    assert left == list(range(left[0], left[0] + len(left)))


@pytest.mark.parametrize(("lanes", "length"), [(1, 1), (1, 7), (2, 16), (4, 13), (8, 8), (16, 33)])
def test_latency_and_cycles_are_those_documented(lanes, length):
    parameters = SMALL | {"lanes": lanes, "max_length": 64}
    entered, left = check(parameters, [("fp32", "fp32", random_rows("fp32", [length] * 20, 3))])
    beats = -(-length // lanes)
    assert softmax_latency(beats) == beats + 19
    assert left[0] - entered[beats - 1] == beats + 19
    assert left[-1] - entered[0] + 1 == 22 * beats + 18


@pytest.mark.parametrize("drain", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("stall", PATTERNS.values(), ids=PATTERNS)
def test_stalls_of_source_and_sink_change_nothing(stall, drain):
    rows = random_rows("bf16", [1, 2, 3, 16, 9, 16, 16, 5, 1, 1, 1, 15, 16, 1], seed=7)
    check(SMALL, [("bf16", "fp16", rows)], stall=stall, drain=drain)


def test_full_queues_hold_everything():
    def blocked(seed):
        yield from [True] * 200
        yield from alternate()

    for lengths in ([1] * 40 + [16] * 6, [16, 90, 16, 16, 17]):
        check(SMALL, [("fp32", "fp32", random_rows("fp32", lengths, seed=5))], drain=blocked)


def test_row_sum_has_room_for_the_longest_row_of_the_largest_terms():
    check(SMALL | {"lanes": 4}, [("fp32", "fp32", [
        [0x41B17217] * 16, [0x41B17217] * 15 + [0xFF800000], [0x41B17217] * 15 + [0x41B17216]])])


@pytest.mark.parametrize("change", [
    {"lanes": 1}, {"lanes": 4}, {"lanes": 8}, {"lanes": 16, "max_length": 64},
    {"exp_entries": 2048, "reciprocal_entries": 16384}, {"value_width": 22}, {"value_width": 19}],
    ids=str)
def test_other_parameters_equal_the_golden_model(change):
    check(SMALL | change, [("fp32", "fp32", named_rows("fp32", 16)),
                           ("bf16", "fp16", random_rows("bf16", [16, 1, 7, 16], seed=1))])


@pytest.mark.parametrize("lanes", [1, 2, 8, 16])
@pytest.mark.parametrize("length", [1, 5, 16])
def test_first_probability_comes_three_cycles_after_the_sum_is_final(monkeypatch, lanes, length):
    made, final, first = [], [], []

    class Watched(softmax_passes.Passes):
        def __init__(self, **parameters):
            super().__init__(**parameters)
            made.append(self)

    monkeypatch.setattr(softmax, "Passes", Watched)
    dut = Softmax(**SMALL | {"lanes": lanes})
    beats = pack_row(random_rows("fp32", [length], 2)[0], lanes)

    async def source(ctx):
        ctx.set(Value.cast(dut.i_operation.payload), pack_operation("fp32", "fp32", 3))
        ctx.set(dut.i_operation.valid, 1)
        await put(ctx, dut.i, beats * 3)

    async def watch(ctx):
        ctx.set(dut.o.ready, 1)
        (passes,), was_last = made, True
        for cycle in range(100):
            _, _, total, valid, last = await ctx.tick().sample(
                passes.sum_is_final, dut.o.valid, dut.o.payload.last)
            if total:
                final.append(cycle)
            if valid:
                if was_last:
                    first.append(cycle)
                was_last = last

    simulate(dut, source, watch)
    assert len(final) == 3
    assert [b - a for a, b in zip(final, first, strict=True)] == [3] * 3


INF, NAN = 0x7F800000, 0x7FC00000
LOWEST, ONE, LOW = 0xFF800000, 0x3F800000, 0xC3800000  # -Inf, 1, -256


@pytest.mark.parametrize("lanes", [1, 2, 16])
def test_long_rows_in_blocks_are_undefined_and_masked_as_others_are(lanes):
    length = SMALL["max_length"]
    for middle in range(0, 3 * length, length):
        rows = [[ONE] * middle + [odd] * length + [LOW] * (2 * length + 3 - middle)
                for odd in (NAN, ONE, INF, LOW, LOWEST)]
        check(SMALL | {"lanes": lanes}, [
            ("fp32", "fp32", [*rows, [LOWEST] * 40, rows[1], [LOWEST] * 3, [LOW] * 33, [NAN]])])


@pytest.mark.parametrize("drain", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize(("format", "result"), [
    ("fp32", "fp32"), ("bf16", "bf16"), ("e4m3", "fp16"), ("e5m2", "e4m3"), ("fp16", "fp32")])
def test_long_rows_mix_with_ordinary_ones(format, result, drain):
    lengths = [17, 48, 3, 16, 64, 33, 1, 1, 60, 31, 2, 50]
    check(SMALL, [(format, result, random_rows(format, lengths, seed=11)),
                  (result, format, random_rows(result, lengths[::-1], seed=12))],
          stall=flowing if drain is flowing else alternate, drain=drain)


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_sum_of_few_blocks_waits_for_the_probabilities_before_it(lanes):
    full, short = (random_rows("fp32", [length] * 2, seed=length) for length in (16, 5))
    short[0][0] = NAN
    check(SMALL | {"lanes": lanes},
          [("fp32", "fp32", rows) for rows in (full, short[:1], full[:1], short, full)],
          cuts=[16, 4, 16, 4, 16])


@pytest.mark.parametrize(("lanes", "length"), [(1, 17), (2, 48), (4, 35), (8, 64), (16, 17)])
def test_cycles_of_long_rows_are_those_of_the_formula(lanes, length):
    parameters, rows = SMALL | {"lanes": lanes}, 5
    entered, left = check(parameters, [("fp32", "fp32", random_rows("fp32", [length] * rows, 3))])
    assert left[-1] - entered[0] + 1 == softmax_cycles(
        SimpleNamespace(softmax=SimpleNamespace(**parameters)), rows, length)


@pytest.mark.parametrize(("lanes", "max_row"), [
    (1, 16), (2, 16), (16, 16), (8, 512), (16, 16384), (4, 31)])
def test_row_sum_is_cut_at_its_leading_one_whatever_its_size(lanes, max_row):
    width, draw = 18, random.Random(max_row + lanes)
    dut = softmax_sum.RowSum(lanes=lanes, max_row=max_row, value_width=width)
    one, most = 1 << width + 10, max_row // lanes
    rows = [[[(one, 0)] * lanes] * most, [[(one, 0)] * lanes] * (most - 1)]
    for count in [1, 1, 1, *(draw.randint(1, min(most, 64)) for _ in range(12))]:
        largest = one // draw.choice([1, 4, one])
        rows.append([[(draw.randint(largest + 1 >> 1, largest) - half, half)
                      for half in draw.choices((0, 1), k=lanes)] for _ in range(count)])
        rows[-1][draw.randrange(count)][draw.randrange(lanes)] = (one, 0)

    async def bench(ctx):
        flat = [(beat, number == 0, number == len(row) - 1, row)
                for row in rows for number, beat in enumerate(row)]
        for cycle in range(len(flat) + 3):
            if cycle < len(flat):
                for lane, (value, half) in enumerate(flat[cycle][0]):
                    ctx.set(dut.terms[lane].value, value)
                    ctx.set(dut.terms[lane].half, half)
            before = flat[cycle - 2] if 2 <= cycle < len(flat) + 2 else None
            ctx.set(dut.begins, bool(1 <= cycle <= len(flat) and flat[cycle - 1][1]))
            ctx.set(dut.valid, before is not None)
            ctx.set(dut.is_last, before is not None and before[2])
            fraction = (ctx.get(dut.found) >> ctx.get(dut.is_above)) % (1 << width)
            await ctx.tick()
            if before is not None and before[2]:
                total = sum(value + half for beat in before[3] for value, half in beat)
                place = total.bit_length() - one.bit_length()
                assert ctx.get(dut.place) == place
                assert fraction == (total >> place + 10) - (1 << width)

    simulate(dut, bench)


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"max_row": 8}, ValueError, "max_row is in max_length..16384; got 8"),
    ({"lanes": 3}, ValueError, "power of two in 1..16; got 3"),
    ({"lanes": "4"}, TypeError, "lanes is an int; got '4'"),
    ({"lanes": 2, "max_length": 1}, ValueError, "lanes..16384; got 1"),
    ({"max_length": 1 << 15}, ValueError, "16384; got 32768"),
    ({"exp_entries": 8}, ValueError, "power of two in 2048..16384; got 8"),
    ({"reciprocal_entries": 2.0}, TypeError, "integer; got 2.0"),
    ({"value_width": 17}, ValueError, "value_width is in 18..22; got 17"),
    ({"value_width": 18.0}, TypeError, "value_width is an int; got 18.0"),
    ({"target": "ice40"}, ValueError, "target is one of"),
])
def test_constructor_names_the_rule_and_the_value(change, error, words):
    with pytest.raises(error, match=words.replace("..", r"\.\.")):
        Softmax(**SMALL | change)


def without_half(a, b, half):
    return a + b


def larger_magnitude(a, b):
    return Mux(a[:-1] < b[:-1], b, a)


@pytest.mark.parametrize(("module", "name", "fault"), [
    (softmax_input, "CODE_ZERO", softmax_input.CODES[0]),
    (softmax_maximum, "larger", larger_magnitude),
    (softmax_maximum, "BIG", softmax_maximum.BIG - 1),
    (softmax_power, "FAR", 40),
    (softmax_sum, "add", without_half),
    (softmax_output, "FAR_SHIFT", 24),
    (softmax_passes, "UNDEFINED", softmax_passes.UNDEFINED + 1),
])
def test_a_fault_is_caught(monkeypatch, module, name, fault):
    monkeypatch.setattr(module, name, fault)
    with pytest.raises(AssertionError, match="assert"):
        check(SMALL, [("fp32", result, named_rows("fp32", SMALL["max_length"]))
                      for result in ("fp32", "fp16", "e5m2")])
