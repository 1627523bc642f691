# amaranth: UnusedElaboratable=no
"""Every value of the narrow formats, and many of fp32, become their fp32 value."""

import pytest
from amaranth.sim import Simulator

import exactum.hdl.float_widen as module
from exactum.benches.elementwise_cases import HARD
from exactum.hdl.float_widen import WIDEN_LATENCY, FloatWiden
from exactum.hdl.formats import FORMATS, FP32
from sim_tests.oracle import NAN, decode


def widened(elements):
    """The fp32 bits of (format, bits), one in each cycle."""
    dut, found = FloatWiden(), []

    async def bench(ctx):
        for fmt, bits in [*elements, *elements[:WIDEN_LATENCY]]:
            ctx.set(dut.format, fmt.code)
            ctx.set(dut.value, bits | 0xFFFFFFFF >> fmt.width << fmt.width)
            found.append((await ctx.tick().sample(dut.o))[2])

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    return found[WIDEN_LATENCY:]


def check(elements):
    for (fmt, bits), found in zip(elements, widened(elements), strict=True):
        value = decode(bits, fmt)
        assert decode(found, FP32) == value, f"{fmt.name} {bits:#x}: {found:#x}"
        assert value == NAN or found >> 31 == bits >> fmt.width - 1, f"{fmt.name} {bits:#x}"


@pytest.mark.parametrize(("name", "step"), [
    ("e4m3", 1), ("e5m2", 1), ("fp16", 37), ("bf16", 61)])
def test_values_of_a_narrow_format(name, step):
    fmt = FORMATS[name]
    check([(fmt, bits) for bits in range(0, 1 << fmt.width, step)])


def test_every_subnormal_of_fp16():
    check([(FORMATS["fp16"], bits | sign) for bits in range(1026) for sign in (0, 0x8000)][::3])


def test_formats_follow_each_other():
    check([(fmt, (bits | sign << 31) >> 32 - fmt.width)
           for bits in HARD[::3] for sign in (0, 1) for fmt in FORMATS.values()])


@pytest.mark.parametrize(("name", "fault"), [
    ("effective", lambda exponent: exponent),
    ("skip_zeros", lambda m, value, room, step: (value, room, 0)),
    ("E5M2", module.FP16),
])
def test_a_fault_is_caught(name, fault, monkeypatch):
    monkeypatch.setattr(module, name, fault)
    with pytest.raises((AssertionError, KeyError)):
        test_formats_follow_each_other()
