"""The value unpacker in Amaranth's simulator."""

import random

import pytest
from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from exactum.hdl import unpacker
from exactum.hdl.arithmetic import delayed
from exactum.hdl.formats import FORMATS
from exactum.hdl.layouts import skipper_token
from exactum.hdl.unpacker import ValueUnpacker, element_layout
from sim_tests.streams import PATTERNS, get, pack, put, simulate

MAX_K = 64
ELEMENT, TOKEN = element_layout(MAX_K, 0), skipper_token(MAX_K, 0)


class Gated(wiring.Component):
    """The unpacker behind a source that heeds ``has_room``, and three cycles of way."""

    i: In(stream.Signature(ELEMENT))
    i_values: In(stream.Signature(64))
    o: Out(stream.Signature(TOKEN))

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = ValueUnpacker(max_k=MAX_K, scale_block=0)
        wiring.connect(m, wiring.flipped(self.i_values), dut.i_values)
        wiring.connect(m, dut.o, wiring.flipped(self.o))
        m.d.comb += self.i.ready.eq(dut.has_room)
        valid, payload = self.i.valid & self.i.ready, self.i.payload
        m.d.comb += [dut.i.valid.eq(delayed(m, Cat(valid), 3, "valid")),
                     dut.i.payload.eq(delayed(m, payload, 3, "element"))]
        return m


def words_of(values, width):
    """The values in 64-bit words, the last one's padding all ones to be seen if it leaks."""
    text = sum(value << width * i for i, value in enumerate(values))
    bits = -(-len(values) * width // 64) * 64
    text |= (2**bits - 1) >> len(values) * width << len(values) * width
    return [text >> at & (2**64 - 1) for at in range(0, bits, 64)]


def row(name, count, rng, ends=True):
    """A row of so many values and some elements without: (elements, words, tokens)."""
    fmt = FORMATS[name]
    takes = [1] * count + [0] * (count == 0 or rng.randrange(3))
    rng.shuffle(takes)
    values = [rng.getrandbits(fmt.width) for _ in range(count)]
    elements, tokens, draw = [], [], iter(values)
    for index, take in enumerate(takes):
        common = {"index": index, "last": index == len(takes) - 1, "empty": not count}
        elements.append(pack(ELEMENT, takes_value=take, format=fmt.code,
                             **common | {"last": common["last"] and ends}))
        tokens.append(common | {"value": next(draw) if take else 0})
    return elements, words_of(values, fmt.width), tokens


def run(rows, stalls=("flowing", "flowing", "flowing"), ends=True):
    """Rows as (format, number of values); check each token, and give the stamps."""
    dut, rng = Gated(), random.Random(len(rows))
    parts = [row(name, count, rng, ends) for name, count in rows]
    elements, words, expected = ([item for part in parts for item in part[n]] for n in range(3))
    stamps = []

    async def element_source(ctx):
        await put(ctx, dut.i, elements, PATTERNS[stalls[0]](1))

    async def word_source(ctx):
        await put(ctx, dut.i_values, words, PATTERNS[stalls[1]](2))

    async def sink(ctx):
        got = await get(ctx, dut.o, len(expected), PATTERNS[stalls[2]](3), stamps=stamps)
        assert got == [pack(TOKEN, **token) for token in expected]
        ctx.set(dut.o.ready, 1)
        for _ in range(6):
            assert not ctx.get(dut.o.valid)
            await ctx.tick()
        assert ctx.get(dut.i_values.ready)  # no word is held

    simulate(dut, element_source, word_source, sink)
    return stamps


@pytest.mark.parametrize("name", FORMATS)
def test_rows_of_every_length_one_element_per_cycle(name):
    stamps = run([(name, count) for count in range(1, 20)])
    assert stamps == list(range(6, 6 + len(stamps)))


@pytest.mark.parametrize("name", ["e4m3", "bf16", "fp32"])
def test_empty_rows_take_no_word(name):
    run([(name, count) for count in (0, 0, 3, 0, 8, 0, 0, 1, 0)])


@pytest.mark.parametrize("sink", PATTERNS)
@pytest.mark.parametrize("words", PATTERNS)
@pytest.mark.parametrize("elements", ["flowing", "bursts"])
def test_stalls_change_nothing_but_time(elements, words, sink):
    run([("e5m2", count) for count in (3, 8, 0, 17, 1, 9, 16, 2)], (elements, words, sink))


def test_the_width_may_change_from_row_to_row():
    rows = [(name, count) for count in (3, 0, 1, 8) for name in (
        "fp32", "e4m3", "fp16", "e5m2", "fp32", "bf16")]
    stamps = run(rows)
    assert stamps == list(range(6, 6 + len(stamps)))


BY_WIDTH = unpacker.by_width
MUTANTS = {
    "8-bit formats are taken for 16-bit ones": lambda format, choose: BY_WIDTH(
        Mux(Value.cast(format) < 2, 2, Value.cast(format)), choose),
    "fp32 is taken for bf16": lambda format, choose: BY_WIDTH(
        Mux(Value.cast(format) == 4, 3, Value.cast(format)), choose),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(mutant, monkeypatch):
    monkeypatch.setattr(unpacker, "by_width", MUTANTS[mutant])
    name = "e4m3" if mutant.startswith("8") else "fp32"
    with pytest.raises(AssertionError):
        run([(name, 3), (name, 9)])


def test_padding_that_is_not_dropped_is_caught():
    with pytest.raises(AssertionError):
        run([("e4m3", 3), ("e4m3", 9)], ends=False)
