# amaranth: UnusedElaboratable=no
"""The logarithm of a row's sum in Amaranth's simulator, against exact arithmetic."""

import math
import random
import struct

import pytest

from exactum.hdl import softmax_log
from exactum.hdl.softmax_log import LOG_LATENCY, Logarithm
from exactum.hdl.softmax_tables import LOG_GUARD_WIDTH, MAX_LENGTH, log_octaves, log_table
from sim_tests.streams import simulate

NAN = 0x7FC00000


def logarithm(fraction, place, entries, width):
    """Rule S7, rounded by Python: a double holds the number, struct rounds it to even."""
    table = log_table(entries, width)
    units = log_octaves(width)[place] + (
        table.value(0) - table.value(fraction) << LOG_GUARD_WIDTH)
    bits, = struct.unpack("<I", struct.pack("<f", math.ldexp(units, -width - LOG_GUARD_WIDTH)))
    return bits


def looked_up(sums, entries, width, max_row=MAX_LENGTH):
    """The component's output for each (fraction, place, undefined), one a cycle."""
    dut = Logarithm(entries=entries, value_width=width, max_row=max_row)
    found = []

    async def bench(ctx):
        for fraction, place, undefined in [*sums, *[(0, 0, 0)] * LOG_LATENCY]:
            ctx.set(dut.i, {"fraction": fraction, "place": place, "undefined": undefined})
            found.append(ctx.get(dut.o))
            await ctx.tick()

    simulate(dut, bench)
    return found[LOG_LATENCY:]


def sums_of(width, max_row=MAX_LENGTH, count=300):
    """Sums of all places: their ends, around each power of two of the fraction, and random ones."""
    draw, last = random.Random(width), (1 << width) - 1
    fractions = [0, last, *(1 << n for n in range(width)), *(last >> n for n in range(width))]
    sums = [(0, place) for place in range(max_row.bit_length())] + [(f, 0) for f in fractions]
    return sums + [(draw.getrandbits(width), draw.randrange(max_row.bit_length()))
                   for _ in range(count)]


@pytest.mark.parametrize(("entries", "width"), [(2048, 18), (4096, 18), (2048, 19), (16384, 22)])
def test_logarithms_are_those_of_the_rule(entries, width):
    sums = sums_of(width)
    wanted = [logarithm(*sum_, entries, width) for sum_ in sums]
    assert looked_up([(*sum_, 0) for sum_ in sums], entries, width) == wanted
    assert wanted[0] == 0


def test_undefined_rows_are_nan():
    assert looked_up([(5, 1, 1), (0, 0, 0), (0, 0, 1)], 2048, 18) == [NAN, 0, NAN]


@pytest.mark.parametrize(("name", "fault"), [
    ("LOG_GUARD_WIDTH", LOG_GUARD_WIDTH + 1),
    ("log_octaves", lambda width: (0, *log_octaves(width)[:-1])),
    ("log_table", lambda entries, width: log_table(2 * entries, width)),
    ("add", lambda a, b, carry: a + b),
])
def test_a_fault_is_caught(monkeypatch, name, fault):
    sums = sums_of(18)
    wanted = [logarithm(*sum_, 2048, 18) for sum_ in sums]
    monkeypatch.setattr(softmax_log, name, fault)
    assert looked_up([(*sum_, 0) for sum_ in sums], 2048, 18) != wanted
