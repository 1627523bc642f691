# amaranth: UnusedElaboratable=no
"""Sums are rounded once, to every format, as the rational oracle does it."""

import random
from fractions import Fraction

import pytest
from amaranth.hdl import Const

import exactum.hdl.rounder as module
from exactum.hdl.formats import FORMATS
from exactum.hdl.geometry import ROUND_LATENCY
from exactum.hdl.layouts import Result
from exactum.hdl.rounder import Rounder, exact_sum
from sim_tests.oracle import NAN, encode
from sim_tests.streams import PATTERNS, get, pack, put, simulate

INF = float("inf")
FLAGS = ("nan", "positive_infinity", "negative_infinity")


def rounded(width, cases, stall=None):
    """Results of (sum, weight, flags, lost, format, saturate), through the streams; the stamps."""
    dut, found, stamps = Rounder(accumulator_width=width), [], {"i": [], "o": []}
    layout = exact_sum(width)
    items = [pack(layout, sum=total, weight=weight, result=fmt.code, saturate=saturate, lost=lost,
                  last=index % 3 == 0, **dict.fromkeys(flags, 1))
             for index, (total, weight, flags, lost, fmt, saturate) in enumerate(cases)]

    async def source(ctx):
        await put(ctx, dut.i, items, stall, stamps=stamps["i"])

    async def sink(ctx):
        found.extend(await get(ctx, dut.o, len(items), stamps=stamps["o"]))

    simulate(dut, source, sink, limit=20 * len(items) + 100)
    return [Result.from_bits(item) for item in found], stamps


def check(width, cases, stall=None):
    results, stamps = rounded(width, cases, stall)
    for index, (case, found) in enumerate(zip(cases, results, strict=True)):
        total, weight, flags, lost, fmt, saturate = case
        value = total * Fraction(2) ** weight
        if flags:
            value = NAN if "nan" in flags or len(flags) > 1 else (
                INF if flags == ("positive_infinity",) else -INF)
        wanted = encode(value, fmt, "saturate" if saturate else "overflow")
        assert found.data == wanted, f"{case}: {found.data:#x}, not {wanted:#x}"
        assert found.lost == (lost and not flags), case
        assert found.last == (index % 3 == 0), case
    return stamps


def around(fmt, width):
    """Sums near every kind of tie and border of a format, as (sum, weight)."""
    one = 1 << fmt.mantissa_width + 3  # a significand with three more bits
    for exponent in (fmt.min_exponent - fmt.mantissa_width - 2, fmt.min_exponent - 1,
                     fmt.min_exponent, 0, fmt.max_exponent, fmt.max_exponent + 1):
        for significand in (one, one + 8, 2 * one - 8, 2 * one - 16, one + one // 2):
            for bits in (-9, -8, -5, -4, -3, -1, 0, 1, 3, 4, 5, 7):
                total = significand + bits
                if total.bit_length() < width:
                    yield total, exponent - fmt.mantissa_width - 3


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda f: f.name)
@pytest.mark.parametrize("width", [100, 48])
def test_ties_and_borders_of_each_format(fmt, width):
    check(width, [(sign * total, weight, (), lost, fmt, saturate)
                  for saturate, lost, sign in ((0, 0, 1), (1, 1, -1))
                  for total, weight in around(fmt, width)])


def test_random_sums_of_every_length_into_every_format():
    draw, cases = random.Random(2), []
    for _ in range(3000):
        total = draw.getrandbits(draw.randrange(1, 100)) * draw.choice((-1, 1))
        fmt = draw.choice(list(FORMATS.values()))
        low = fmt.min_exponent - fmt.mantissa_width - 4
        weight = draw.randrange(low, fmt.max_exponent + 4) - total.bit_length()
        cases.append((total, weight, (), draw.getrandbits(1), fmt, draw.getrandbits(1)))
    check(100, cases)


def test_sums_a_bit_beside_a_tie():
    # The deciding bit is far below the significand: at any distance that the window has.
    check(100, [((1 << top | tie << top - 24) + offset, -top, (), 0, FORMATS["fp32"], 0)
                for top in range(25, 99) for tie in (1, 3)
                for offset in (-(1 << max(0, top - 40)), 0, 1)])


def test_zeros_extremes_and_weights_far_out():
    cases = [(total, weight, (), 0, fmt, saturate)
             for fmt in FORMATS.values() for saturate in (0, 1)
             for total in (0, 1, -1, -(1 << 99), (1 << 99) - 1)
             for weight in (-2400, -300, -150, 0, 120, 2100)]
    check(100, cases)


def test_nan_and_infinities():
    check(100, [(-5, 0, flags, 1, fmt, saturate)
                for fmt in FORMATS.values() for saturate in (0, 1)
                for flags in (FLAGS[:1], FLAGS[1:2], FLAGS[2:], FLAGS[1:], FLAGS, FLAGS[::2])])


@pytest.mark.parametrize("source", PATTERNS)
def test_pauses_change_nothing(source):
    fmt = FORMATS["fp16"]
    check(40, [(n * 0x1234567, -20, (), 0, fmt, 0) for n in range(-20, 20)],
          PATTERNS[source](1))


def test_latency_and_rate():
    stamps = check(60, [(n, 0, (), 0, FORMATS["fp32"], 0) for n in range(20)])
    assert [o - i for i, o in zip(stamps["i"], stamps["o"], strict=True)] == [ROUND_LATENCY] * 20
    assert stamps["i"] == list(range(20))


def test_a_sum_narrower_than_the_widest_result():
    check(9, [(n, weight, (), 0, fmt, 0) for n in range(-256, 256, 5)
              for fmt in FORMATS.values() for weight in (-12, 0, 5)])


@pytest.mark.parametrize("width", [0, 1, "100"])
def test_a_width_that_is_none(width):
    with pytest.raises(ValueError, match="accumulator_width"):
        Rounder(accumulator_width=width)


def test_the_ties_catch_a_lost_sticky_bit(monkeypatch):
    monkeypatch.setattr(module, "dropped", lambda bits, amount: Const(0))
    with pytest.raises(AssertionError):
        test_ties_and_borders_of_each_format(FORMATS["e4m3"], 100)


def test_the_borders_catch_a_normaliser_that_stops_early(monkeypatch):
    genuine = module._skip_zeros
    monkeypatch.setattr(module, "_skip_zeros", lambda m, value, clear, step: (
        genuine(m, value, clear, step) if step > 1
        else (value[-module.KEPT:], clear, Const(0), Const(0))))
    with pytest.raises(AssertionError):
        test_ties_and_borders_of_each_format(FORMATS["fp32"], 100)


def test_the_sums_catch_a_normaliser_that_forgets_what_it_cuts_off(monkeypatch):
    genuine = module._skip_zeros
    monkeypatch.setattr(module, "_skip_zeros", lambda m, value, clear, step: (
        *genuine(m, value, clear, step)[:3], Const(0)))
    with pytest.raises(AssertionError):
        test_sums_a_bit_beside_a_tie()
