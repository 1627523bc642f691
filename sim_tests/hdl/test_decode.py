"""Every 8- and 16-bit value and the edges of fp32 become operands worth exactly the same."""

import random
from fractions import Fraction

import pytest
from amaranth.hdl import Cat, Value
from amaranth.sim import Simulator

from exactum.hdl.decode import Decoder
from exactum.hdl.formats import BF16, E4M3, E5M2, FORMATS, FP16, FP32
from exactum.hdl.geometry import DECODE_LATENCY, Geometry, Kind
from sim_tests.oracle import NAN, decode, exponent_of

ALL = tuple(FORMATS.values())


def geometry(formats, width=100, max_k=32768):
    return Geometry(lanes=1, formats=formats, accumulator_width=width, max_k=max_k, b_depth=64)


def lowest_anchor(bits, fmt):
    exponent = exponent_of(bits, fmt)
    return fmt.min_exponent if exponent is None else exponent


def operands(dut, cases):
    """The operands of (bits, format, anchor) in consecutive cycles."""
    inputs = Cat(dut.value, dut.format.as_value(), dut.anchor)
    value_width, anchor_width = len(dut.value), len(dut.anchor)
    layout, found = dut.signature.members["o"].shape, []
    packed = [bits | fmt.code.value << value_width
              | (anchor & (1 << anchor_width) - 1) << value_width + 3
              for bits, fmt, anchor in cases]

    async def bench(ctx):
        output = Value.cast(dut.o)
        for item in packed + [0] * DECODE_LATENCY:
            ctx.set(inputs, item)
            _, _, item = await ctx.tick().sample(output)
            found.append(item)

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    return [layout.from_bits(item) for item in found[DECODE_LATENCY:]]


def check(dut, cases):
    clip = dut.geometry.group_max
    for (bits, fmt, anchor), o in zip(cases, operands(dut, cases), strict=True):
        value, seen = decode(bits, fmt), (fmt.name, hex(bits), anchor, o)
        kind = Kind.NAN if value == NAN else Kind.INFINITE if isinstance(value, float) else (
            Kind.FINITE if value else Kind.ZERO)
        assert o.kind == kind, seen
        if kind != Kind.FINITE:
            assert o.significand == 0, seen
            assert kind != Kind.INFINITE or o.negative == (value < 0), seen
            continue
        group = -(-(anchor - exponent_of(bits, fmt)) // 8)
        assert o.group == min(group, clip), seen
        worth = o.significand * Fraction(2) ** (anchor + 1 - dut.frame - 8 * group)
        assert (-worth if o.negative else worth) == value, seen


@pytest.mark.parametrize("fmt", [E4M3, E5M2, FP16, BF16], ids=lambda f: f.name)
def test_every_value_under_the_largest_anchor(fmt):
    dut = Decoder(geometry=geometry(ALL), formats=ALL)
    check(dut, [(bits, fmt, fmt.max_exponent) for bits in range(1 << fmt.width)])


@pytest.mark.parametrize("fmt", [E4M3, E5M2], ids=lambda f: f.name)
def test_every_8_bit_value_in_a_build_of_its_own_format(fmt):
    # Anchors above a value's exponent, as far as the format goes.
    dut = Decoder(geometry=geometry([fmt], 65 + 6, 64), formats=[fmt])
    assert dut.frame == fmt.significand_width
    check(dut, [(bits, fmt, anchor) for bits in range(256)
                for anchor in range(lowest_anchor(bits, fmt), fmt.max_exponent + 1, 3)])


def test_wide_values_under_anchors_near_and_far():
    draw, cases = random.Random(1), []
    for fmt in (BF16, FP32, FP16):
        shift = fmt.mantissa_width
        edges = [0, 1, (1 << shift) - 1, 1 << shift, fmt.max_finite_bits, fmt.infinity_bits,
                 fmt.infinity_bits + 1, fmt.nan_bits]
        edges += [x | 1 << fmt.width - 1 for x in edges]
        for bits in edges + [draw.getrandbits(fmt.width) for _ in range(400)]:
            low = lowest_anchor(bits, fmt)
            cases += [(bits, fmt, anchor)
                      for anchor in {low, *(min(low + draw.randrange(130), 127) for _ in "1234")}]
    check(Decoder(geometry=geometry(ALL), formats=ALL), cases)


def test_the_sweep_catches_a_decoder_that_flushes_subnormals(monkeypatch):
    import exactum.hdl.decode as module
    monkeypatch.setattr(module, "_kind", lambda fmt, mantissa, biased: Kind.FINITE.value
                        * biased.any())
    with pytest.raises(AssertionError):
        test_every_8_bit_value_in_a_build_of_its_own_format(E4M3)


def test_the_sweep_catches_a_fine_shift_that_is_off(monkeypatch):
    import exactum.hdl.decode as module
    genuine = module.shift_left
    monkeypatch.setattr(module, "shift_left", lambda m, value, amount, *, width: genuine(
        m, value, amount[:2], width=width))
    with pytest.raises(AssertionError):
        test_every_8_bit_value_in_a_build_of_its_own_format(E5M2)
