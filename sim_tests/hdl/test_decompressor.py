"""The decompressor in Amaranth's simulator: round trips, damaged streams, exact cycles."""

from itertools import chain

import pytest
import torch
from amaranth.hdl import *

from exactum.benches.codec_cases import (
    CASES,
    every_pattern,
    format_of,
    tensor_of,
    zero_fraction,
)
from exactum.hdl import decompressor, header, spreader
from exactum.hdl.decompressor import Decompressor
from exactum.hdl.formats import FORMATS
from exactum.hdl.layouts import CodecOperation, CodecWord, PlainWord
from exactum.host.codec import compress, decompress_cycles, read_stream
from sim_tests.streams import PATTERNS, fill, get, pack, put, simulate


def answer(format, words, blocks, block=64):
    """The payloads that the golden model expects for a stream, good or damaged."""
    plain, good = read_stream(torch.tensor(words, dtype=torch.uint64), blocks, format.width, block)
    if len(plain) < blocks * block * format.width // 64:
        plain.append(0)
    return [pack(PlainWord, data=word, last=i == len(plain) - 1,
                 error=i == len(plain) - 1 and not good) for i, word in enumerate(plain)]


def run(streams, block=64, stalls=("flowing", "flowing"), cycles=(), limit=8_000):
    """Decompress (format, words, blocks) one after another and compare.

    ``cycles``: if given, operations begin one by one, with their words, and take just so many.
    """
    dut = Decompressor(block=block)
    operations = [pack(CodecOperation, format=format.code, blocks=blocks)
                  for format, _, blocks in streams]
    answers = [answer(*item, block) if item[2] else [] for item in streams]
    done = []

    async def turn(ctx, number):
        while cycles and len(done) < number:
            await ctx.tick()

    async def operation_source(ctx):
        for number, operation in enumerate(operations):
            await turn(ctx, number)
            await put(ctx, dut.i_operation, [operation])

    async def source(ctx):
        stall = PATTERNS[stalls[0]](1)
        for number, (_, words, _) in enumerate(streams):
            await turn(ctx, number)
            await put(ctx, dut.i, [pack(CodecWord, data=word, last=i == len(words) - 1)
                                   for i, word in enumerate(words)], stall)

    async def sink(ctx):
        for expected, count in zip(answers, cycles, strict=False):
            stamps = []
            assert await get(ctx, dut.o, len(expected), stamps=stamps) == expected
            assert stamps[-1] == count
            done.append(count)
            await ctx.tick()
        if not cycles:
            expected = list(chain(*answers))
            assert await get(ctx, dut.o, len(expected), PATTERNS[stalls[1]](2)) == expected
        for _ in range(8):
            assert not ctx.get(dut.o.valid)
            await ctx.tick()

    simulate(dut, operation_source, source, sink, limit=limit)


def stream_of(x, block=64):
    """The stream of a tensor, as ``run`` takes it."""
    c = compress(x, block)
    return format_of(x), c.words.tolist(), c.blocks


@pytest.mark.parametrize("name", FORMATS)
def test_corner_blocks_and_their_cycles(name):
    tensors = [tensor_of(name, case) for case in CASES.values()]
    run([stream_of(x) for x in tensors],
        cycles=[decompress_cycles(x.float() != 0, FORMATS[name].width) for x in tensors])


@pytest.mark.parametrize("name", ["e4m3", "fp16", "fp32"])
def test_cycles_are_exactly_those_of_the_model(name):
    tensors = [zero_fraction(name, 64 * blocks, zeros)
               for zeros in (0, 0.05, 0.5, 0.95, 1) for blocks in (1, 3)]
    run([stream_of(x) for x in tensors],
        cycles=[decompress_cycles(x.float() != 0, FORMATS[name].width) for x in tensors])


@pytest.mark.parametrize(("name", "zeros", "expected"), [
    ("e4m3", 0, 88), ("fp32", 0, 88), ("e4m3", 1, 70), ("fp32", 1, 67)])
def test_a_stall_holds_up_the_input_when_some_words_wait(name, zeros, expected):
    format, words, blocks = stream_of(zero_fraction(name, 64 * (80 if zeros else 12), zeros))
    dut, came = Decompressor(block=64), []

    async def operation_source(ctx):
        await put(ctx, dut.i_operation, [pack(CodecOperation, format=format.code, blocks=blocks)])

    async def source(ctx):
        came.append(await fill(ctx, dut.i, [pack(CodecWord, data=word) for word in words]))

    simulate(dut, operation_source, source)
    assert came == [expected]


