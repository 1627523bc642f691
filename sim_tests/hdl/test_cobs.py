"""COBS in Amaranth's simulator, against the package cobs."""

import random

import pytest
from amaranth.hdl import *
from cobs import cobs

from exactum.hdl.cobs import COBS_INPUT, COBS_OUTPUT, CobsDecoder, CobsEncoder
from sim_tests.formal import prove
from sim_tests.streams import PATTERNS, get, pack, put, simulate

LENGTHS = (*range(1, 30), *range(250, 259), *range(506, 512), 532, 600)
RUNS = (1, 253, 254, 255, 508, 509)


def frames():
    """Frames of lengths about those of runs, of several kinds of bytes in turn; seeded."""
    rng = random.Random(1)
    kinds = ((1, 255), (0, 255), (0, 1), (0, 0))
    found = [bytes(rng.randint(*kinds[number % 4]) for _ in range(length))
             for number, length in enumerate(LENGTHS)]
    for run in RUNS:
        text = bytes(rng.randint(1, 255) for _ in range(run))
        found += [text, text + b"\0", b"\0" + text, text[:253] + b"\0" + text]
    return found


def items_of(frame):
    return [pack(COBS_INPUT, data=byte, last=at == len(frame) - 1)
            for at, byte in enumerate(frame)]


def encode(texts, stalls=("flowing", "flowing"), dut=None):
    """Check the encoder's bytes; gives the stamps of what went in and came out."""
    dut, into, out = dut or CobsEncoder(), [], []
    expected = b"\0" + b"".join(cobs.encode(text) + b"\0" for text in texts)

    async def source(ctx):
        items = [item for text in texts for item in items_of(text)]
        await put(ctx, dut.i, items, PATTERNS[stalls[0]](1), stamps=into)

    async def sink(ctx):
        assert bytes(await get(ctx, dut.o, len(expected), PATTERNS[stalls[1]](2),
                               stamps=out)) == expected
        for _ in range(8):
            assert not ctx.get(dut.o.valid)
            await ctx.tick()

    simulate(dut, source, sink, limit=20 * len(expected) + 1000)
    return into, out


def decode(text, stall="flowing"):
    """What the decoder makes of bytes: (byte, ends, bad) each."""
    dut, items = CobsDecoder(), []

    async def source(ctx):
        stalls = PATTERNS[stall](1)
        for byte in text:
            while next(stalls):
                await ctx.tick()
            ctx.set(dut.i.payload, byte)
            ctx.set(dut.i.valid, 1)
            await ctx.tick()
            ctx.set(dut.i.valid, 0)

    async def sink(ctx):
        for cycle in range(6 * len(text) + 20):
            _, _, valid, payload = await ctx.tick().sample(dut.o.valid, Value.cast(dut.o.payload))
            if valid:
                item = COBS_OUTPUT.from_bits(payload)
                items.append((0 if item["ends"] else item["data"], item["ends"],
                              item["ends"] and item["bad"]))
                assert stall != "flowing" or cycle <= len(text)

    simulate(dut, source, sink, limit=8 * len(text) + 100)
    return items


def test_frames_are_encoded_as_by_the_package():
    encode(frames())


@pytest.mark.parametrize("sink", PATTERNS)
@pytest.mark.parametrize("source", PATTERNS)
def test_stalls_change_no_byte(source, sink):
    rng = random.Random(2)
    encode([bytes(rng.randint(0, 255) for _ in range(length)) for length in (20, 1, 200)]
           + [b"\1" * 254, b"\1" * 255, bytes(40), b"\1" * 300], (source, sink))


def test_a_byte_per_cycle_and_the_frame_three_cycles_later():
    into, out = encode([bytes(range(1, 51)), bytes(range(51))])
    first, second = into[:50], into[50:]
    assert first == list(range(2, 52))
    assert second == list(range(first[-1] + 4, first[-1] + 55))
    assert out[1] == first[-1] + 6


def test_an_encoder_whose_sink_stands_still_takes_what_fits_and_loses_nothing():
    dut, text = CobsEncoder(depth=512), bytes(range(1, 201)) * 8
    expected = b"\0" + cobs.encode(text) + b"\0"

    async def source(ctx):
        await put(ctx, dut.i, items_of(text))

    async def sink(ctx):
        await ctx.tick().repeat(1000)
        assert bytes(await get(ctx, dut.o, len(expected))) == expected

    simulate(dut, source, sink, limit=5000)


def decoded(text):
    return [(byte, 0, 0) for byte in text] + [(0, 1, 0)]


def test_frames_are_decoded():
    texts = frames()
    assert decode(b"".join(cobs.encode(text) + b"\0" for text in texts)) == [
        item for text in texts for item in decoded(text)]


@pytest.mark.parametrize("stall", PATTERNS)
def test_a_frame_that_is_cut_short_is_bad_and_the_next_one_is_not(stall):
    text = b"\1\0" + bytes(range(1, 60))
    whole = cobs.encode(text)
    for kept, bad in ((1, 1), (2, 0), (3, 1), (30, 1), (len(whole) - 1, 1)):
        items = decode(whole[:kept] + b"\0" + whole + b"\0", stall)
        assert items[:-len(text) - 1][-1] == (0, 1, bad)
        assert items[-len(text) - 1:] == decoded(text)


def test_nothing_between_zeros_is_no_frame():
    assert decode(b"\0\0\2\5\0\0\0\1\0") == [(5, 0, 0), (0, 1, 0), (0, 1, 0)]


def test_a_full_run_that_an_empty_one_follows_is_taken():
    text = b"\1" * 254
    assert decode(b"\xff" + text + b"\1\0") == decoded(text)


def test_stream_contract_of_the_encoder():
    prove(CobsEncoder(depth=512), depth=12)


class Hasty(CobsEncoder):
    """Takes bytes whatever the room."""

    margin = -1000


def test_an_encoder_that_overruns_its_memory_is_caught():
    with pytest.raises(AssertionError):
        encode([b"\1" * 600] * 3, ("flowing", "sparse"), Hasty(depth=512))
