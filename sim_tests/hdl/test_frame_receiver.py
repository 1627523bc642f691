# amaranth: UnusedElaboratable=no
"""Frames in and out in Amaranth's simulator: their CRC against zlib, their room, their lengths."""

import random
import zlib

import pytest
from amaranth.hdl import *

from exactum.hdl import frame_receiver
from exactum.hdl.cobs import COBS_INPUT
from exactum.hdl.frame_receiver import CRC32, FrameReceiver
from exactum.hdl.frame_sender import FrameSender
from sim_tests.link_reference import encode, frame_of
from sim_tests.streams import PATTERNS, get, pack, put, simulate

LENGTHS = (16, 17, 24, 250, 254, 300, 527, 528)


def contents():
    """Frames' bytes without CRC, with and without zeros; seeded."""
    rng = random.Random(1)
    return [bytes(rng.randint(lowest, 255) for _ in range(length))
            for lowest in (0, 1) for length in LENGTHS]


def receive(text, expected, drops=0, stall="flowing", late=0):
    """Send bytes of the line; these frames come out and so many are dropped."""
    dut, counted, done = FrameReceiver(), [], []

    async def source(ctx):
        for byte in text:
            ctx.set(dut.i.payload, byte)
            ctx.set(dut.i.valid, 1)
            await ctx.tick()
        ctx.set(dut.i.valid, 0)

    async def sink(ctx):
        if late:
            await ctx.tick().repeat(late)
        assert bytes(await get(ctx, dut.o, sum(map(len, expected)), PATTERNS[stall](1))
                     ) == b"".join(expected)
        await ctx.tick().repeat(10)
        assert not ctx.get(dut.o.valid)
        done.append(True)

    async def lengths(ctx):
        if late:
            await ctx.tick().repeat(late)
        assert await get(ctx, dut.o_length, len(expected), PATTERNS[stall](2)) == [
            len(content) for content in expected]
        done.append(True)

    async def count(ctx):
        for _ in range(len(text) + 10):
            counted.append((await ctx.tick().sample(dut.drops))[2])

    simulate(dut, source, sink, lengths, count, limit=8 * len(text) + late + 500)
    assert sum(counted) == drops
    assert len(done) == 2


@pytest.mark.parametrize("stall", ["flowing", "bursts"])
def test_frames_come_out_without_their_crc(stall):
    frames = contents()[::2] if stall == "bursts" else contents()[-4:] + contents()[:4]
    receive(b"".join(map(frame_of, frames)), frames, stall=stall)


def test_every_flipped_bit_of_a_frame_is_found():
    content = bytes(range(1, 17))
    data = content + zlib.crc32(content).to_bytes(4, "little")
    wrong = [encode((int.from_bytes(data) ^ 1 << bit).to_bytes(len(data))) + b"\0"
             for bit in range(8 * len(data))]
    receive(b"".join(wrong) + frame_of(content), [content], drops=len(wrong))


def test_what_has_no_room_is_dropped_and_the_rest_stays():
    frames = [bytes([number + 1]) * 528 for number in range(9)]
    receive(b"".join(map(frame_of, frames)), frames[:7], drops=2, late=6000)
    small = [bytes([number + 1]) * 16 for number in range(20)]
    receive(b"".join(map(frame_of, small)), small[:16], drops=4, late=1000)


@pytest.mark.parametrize("stall", PATTERNS)
def test_the_sender_adds_the_crc_of_zlib(stall):
    dut, frames = FrameSender(), contents()[:6]
    expected = b"\0" + b"".join(map(frame_of, frames))

    async def source(ctx):
        await put(ctx, dut.i, [pack(COBS_INPUT, data=byte, last=at == len(frame) - 1)
                               for frame in frames for at, byte in enumerate(frame)])

    async def sink(ctx):
        assert bytes(await get(ctx, dut.o, len(expected), PATTERNS[stall](1))) == expected

    simulate(dut, source, sink)


@pytest.mark.parametrize("depth", [2048, 4000, 4096.0])
def test_memories_that_are_too_small_or_odd_are_refused(depth):
    with pytest.raises(ValueError, match="depth"):
        FrameReceiver(depth=depth)


def test_another_crc_is_caught(monkeypatch):
    other = frame_receiver.crc.catalog.CRC32_BZIP2(data_width=8)
    assert other != CRC32
    monkeypatch.setattr(frame_receiver, "CRC32", other)
    with pytest.raises(AssertionError):
        receive(frame_of(bytes(16)), [bytes(16)])
