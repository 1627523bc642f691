# amaranth: UnusedElaboratable=no
"""The compressor in Amaranth's simulator, word for word and cycle for cycle."""

from itertools import chain, pairwise

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
from exactum.hdl import compressor, squeezer
from exactum.hdl.bitstream import FromBit, WidthCode
from exactum.hdl.compressor import Compressor, Sender
from exactum.hdl.formats import FORMATS
from exactum.hdl.layouts import CodecOperation, CodecWord
from exactum.hdl.squeezer import SqueezerDone
from exactum.host.codec import compress, compress_cycles, plain_words
from sim_tests.streams import PATTERNS, fill, get, pack, put, simulate


def run(tensors, block=64, stalls=("flowing", "flowing"), one_by_one=False):
    """Compress the tensors, check words, ``last`` and counters; give the stamps of the last words.

    ``one_by_one``: an operation begins when the one before is done, and takes the model's cycles.
    """
    dut = Compressor(block=block)
    golden = [compress(x, block) for x in tensors]
    operations = [pack(CodecOperation, format=format_of(x).code, blocks=c.blocks)
                  for x, c in zip(tensors, golden, strict=True)]
    expected = [[pack(CodecWord, data=word, last=i == len(c.words) - 1)
                 for i, word in enumerate(c.words.tolist())] for c in golden]
    total = sum(map(len, expected))
    stamps = []

    async def operation_source(ctx):
        await put(ctx, dut.i_operation, [] if one_by_one else operations)

    async def source(ctx):
        words = [word for x in tensors for word in plain_words(x, block)]
        await put(ctx, dut.i, words, PATTERNS[stalls[0]](1))

    async def sink(ctx):
        if one_by_one:
            for x, operation, words in zip(tensors, operations, expected, strict=True):
                await put(ctx, dut.i_operation, [operation])
                assert await get(ctx, dut.o, len(words), stamps=stamps) == words
                cycles = compress_cycles(x.float() != 0, format_of(x).width, block)
                assert stamps[-1] + 1 == cycles
        else:
            got = await get(ctx, dut.o, total, PATTERNS[stalls[1]](2), stamps=stamps)
            assert got == list(chain(*expected))
        for _ in range(8):
            assert not ctx.get(dut.o.valid)
            await ctx.tick()
        padding = sum(c.blocks * block - x.numel() for c, x in zip(golden, tensors, strict=True))
        zeros = sum(int((x.float() == 0).sum()) for x in tensors)
        assert (ctx.get(dut.words), ctx.get(dut.zeros)) == (total, zeros + padding)

    simulate(dut, operation_source, source, sink)
    return [stamp for stamp, word in zip(stamps, list(chain(*expected)), strict=True)
            if CodecWord.from_bits(word).last]


@pytest.mark.parametrize("name", FORMATS)
def test_corner_blocks_and_their_cycles(name):
    run([tensor_of(name, case) for case in CASES.values()], one_by_one=True)


