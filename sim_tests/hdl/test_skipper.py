# amaranth: UnusedElaboratable=no
"""The skipper in Amaranth's simulator, token for token and cycle for cycle."""

import random
from itertools import chain

import pytest
from amaranth.hdl import *

from exactum.hdl import skipper
from exactum.hdl.formats import FormatCode
from exactum.hdl.layouts import mask_window, skipper_token
from exactum.hdl.skipper import SKIPPER_LATENCY, Skipper
from sim_tests.hdl.test_unpacker import words_of
from sim_tests.streams import PATTERNS, get, pack, put, simulate


def tokens_of(row, block, max_k, values):
    """The tokens of a row of (nonzero, force) windows; values are drawn from an iterator."""
    tokens = []
    for window, (nonzero, force) in enumerate(row):
        found = [i for i in range(block) if (nonzero | force) >> i & 1]
        for place in found or [0]:
            tokens.append({
                "index": (window * block + place) % max_k, "empty": not found, "last": 0,
                "value": next(values) if nonzero >> place & 1 else 0})
    tokens[-1]["last"] = 1
    return [pack(skipper_token(max_k, 0), **token) for token in tokens]


def cycles_of(rows):
    """The contract: each window costs its elements that count, and at least one cycle."""
    return sum(max(1, (nonzero | force).bit_count()) for row in rows for nonzero, force in row)


def run(rows, block=64, max_k=256, stalls=("flowing", "flowing", "flowing")):
    """Send the rows through, in fp32; check every token; give the stamps of the tokens."""
    dut = Skipper(block=block, max_k=max_k)
    layout = mask_window(block, 0)
    masks = [pack(layout, nonzero=nonzero, force=force, last=i == len(row) - 1,
                  format=FormatCode.FP32)
             for row in rows for i, (nonzero, force) in enumerate(row)]
    count = sum(nonzero.bit_count() for row in rows for nonzero, _ in row)
    values = [(i + 1) * 0x9E3779B1 % 2**32 for i in range(count)]
    draw, words = iter(values), []
    for row in rows:
        taken = [next(draw) for nonzero, _ in row for _ in range(nonzero.bit_count())]
        words += words_of(taken, 32)
    draw = iter(values)
    expected = list(chain(*(tokens_of(row, block, max_k, draw) for row in rows)))
    stamps = []

    async def mask_source(ctx):
        await put(ctx, dut.i_mask, masks, PATTERNS[stalls[0]](1))

    async def value_source(ctx):
        await put(ctx, dut.i_values, words, PATTERNS[stalls[1]](2))

    async def sink(ctx):
        got = await get(ctx, dut.o, len(expected), PATTERNS[stalls[2]](3), stamps=stamps)
        assert got == expected
        ctx.set(dut.o.ready, 1)
        for _ in range(4):
            assert not ctx.get(dut.o.valid)
            await ctx.tick()

    simulate(dut, mask_source, value_source, sink)
    return stamps


FULL = 2**64 - 1
DIRECTED = [
    [(0, 0)],                                   # a row of nothing
    [(0, 0), (0, 0), (0, 0)],                   # and a longer one
    [(FULL, 0)], [(0, FULL)], [(FULL, FULL)],   # all count
    [(1, 0)], [(1 << 63, 0)], [(0, 1)], [(0, 1 << 63)],
    [(1 << 63, 0), (1, 0)],                     # neighbours in two windows
    [(5, 0), (0, 0)], [(0, 0), (5, 0)],         # nothing at the end, at the beginning
    [(5, 0), (0, 0), (0, 0), (1 << 40, 2)],
    [(0xAAAA, 0x5555)], [(0b0110, 0b0011)],     # forced and not, both or either
    [(1, 0), (0, 4), (0, 0), (1 << 63 | 1, 1 << 62)],
]


def random_rows(count, block, windows, seed):
    """Rows of windows that are empty, dense or anything between."""
    rng = random.Random(seed)

    def bits(density):
        return sum((rng.random() < density) << i for i in range(block))

    return [[(bits(rng.choice((0, 0, 0.03, 0.3, 1))), bits(rng.choice((0, 0, 0, 0.05))))
             for _ in range(rng.randint(1, windows))] for _ in range(count)]


def test_directed_rows_one_token_per_cycle():
    stamps = run(DIRECTED)
    assert stamps == list(range(SKIPPER_LATENCY, SKIPPER_LATENCY + cycles_of(DIRECTED)))


@pytest.mark.parametrize(("block", "max_k"), [(8, 8), (8, 32), (16, 64), (32, 32), (64, 256)])
def test_random_rows_take_exactly_the_cycles_of_the_contract(block, max_k):
    rows = random_rows(40, block, max_k // block, seed=block)
    assert run(rows, block, max_k) == list(
        range(SKIPPER_LATENCY, SKIPPER_LATENCY + cycles_of(rows)))


@pytest.mark.parametrize("sink", PATTERNS)
@pytest.mark.parametrize("values", PATTERNS)
@pytest.mark.parametrize("masks", ["flowing", "bursts"])
def test_stalls_change_nothing_but_time(masks, values, sink):
    run(DIRECTED[5:] + random_rows(6, 64, 3, seed=7), stalls=(masks, values, sink))


@pytest.mark.parametrize(("parameters", "error", "text"), [
    ({"block": 24, "max_k": 64}, ValueError, "block is 8, 16, 32 or 64 elements; got 24"),
    ({"block": 64, "max_k": 32}, ValueError, "at least block"),
    ({"block": 8, "max_k": 48}, ValueError, "power of two"),
    ({"block": 8.0, "max_k": 64}, TypeError, "block is an int"),
    ({"block": 8, "max_k": "64"}, TypeError, "max_k is an int"),
    ({"block": 16, "max_k": 64, "scale_block": 32}, ValueError, "at most block .16.; got 32"),
    ({"block": 64, "max_k": 64, "scale_block": 24}, ValueError, "scale_block is one of"),
])
def test_illegal_parameters_are_refused(parameters, error, text):
    with pytest.raises(error, match=text):
        Skipper(**parameters)


MUTANTS = {
    "the highest element of a chunk has the number of another": ("encode", lambda genuine: (
        lambda selected: Mux(selected[-1], 0, genuine(selected)))),
    "two elements are taken for one": ("at_least", lambda genuine: (
        lambda number, bits: genuine(number, bits) & ~((number == 2) & bits[:2].all()))),
    "three elements are taken for two": ("at_least", lambda genuine: (
        lambda number, bits: genuine(number, bits) & ~((number == 3) & bits[:3].all()))),
    "an element goes twice": ("without_lowest", lambda genuine: (
        lambda bits: Mux(bits.all(), bits, genuine(bits)))),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(mutant, monkeypatch):
    name, change = MUTANTS[mutant]
    monkeypatch.setattr(skipper, name, change(getattr(skipper, name)))
    with pytest.raises(AssertionError):
        run(DIRECTED)