@pytest.mark.parametrize("name", FORMATS)
def test_every_pattern_of_zeros_in_a_block_of_eight(name):
    run([stream_of(every_pattern(name), 8)], 8)


@pytest.mark.parametrize("block", [8, 16, 32])
def test_smaller_blocks(block):
    run([stream_of(zero_fraction(name, 3 * block, zeros), block)
         for name in ("e5m2", "bf16", "fp32") for zeros in (0, 0.2, 0.5, 1)], block)


@pytest.mark.parametrize(("source", "sink"), [  # the bench on the Verilog crosses them all
    ("alternate", "flowing"), ("flowing", "sparse"), ("sparse", "bursts"), ("bursts", "alternate")])
def test_operations_of_all_formats_back_to_back_under_stalls(source, sink):
    streams = [stream_of(zero_fraction(name, 64 * blocks, zeros)) for name, blocks, zeros in [
        ("e4m3", 3, 0.3), ("fp32", 2, 0.5), ("bf16", 1, 1), ("e5m2", 2, 0), ("fp16", 3, 0.9)]]
    damaged = (FORMATS["e4m3"], streams[0][1] + [1, 2, 3, 4], 3)
    run([*streams[:2], damaged, *streams[2:], (FORMATS["e4m3"], [], 0)], stalls=(source, sink))


@pytest.mark.parametrize("name", ["e4m3", "bf16", "fp32"])
def test_damaged_streams_end_in_an_error_and_the_next_one_is_well(name):
    good = [stream_of(zero_fraction(name, 64 * 2, zeros)) for zeros in (0, 0.5, 0.95, 1)]
    streams = []
    for format, words, blocks in good:
        cuts = {1, 2, len(words) // 2, len(words) - 1} - {0, len(words)}
        streams += [(format, words[:cut], blocks) for cut in sorted(cuts)]  # too short
        streams += [(format, words, blocks + 1), (format, words, blocks), (format, words, 1)]
        streams += [(format, words + [0] * extra, blocks) for extra in (1, 2, 3, 9)]  # too long
        streams += [(format, [*words[:-1], words[-1] | 1 << 63], blocks)]  # padding not zero
        streams += [(format, [2**64 - 1] * 5, blocks), (format, [0], blocks)]  # no stream at all
        streams += [(format, words, blocks)]
    assert sum(answer(*item)[-1] >> 65 for item in streams) >= 4 * 9
    run(streams)
    run(streams[:14], stalls=("alternate", "bursts"))


COUNT, RANKS, LANES, WORD_BYTES = (header.count_octet, spreader.ranks, spreader.lanes_from,
                                   spreader.word_bytes)
MIXED = [stream_of(zero_fraction(name, 128, 0.4)) for name in ("e4m3", "fp16", "fp32")]


class HastyReader(header.HeaderReader):
    """Finds every stream well padded and as long as it should be."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.o_good.payload.eq(1)
        return m


MUTANTS = {
    "a byte of ones counts for seven": (
        header, "count_octet", lambda bits: COUNT(bits & 0x7F), MIXED),
    "the highest byte comes from the lane below": (
        spreader, "ranks", lambda keep: [*RANKS(keep)[:7], RANKS(keep)[7] - 1], MIXED),
    "an item used up is used again": (
        spreader, "lanes_from", lambda lane, used: LANES(lane, used) | (used == 8).replicate(8),
        MIXED),
    "elements always have 8 bits": (
        spreader, "word_bytes", lambda octet, number, code: WORD_BYTES(octet, number, 0), MIXED),
    "every stream seems to have ended well": (
        decompressor, "HeaderReader", HastyReader,
        [(FORMATS["e4m3"], [0, 1 << 63, 0, 0, 0, 0, 0, 0, 1 << 63], 1)]),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(mutant, monkeypatch):
    module, target, fault, streams = MUTANTS[mutant]
    monkeypatch.setattr(module, target, fault)
    with pytest.raises(AssertionError):
        run(streams, stalls=("sparse", "flowing"), limit=1_000)
