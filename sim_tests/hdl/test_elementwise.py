# amaranth: UnusedElaboratable=no
"""The elementwise unit in Amaranth's simulator, bit for bit against the golden model.

In bulk and under all stalls: ``host/test_native_elementwise.py``.
"""

import pytest
from amaranth.hdl import *

from exactum.benches.elementwise_cases import (
    MODES,
    Operation,
    Row,
    expected,
    pack_beats,
    pack_operation,
    pack_rows,
    random_operation,
    unpack_rows,
)
from exactum.hdl import elementwise
from exactum.hdl.elementwise import ELEMENTWISE_LATENCY, Elementwise
from exactum.hdl.formats import FORMATS
from sim_tests.streams import PATTERNS, flowing, get, put, simulate

LENGTHS = (0, 1, 2, 3, 5, 4)


def run(lanes, operations, stall=flowing, drain=flowing, pause=flowing, reset_at=None):
    """Send operations; returns (rows out, stamps in, stamps out).

    With ``reset_at`` they go in for so many cycles, then there is a reset, and they come again.
    """
    dut, reset = Elementwise(lanes=lanes), Signal()
    items = {"i_operation": [pack_operation(one) for one in operations],
             "i_row": [row for one in operations for row in pack_rows(one)],
             "i": [beat for one in operations for beat in pack_beats(one, lanes)]}
    stalls = {"i_operation": pause(3), "i_row": pause(4), "i": stall(1)}
    entered, left, received = [], [], []

    async def begin(ctx, name):
        if reset_at is None:
            return
        port, waiting = getattr(dut, name), iter(items[name])
        ctx.set(Value.cast(port.payload), next(waiting))
        ctx.set(port.valid, 1)
        for _ in range(reset_at):
            if (await ctx.tick().sample(port.ready))[2]:
                ctx.set(Value.cast(port.payload), next(waiting, 0))
        ctx.set(port.valid, 0)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)

    def source(name):
        async def bench(ctx):
            await begin(ctx, name)
            await put(ctx, getattr(dut, name), items[name], stalls[name],
                      stamps=entered if name == "i" else None)
        return bench

    async def sink(ctx):
        if reset_at is not None:
            await ctx.tick().repeat(reset_at + 1)
            assert not ctx.get(dut.o.valid)
        received.extend(await get(ctx, dut.o, len(items["i"]), drain(2), stamps=left))
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.o.valid)

    simulate(ResetInserter(reset)(dut), *map(source, items), sink, limit=3000)
    return unpack_rows(received, lanes), entered, left


def check(lanes, operations, **stalls):
    """Run operations and compare every bit."""
    rows, entered, left = run(lanes, operations, **stalls)
    assert rows == [row for one in operations for row in expected(one)]
    return entered, left


def mixture(lengths=LENGTHS):
    """An operation of each mode, with the formats in turn."""
    names = list(FORMATS)
    return [random_operation(lengths, (names[i % 5], names[(i + 1) % 5], names[(i * 2 + 2) % 5]),
                             mode, seed=i) for i, mode in enumerate(MODES)]


def test_every_mode_and_format_without_a_bubble_between_operations():
    entered, left = check(2, mixture())
    assert entered == list(range(entered[0], entered[0] + len(entered)))
    assert left == [cycle + ELEMENTWISE_LATENCY for cycle in entered]


@pytest.mark.parametrize(("lanes", "length"), [(1, 1), (1, 7), (2, 5), (4, 13)])
def test_latency_and_cycles_are_those_documented(lanes, length):
    entered, left = check(lanes, [random_operation([length] * 5)])
    beats = -(-length // lanes)
    assert ELEMENTWISE_LATENCY == 43
    assert left[-1] - entered[0] + 1 == 5 * beats + 43
    assert [o - i for i, o in zip(entered, left, strict=True)] == [43] * 5 * beats


def test_stalls_of_all_streams_change_nothing():
    check(1, mixture((0, 3, 1))[::3], stall=PATTERNS["sparse"], drain=PATTERNS["bursts"],
          pause=PATTERNS["alternate"])


def test_a_result_comes_to_a_sink_that_waits_for_it():
    dut, operation = Elementwise(lanes=1), random_operation([1])

    async def bench(ctx):
        for name, item in (("i_operation", pack_operation(operation)),
                           ("i_row", pack_rows(operation)[0]),
                           ("i", pack_beats(operation, 1)[0])):
            ctx.set(Value.cast(getattr(dut, name).payload), item)
            ctx.set(getattr(dut, name).valid, 1)
        await ctx.tick().repeat(ELEMENTWISE_LATENCY)
        assert ctx.get(dut.o.valid)
        assert ctx.get(dut.o.payload.elements[0]) == expected(operation)[0][0]
        assert not ctx.get(dut.i.ready)

    simulate(dut, bench)


@pytest.mark.parametrize("reset_at", [4, 48])
def test_a_reset_in_the_middle_forgets_all(reset_at):
    check(1, mixture((3, 0, 4))[:4], reset_at=reset_at)


def test_signs_of_zeros_by_hand():
    zero, minus, one = 0, 1 << 31, 0x3F800000
    rows = [Row([one, minus, zero, minus], [one] * 4, [zero, zero, zero, minus], numbers)
            for numbers in ((one, one, zero), (zero, one, zero))]
    kept, turned = Operation(rows), Operation(rows, mode=(False, False, True))
    assert expected(kept)[0] == [0, 0xBF800000, 0xBF800000, 0xBF800000]
    assert expected(kept)[1] == [one, minus, zero, zero]
    assert expected(turned)[1] == [0xBF800000, zero, zero, zero]
    check(1, [kept, turned])


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"lanes": 3}, ValueError, "power of two in 1..16; got 3"),
    ({"lanes": 32}, ValueError, "power of two in 1..16; got 32"),
    ({"lanes": "4"}, TypeError, "lanes is an int; got '4'"),
    ({"lanes": True}, TypeError, "lanes is an int; got True"),
    ({"lanes": 4, "target": "ice40"}, ValueError, "target is one of"),
])
def test_constructor_names_the_rule_and_the_value(change, error, words):
    with pytest.raises(error, match=words.replace("..", r"\.\.")):
        Elementwise(**change)


@pytest.mark.parametrize(("name", "fault"), [
    ("MULTIPLY_LATENCY", elementwise.MULTIPLY_LATENCY - 1),
    ("ADD_LATENCY", elementwise.ADD_LATENCY + 1),
    ("WIDEN_LATENCY", elementwise.WIDEN_LATENCY + 1),
    ("turned", lambda value, turns: value),
    ("EnableInserter", lambda moves: lambda chains: chains),
])
def test_a_fault_is_caught(monkeypatch, name, fault):
    monkeypatch.setattr(elementwise, name, fault)
    with pytest.raises(AssertionError):
        check(1, mixture((3, 1))[::5], drain=PATTERNS["bursts"])
