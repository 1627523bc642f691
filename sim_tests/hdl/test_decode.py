"""Every 8- and 16-bit value and the edges of fp32 become operands worth exactly the same."""

import random
from fractions import Fraction

import pytest
from amaranth.hdl import Cat, Module, Value
from amaranth.sim import Simulator

from exactum.hdl.decode import Decoder
from exactum.hdl.formats import BF16, E4M3, E5M2, FORMATS, FP16, FP32
from exactum.hdl.geometry import DECODE_LATENCY, Geometry, Kind
from sim_tests.oracle import NAN, decode, exponent_of

ALL = tuple(FORMATS.values())
SIDE_BY_SIDE = 16  # decoders in one simulation


def geometry(formats, width=100, max_k=32768):
    return Geometry(lanes=1, formats=formats, accumulator_width=width, max_k=max_k, b_depth=64)


def lowest_anchor(bits, fmt):
    exponent = exponent_of(bits, fmt)
    return fmt.min_exponent if exponent is None else exponent


def operands(make, cases):
    """The operands of (bits, format, anchor), some at a time in consecutive cycles, as ints."""
    m, decoders = Module(), [make() for _ in range(SIDE_BY_SIDE)]
    m.submodules += decoders
    inputs = Cat(Cat(d.value, d.format.as_value(), d.anchor) for d in decoders)
    output = Cat(Value.cast(d.o) for d in decoders)
    value_width, anchor_width = len(decoders[0].value), len(decoders[0].anchor)
    width, out_width = value_width + 3 + anchor_width, len(Value.cast(decoders[0].o))
    words = [0] * -(-len(cases) // SIDE_BY_SIDE)
    for place, (bits, fmt, anchor) in enumerate(cases):
        anchor &= (1 << anchor_width) - 1
        item = bits | fmt.code.value << value_width | anchor << value_width + 3
        words[place // SIDE_BY_SIDE] |= item << place % SIDE_BY_SIDE * width
    found = []

    async def bench(ctx):
        for word in words + [0] * DECODE_LATENCY:
            ctx.set(inputs, word)
            _, _, out = await ctx.tick().sample(output)
            found.append(out)

    simulator = Simulator(m)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    return [found[DECODE_LATENCY + n // SIDE_BY_SIDE] >> n % SIDE_BY_SIDE * out_width
            & (1 << out_width) - 1 for n in range(len(cases))]


def check(geometry, formats, cases):
    frame = max(f.significand_width + (f.width == 32) for f in formats)
    layout = geometry.operand(frame + geometry.fine, geometry.group_max)
    clip = geometry.group_max
    powers = {n: Fraction(2) ** n for n in range(-600, 200)}
    fields = [(layout[name].offset, (1 << layout[name].width) - 1)
              for name in ("significand", "group", "negative", "kind")]
    found = operands(lambda: Decoder(geometry=geometry, formats=formats), cases)
    for (bits, fmt, anchor), packed in zip(cases, found, strict=True):
        significand, group, negative, kind = (packed >> low & mask for low, mask in fields)
        value, seen = decode(bits, fmt), (fmt.name, hex(bits), anchor, layout.from_bits(packed))
        wanted = Kind.NAN if value == NAN else Kind.INFINITE if isinstance(value, float) else (
            Kind.FINITE if value else Kind.ZERO)
        assert kind == wanted.value, seen
        if wanted != Kind.FINITE:
            assert significand == 0, seen
            assert wanted != Kind.INFINITE or negative == (value < 0), seen
            continue
        biased = bits >> fmt.mantissa_width & (1 << fmt.exponent_width) - 1
        true_group = -(-(anchor - (max(biased, 1) - fmt.bias)) // 8)
        lowest = anchor + 1 - frame - 8 * true_group
        if geometry.is_integer:
            true_group, lowest = 0, fmt.min_exponent - fmt.mantissa_width
        assert group == min(true_group, clip), seen
        worth = significand * powers[lowest]
        assert (-worth if negative else worth) == value, seen


@pytest.mark.parametrize("fmt", [E4M3, E5M2, FP16, BF16], ids=lambda f: f.name)
def test_every_value_under_the_largest_anchor(fmt):
    check(geometry(ALL), ALL, [(bits, fmt, fmt.max_exponent) for bits in range(1 << fmt.width)])


@pytest.mark.parametrize("fmt", [E4M3, E5M2], ids=lambda f: f.name)
def test_every_8_bit_value_in_a_build_of_its_own_format(fmt):
    # Anchors above a value's exponent, as far as the format goes; integers have one.
    build = geometry([fmt], 65 + 6, 64)
    check(build, [fmt], [
        (bits, fmt, anchor) for bits in range(256)
        for anchor in range(fmt.max_exponent, lowest_anchor(bits, fmt) - 1, -3)
        if anchor == fmt.max_exponent or not build.is_integer])


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
    check(geometry(ALL), ALL, cases)


def test_the_sweep_catches_a_decoder_that_flushes_subnormals(monkeypatch):
    import exactum.hdl.decode as module
    monkeypatch.setattr(module, "_kind", lambda looks: Kind.FINITE.value * looks.exponent_any)
    with pytest.raises(AssertionError):
        test_every_8_bit_value_in_a_build_of_its_own_format(E4M3)


def test_the_sweep_catches_a_fine_shift_that_is_off(monkeypatch):
    import exactum.hdl.decode as module
    genuine = module.shift_left
    monkeypatch.setattr(module, "shift_left", lambda m, value, amount, *, width: genuine(
        m, value, amount[:2], width=width))
    with pytest.raises(AssertionError):
        test_every_8_bit_value_in_a_build_of_its_own_format(E5M2)