@pytest.mark.parametrize("block", [8, 16, 32, 64])
def test_zeros_around_the_edge_of_sparse(block):
    edges = [(name, block // FORMATS[name].width + more)
             for name in ("e4m3", "bf16", "fp32") for more in (-1, 0, 1, 2)]
    run([zero_fraction(name, block, max(zeros, 0) / block) for name, zeros in edges], block)


def test_the_end_of_a_tensor_is_padded_to_a_block():
    run([zero_fraction("bf16", 64 + elements, 0) for elements in (1, 4, 63)])


@pytest.mark.parametrize("name", ["e4m3", "fp16", "fp32"])
def test_cycles_are_exactly_those_of_the_model(name):
    run([zero_fraction(name, 64 * blocks, zeros)
         for zeros in (0, 0.05, 0.5, 0.95, 1) for blocks in (1, 3)], one_by_one=True)


@pytest.mark.parametrize(("source", "sink"), [  # the bench on the Verilog crosses them all
    ("alternate", "flowing"), ("flowing", "sparse"), ("sparse", "bursts"), ("bursts", "alternate")])
def test_operations_of_all_formats_back_to_back_under_stalls(source, sink):
    run([zero_fraction(name, 64 * blocks, zeros) for name, blocks, zeros in [
        ("e4m3", 3, 0.3), ("fp32", 2, 0.5), ("bf16", 1, 1), ("e5m2", 2, 0), ("e4m3", 0, 0),
        ("fp16", 3, 0.9)]], stalls=(source, sink))


@pytest.mark.parametrize(("name", "zeros"), [("e4m3", 0.3), ("fp16", 0.5), ("fp32", 1)])
def test_operations_follow_without_a_bubble(name, zeros):
    lasts = run([zero_fraction(name, 64 * 4, zeros)] * 5)
    gaps = [b - a for a, b in pairwise(lasts)]
    assert gaps == [4 * FORMATS[name].width] * 4


@pytest.mark.parametrize("name", ["e4m3", "bf16", "fp32"])
@pytest.mark.parametrize("zeros", [0, 0.5, 1])
def test_the_first_word_leaves_24_cycles_after_its_block_came(name, zeros):
    came, left, _ = timed(zero_fraction(name, 64, zeros), 64)
    assert left[0] - came[-1] == 24


def timed(x, block):
    """Stamps of words that came and of words that left, and the cycles of the operation."""
    dut, words, golden = Compressor(block=block), plain_words(x, block), compress(x, block)
    began, came, left = [], [], []

    async def operation_source(ctx):
        operation = pack(CodecOperation, format=format_of(x).code, blocks=golden.blocks)
        await put(ctx, dut.i_operation, [operation], stamps=began)

    async def source(ctx):
        await put(ctx, dut.i, words, stamps=came)

    async def sink(ctx):
        await get(ctx, dut.o, len(golden.words), stamps=left)

    simulate(dut, operation_source, source, sink)
    return came, left, left[-1] - began[0]


@pytest.mark.parametrize(("name", "block"), [("e4m3", 8), ("bf16", 8), ("fp32", 8), ("e5m2", 16)])
def test_cycles_of_shorter_blocks_are_almost_those_of_the_model(name, block):
    parts = [[1], [0], [0.5], [0.97, 0.03], [0.5, 0, 1, 0.5], [0.9, 0, 0.9]]
    for part in parts:
        x = torch.cat([zero_fraction(name, 8 * 30, zeros, seed).view(torch.uint8)
                       for seed, zeros in enumerate(part)]).view(zero_fraction(name, 8, 0).dtype)
        model = compress_cycles(x.float() != 0, format_of(x).width, block)
        assert abs(timed(x, block)[2] - model) <= 3


@pytest.mark.parametrize(("zeros", "rate"), [(0, 0.75), (1, 0.75), (0.5, 0.52)])
def test_blocks_of_one_word_are_slow(zeros, rate):
    came, *_ = timed(zero_fraction("e4m3", 8 * 200, zeros), 8)
    assert len(came) / (came[-1] - came[0]) == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(("name", "zeros", "blocks"), [
    ("e4m3", 0, 15), ("fp32", 0, 13), ("e4m3", 0.5, 16), ("e4m3", 1, 23), ("fp32", 1, 23)])
def test_a_stall_holds_up_the_input_when_some_blocks_wait(name, zeros, blocks):
    x = zero_fraction(name, 64 * 26, zeros)
    dut, came = Compressor(block=64), []

    async def operation_source(ctx):
        await put(ctx, dut.i_operation, [pack(CodecOperation, format=format_of(x).code, blocks=26)])

    async def source(ctx):
        came.append(await fill(ctx, dut.i, plain_words(x)))

    simulate(dut, operation_source, source)
    assert came[0] // FORMATS[name].width == blocks   # a block has as many words as that has bits


def test_the_first_piece_of_a_block_follows_8_cycles_after_it_is_done():
    dut, cycles = Sender(block=64, target="generic"), []

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.done, SqueezerDone.const(
            {"valid": 1, "tail": 0, "code": WidthCode.BITS8, "final": 1}))
        await ctx.tick()
        ctx.set(dut.done.valid, 0)
        cycles.append(1)
        while not ctx.get(dut.o.valid):
            await ctx.tick()
            cycles.append(1)

    simulate(dut, bench, limit=50)
    assert len(cycles) == 8


@pytest.mark.parametrize("name", FORMATS)
def test_every_pattern_of_zeros_in_a_block_of_eight(name):
    run([every_pattern(name)], 8)


@pytest.mark.parametrize(("block", "error"), [(12, ValueError), (128, ValueError),
                                              ("64", TypeError), (True, TypeError)])
def test_illegal_blocks_are_refused(block, error):
    with pytest.raises(error, match="block is"):
        Compressor(block=block)


KEEP, RANKS, CROSSINGS = squeezer.keep_bytes, squeezer.ranks, squeezer.crossings
PARTS = FromBit.parts
MIXED = [zero_fraction(name, 128, 0.4) for name in ("e4m3", "fp16", "fp32")]
MUTANTS = {
    "the sign bit counts": (
        squeezer, "keep_bytes", lambda some, top, code: KEEP(some | top, top, code),
        [tensor_of("bf16", CASES["zeros of both signs"])]),
    "elements always have 16 bits": (
        squeezer, "keep_bytes", lambda some, top, code: KEEP(some, top, WidthCode.BITS16), MIXED),
    "the rank of the highest byte is one too many": (
        squeezer, "ranks", lambda keep: [*RANKS(keep)[:7], RANKS(keep)[7] + 1], MIXED),
    "a pair of lanes crosses for its upper lane alone": (
        squeezer, "crossings",
        lambda active, targets, bit: CROSSINGS([0] * 8, targets, bit), MIXED),
    "a mask as long as the zeros it saves is sent": (
        compressor, "saves", lambda size, limit: size <= limit,
        [tensor_of("e4m3", CASES["as many zeros as its mask costs"])]),
    "what is held begins a bit too late": (
        FromBit, "parts", staticmethod(lambda position: PARTS(position + 1)), MIXED),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(mutant, monkeypatch):
    module, target, fault, tensors = MUTANTS[mutant]
    monkeypatch.setattr(module, target, fault)
    with pytest.raises(AssertionError):
        run(tensors)
