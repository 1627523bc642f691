# amaranth: UnusedElaboratable=no
"""The serial port's halves in Amaranth's simulator: other clocks, noise, breaks."""

import pytest
from amaranth.hdl import *

from exactum.hdl.protocol import LEAST_CYCLES
from exactum.hdl.uart import UartReceiver, UartTransmitter
from sim_tests.formal import prove
from sim_tests.streams import PATTERNS, get, put, simulate

TEXT = bytes((0, 255, 0x55, 0xAA, 1, 0x80, 0x7F, 0xFE))
SPEEDS = {4: (-0.02, 0, 0.02), 5: (-0.02, 0, 0.02), 16: (-0.04, 0, 0.04), 104: (-0.04, 0.04)}
CASES = [(bits, speed) for bits, speeds in SPEEDS.items() for speed in speeds]


def levels_of(text, stop=1):
    """The bits of bytes on the line."""
    return [bit for byte in text
            for bit in (0, *(byte >> place & 1 for place in range(8)), stop)]


def sampled(levels, cycles, phase):
    """What a clock sees of levels of so many of its cycles each, a fraction of one late."""
    found, index = [], 0
    while (index + phase) / cycles < len(levels):
        found.append(levels[int((index + phase) / cycles)])
        index += 1
    return found


def receive(bit_cycles, line, stall="flowing"):
    """The bytes that a receiver makes of the line's level in each cycle; stalls between them."""
    dut, received = UartReceiver(bit_cycles=bit_cycles), []

    async def source(ctx):
        for level in line:
            ctx.set(dut.rx, level)
            await ctx.tick()

    async def sink(ctx):
        stalls = PATTERNS[stall](1)
        for _ in range(len(line) + 8):
            ready = not next(stalls)
            ctx.set(dut.o.ready, ready)
            _, _, valid, byte = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if valid and ready:
                received.append(byte)

    simulate(dut, source, sink, limit=len(line) + 100)
    return bytes(received)


@pytest.mark.parametrize("phase", [0.01, 0.3, 0.5, 0.99])
@pytest.mark.parametrize(("bit_cycles", "faster"), CASES)
def test_bytes_back_to_back_from_a_clock_that_differs(bit_cycles, faster, phase):
    text = TEXT if bit_cycles < 100 else TEXT[2:5]
    line = sampled(levels_of(text), bit_cycles * (1 - faster), phase)
    assert receive(bit_cycles, [1] * 3 + line + [1] * bit_cycles) == text


@pytest.mark.parametrize("bit_cycles", [4, 7, 50])
def test_noise_shorter_than_half_a_bit_is_no_byte(bit_cycles):
    noise = [1] * bit_cycles
    for length in range(1, (bit_cycles - 1) // 2 + 1):
        noise += [0] * length + [1] * bit_cycles
    line = [level for level in levels_of(TEXT[:3]) for _ in range(bit_cycles)]
    assert receive(bit_cycles, noise + line + noise) == TEXT[:3]


def test_a_break_and_a_byte_without_stop_bit_are_dropped():
    def bits(levels):
        return [level for level in levels for _ in range(6)]

    line = bits([0] * 35 + [1]) + bits(levels_of(b"A")) + bits([*levels_of(b"B", stop=0), 1])
    assert receive(6, line + bits([*levels_of(b"C"), 1])) == b"AC"


def test_a_byte_that_is_not_taken_in_time_stays_and_the_next_one_is_dropped():
    dut = UartReceiver(bit_cycles=4)
    line = [level for level in levels_of(b"12") for _ in range(4)]

    async def bench(ctx):
        for level in [*line, *[1] * 8]:
            ctx.set(dut.rx, level)
            await ctx.tick()
        assert await get(ctx, dut.o, 1) == [ord("1")]
        for level in [level for level in levels_of(b"3") for _ in range(4)] + [1] * 4:
            assert not ctx.get(dut.o.valid) or ctx.get(dut.o.payload) == ord("3")
            ctx.set(dut.rx, level)
            await ctx.tick()
        assert await get(ctx, dut.o, 1) == [ord("3")]

    simulate(dut, bench)


@pytest.mark.parametrize("stall", PATTERNS)
@pytest.mark.parametrize("bit_cycles", [4, 5, 33])
def test_bytes_are_sent_back_to_back_in_exact_bits(bit_cycles, stall):
    dut, levels, stamps = UartTransmitter(bit_cycles=bit_cycles), [], []
    text = TEXT[:4]

    async def source(ctx):
        await put(ctx, dut.i, text, PATTERNS[stall](1), stamps=stamps)

    async def line(ctx):
        for _ in range((10 * bit_cycles + 40) * len(text)):
            levels.append((await ctx.tick().sample(dut.tx))[2])

    simulate(dut, source, line)
    for start, byte in zip(stamps, text, strict=True):
        expected = [level for level in levels_of([byte]) for _ in range(bit_cycles)]
        assert levels[start + 1:start + 1 + len(expected)] == expected
    if stall == "flowing":
        assert stamps == [10 * bit_cycles * number for number in range(len(text))]
    assert levels[0] == levels[-1] == 1


@pytest.mark.parametrize(("bit_cycles", "error"), [(LEAST_CYCLES - 1, ValueError),
                                                   (True, TypeError), (4.0, TypeError)])
def test_bits_that_are_too_short_are_refused(bit_cycles, error):
    for component in (UartReceiver, UartTransmitter):
        with pytest.raises(error, match="bit_cycles"):
            component(bit_cycles=bit_cycles)


def test_stream_contract_of_the_receiver():
    prove(UartReceiver(bit_cycles=4), depth=3, induction=3)


def test_a_receiver_that_samples_too_late_is_caught():
    """A fault: bits are taken for 7 % longer than they are."""
    line = [level for level in levels_of(TEXT) for _ in range(100)] + [1] * 200
    assert receive(100, line) == TEXT
    assert receive(107, line) != TEXT
