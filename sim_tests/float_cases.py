"""Pairs of fp32 numbers at which an adder or a multiplier may go wrong, as bits."""

import random
from itertools import product

from amaranth.sim import Simulator

from exactum.benches.elementwise_cases import HARD

__all__ = ["close_pairs", "hard_pairs", "near_smallest_pairs", "random_pairs", "results",
           "tie_pairs"]

SIGN = 1 << 31


def hard_pairs():
    """Every hard magnitude with every other, in all four signs."""
    for a, b in product(HARD, repeat=2):
        for signs in range(4):
            yield a | (signs & 1) << 31, b | (signs >> 1) << 31


def random_pairs(count, seed):
    """Any bits, and bits of exponents near to each other."""
    draw = random.Random(seed)
    for number in range(count):
        a, b = draw.getrandbits(32), draw.getrandbits(32)
        if number % 2:
            exponent = (a >> 23 & 0xFF) + draw.randint(-30, 30)
            b = b & ~(0xFF << 23) | min(max(exponent, 0), 255) << 23
        yield a, b


def close_pairs(count, seed):
    """Numbers of which the sum loses from one to all bits: a, and nearly -a."""
    draw = random.Random(seed)
    for _ in range(count):
        a = draw.getrandbits(32)
        low = draw.randrange(24)
        b = (a & ~SIGN) + draw.choice((-1, 0, 1)) * draw.getrandbits(low)
        yield a, min(max(b, 0), SIGN - 1) | ~a & SIGN


def tie_pairs(count, seed):
    """Addends whose sum lies on, or a bit beside, the middle between two numbers."""
    draw = random.Random(seed)
    for _ in range(count):
        exponent, distance = draw.randrange(30, 254), draw.randrange(1, 28)
        low = draw.choice((0, 1, 0x400000, 0x7FFFFF, 0x7FFFFE, draw.getrandbits(23)))
        a = exponent << 23 | draw.choice((0, 1, 2, 3, 0x7FFFFF, 0x7FFFFE, draw.getrandbits(23)))
        yield a | draw.getrandbits(1) << 31, (exponent - distance) << 23 | low | (
            draw.getrandbits(1) << 31)


def near_smallest_pairs(count, seed):
    """Factors, subnormal ones among them, whose product is near the subnormals; few bits are set,
    so that it is often in the middle between two numbers.
    """
    draw = random.Random(seed)
    for _ in range(count):
        bits = [0, draw.getrandbits(23), 1 << draw.randrange(23), 3 << draw.randrange(22),
                (1 << 23) - (1 << draw.randrange(23))]
        one, other = draw.choice(bits), draw.choice(bits)
        exponent = draw.randrange(255)
        partner = 127 + draw.randint(-27, 3) - exponent
        if draw.getrandbits(2) == 0:
            exponent, partner = 0, draw.randrange(100, 175)
        a = exponent << 23 | one | draw.getrandbits(1) << 31
        b = min(max(partner, 0), 254) << 23 | other | draw.getrandbits(1) << 31
        yield (a, b) if draw.getrandbits(1) else (b, a)


def results(dut, pairs, latency):
    """What a pipeline with ports a, b and o makes of a pair in each cycle, in Amaranth's
    simulator; the first comes ``latency`` cycles after its pair.
    """
    found = []

    async def bench(ctx):
        for a, b in [*pairs, *[(0, 0)] * latency]:
            ctx.set(dut.a, a)
            ctx.set(dut.b, b)
            found.append((await ctx.tick().sample(dut.o))[2])

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    return found[latency:]
