# amaranth: UnusedElaboratable=no
"""The softmax unit in Amaranth's simulator, bit for bit against the golden model."""

import pytest
from amaranth.hdl import *

from exactum.benches.softmax_cases import (
    expected,
    named_rows,
    pack_operation,
    pack_row,
    random_rows,
    unpack_rows,
)
from exactum.hdl import softmax_output, softmax_power, softmax_sum
from exactum.hdl.arithmetic import shift_right
from exactum.hdl.softmax import Softmax, softmax_latency
from sim_tests.streams import PATTERNS, alternate, flowing, get, put, simulate

SMALL = {"lanes": 2, "max_length": 16, "exp_segments": 64, "reciprocal_segments": 128}


def run(parameters, operations, stall=flowing, drain=flowing):
    """Send operations (format, result, rows); returns (rows out, stamps in, stamps out)."""
    dut, lanes = Softmax(**parameters), parameters["lanes"]
    tokens = [pack_operation(f, r, len(rows)) for f, r, rows in operations]
    beats = [beat for _, _, rows in operations for row in rows for beat in pack_row(row, lanes)]
    entered, left, received = [], [], []

    async def source_operations(ctx):
        await put(ctx, dut.i_operation, tokens)

    async def source(ctx):
        await put(ctx, dut.i, beats, stall(1), stamps=entered)

    async def sink(ctx):
        received.extend(await get(ctx, dut.o, len(beats), drain(2), stamps=left))
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.o.valid)

    simulate(dut, source_operations, source, sink)
    return unpack_rows(received, lanes), entered, left


def check(parameters, operations, **stalls):
    """Run operations and compare every bit."""
    rows, entered, left = run(parameters, operations, **stalls)
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
    latency = 11 + (lanes - 1).bit_length()
    assert softmax_latency(lanes) == latency
    assert left[0] - entered[beats - 1] == latency
    assert left[-1] - entered[0] + 1 == 21 * beats + latency - 1


@pytest.mark.parametrize("drain", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("stall", PATTERNS.values(), ids=PATTERNS)
def test_stalls_of_source_and_sink_change_nothing(stall, drain):
    rows = random_rows("bf16", [1, 2, 3, 16, 9, 16, 16, 5, 1, 1, 1, 15, 16, 1], seed=7)
    check(SMALL, [("bf16", "fp16", rows)], stall=stall, drain=drain)


def test_full_queues_hold_everything():
    def blocked(seed):
        yield from [True] * 80
        yield from alternate()

    check(SMALL, [("fp32", "fp32", random_rows("fp32", [1] * 40 + [16] * 6, seed=5))],
          drain=blocked)


def test_row_sum_has_room_for_the_longest_row_of_the_largest_terms():
    # Octave 31 of a bin, the largest value: ln 2 times 31.99999.
    check(SMALL | {"lanes": 4}, [("fp32", "fp32", named) for named in (
        [[0x41B17217] * 16], [[0x41B17217] * 15 + [0xFF800000]])])


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"lanes": 3}, ValueError, "power of two in 1..16; got 3"),
    ({"lanes": "4"}, TypeError, "lanes is an int; got '4'"),
    ({"lanes": 2, "max_length": 1}, ValueError, "lanes..16384; got 1"),
    ({"max_length": 1 << 15}, ValueError, "16384; got 32768"),
    ({"exp_segments": 8}, ValueError, "power of two in 16..1024; got 8"),
    ({"reciprocal_segments": 2.0}, TypeError, "integer; got 2.0"),
])
def test_constructor_names_the_rule_and_the_value(change, error, words):
    with pytest.raises(error, match=words.replace("..", r"\.\.")):
        Softmax(**SMALL | change)


def without_sticky(m, value, amount):
    return shift_right(m, value, amount)[0], Const(0)


class OneBin(softmax_sum.Merger):
    """Leaves out the next lower bin when it comes from the other side."""

    def elaborate(self, platform):
        m = Module()
        is_a_top, is_b_top = self.a.key >= self.b.key, self.b.key >= self.a.key
        m.d.comb += [
            self.o.key.eq(Mux(is_a_top, self.a.key, self.b.key)),
            self.o.high.eq(Mux(is_a_top, self.a.high, 0) + Mux(is_b_top, self.b.high, 0)),
            self.o.low.eq(Mux(is_a_top, self.a.low, 0) + Mux(is_b_top, self.b.low, 0)),
        ]
        return m


@pytest.mark.parametrize(("module", "name", "fault"), [
    (softmax_power, "LOG2E", softmax_power.LOG2E + 1),
    (softmax_power, "CODE_SHIFT", softmax_power.CODE_SHIFT - 1),
    (softmax_output, "shift_right", without_sticky),
    (softmax_output, "LOWEST", -60),
    (softmax_sum, "Merger", OneBin),
])
def test_a_fault_is_caught(monkeypatch, module, name, fault):
    monkeypatch.setattr(module, name, fault)
    with pytest.raises(AssertionError, match="assert"):
        check(SMALL, [("fp32", result, named_rows("fp32", SMALL["max_length"]))
                      for result in ("fp32", "fp16", "e5m2")])
