"""The value unpacker in Amaranth's simulator."""

import random

import pytest
from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from exactum.hdl import unpacker
from exactum.hdl.formats import FORMATS, FormatCode
from exactum.hdl.unpacker import ValueUnpacker
from sim_tests.streams import PATTERNS, get, put, simulate


class Rows(wiring.Component):
    """Counts a row's elements for the unpacker, as the skipper does: `i_row` is their number.

    Without ``ends_rows`` it does not say that a row ended.
    """

    i_row: In(stream.Signature(16))
    i: In(stream.Signature(64))
    format: In(FormatCode)
    o: Out(stream.Signature(32))

    def __init__(self, ends_rows=True):
        self.ends_rows = ends_rows
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = ValueUnpacker()
        wiring.connect(m, wiring.flipped(self.i), dut.i)
        left = Signal(16)
        open_, ends = Signal(), Signal()
        m.d.comb += [
            dut.format.eq(self.format),
            self.o.payload.eq(dut.o.payload),
            self.o.valid.eq(dut.o.valid & open_ & (left != 0)),
            dut.o.ready.eq(self.o.ready & open_ & (left != 0)),
            ends.eq(open_ & ((left == 0) | (dut.o.valid & dut.o.ready & (left == 1)))),
            dut.row_end.eq(ends & self.ends_rows),
            self.i_row.ready.eq(~open_ | ends),
        ]
        with m.If(dut.o.valid & dut.o.ready):
            m.d.sync += left.eq(left - 1)
        with m.If(self.i_row.ready):
            m.d.sync += [open_.eq(self.i_row.valid), left.eq(self.i_row.payload)]
        return m


def words_of(elements, width):
    """The elements in 64-bit words, the last one's padding all ones to be seen if it leaks."""
    text = sum(e << width * i for i, e in enumerate(elements))
    bits = -(-len(elements) * width // 64) * 64
    text |= (2**bits - 1) >> len(elements) * width << len(elements) * width
    return [text >> at & (2**64 - 1) for at in range(0, bits, 64)]


def run(name, counts, stalls=("flowing", "flowing"), ends_rows=True):
    """Rows of so many elements; check each element, and give the stamps."""
    dut, width, rng = Rows(ends_rows), FORMATS[name].width, random.Random(len(counts))
    rows = [[rng.getrandbits(width) for _ in range(count)] for count in counts]
    expected = [element for row in rows for element in row]
    stamps = []

    async def row_source(ctx):
        ctx.set(dut.format, FORMATS[name].code)
        await put(ctx, dut.i_row, counts)

    async def source(ctx):
        words = [word for row in rows for word in words_of(row, width)]
        await put(ctx, dut.i, words, PATTERNS[stalls[0]](1))

    async def sink(ctx):
        got = await get(ctx, dut.o, len(expected), PATTERNS[stalls[1]](2), stamps=stamps)
        assert got == expected
        for _ in range(6):
            assert not ctx.get(dut.o.valid)
            await ctx.tick()
        assert ctx.get(dut.i.ready)  # no word is held

    simulate(dut, row_source, source, sink)
    return stamps


@pytest.mark.parametrize("name", FORMATS)
def test_rows_of_every_length_one_element_per_cycle(name):
    counts = list(range(1, 20))
    assert run(name, counts) == list(range(1, 1 + sum(counts)))


@pytest.mark.parametrize("name", ["e4m3", "bf16", "fp32"])
def test_empty_rows_take_no_word(name):
    run(name, [0, 0, 3, 0, 8, 0, 0, 1, 0])


@pytest.mark.parametrize("sink", PATTERNS)
@pytest.mark.parametrize("source", PATTERNS)
def test_stalls_change_nothing_but_time(source, sink):
    run("e5m2", [3, 8, 0, 17, 1, 9, 16, 2], (source, sink))


def test_the_width_may_change_between_rows():
    dut = Rows()

    async def bench(ctx):
        for name in ("fp32", "e4m3", "fp16", "e5m2", "fp32", "bf16"):
            width = FORMATS[name].width
            elements = [(3 + i) << (width - 6) for i in range(3)]
            ctx.set(dut.format, FORMATS[name].code)
            await put(ctx, dut.i_row, [3])
            first, *rest = words_of(elements, width)
            await put(ctx, dut.i, [first])
            got = []
            if rest:
                got = await get(ctx, dut.o, 2)
                await put(ctx, dut.i, rest)
            assert got + await get(ctx, dut.o, 3 - len(got)) == elements

    simulate(dut, bench)


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
    with pytest.raises(AssertionError):
        run("e4m3" if mutant.startswith("8") else "fp32", [3, 9])


def test_padding_that_is_not_dropped_is_caught():
    with pytest.raises(AssertionError):
        run("e4m3", [3, 9], ends_rows=False)
