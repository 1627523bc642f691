"""Bench of the engine: bits against the golden model, cycles against their formula, stalls."""

import itertools
from fractions import Fraction

import cocotb
import torch

from ..hdl.formats import FORMATS
from ..host.mx import NAN_SCALE, mx_dequantize, mx_quantize
from ..host.numerics import from_bits, to_bits
from ..host.tiling import tile_columns
from .engine_products import (
    CONFIG,
    ENABLED,
    INPUTS,
    LENGTHS,
    LIMIT,
    PAIRS,
    VPCU,
    Machine,
    Product,
    generator,
    random_product,
)
from .product_cases import directed, edges
from .product_sweep import with_empty_lines
from .stalls import PATTERNS
from .streams import start


def unregistered(test):
    """Leaves the test out: the build has none of what it is about."""
    return test


def random_scales(product, random, choices=None):
    """The product with scales for both operands: around 1, or some of ``choices``."""
    (m, k), n = product.a.shape, product.b.shape[1]
    blocks = -(-k // VPCU.scale_block)

    def scales(*shape):
        if choices is None:
            return torch.randint(117, 138, shape, generator=random).to(torch.uint8)
        drawn = torch.randint(0, len(choices), shape, generator=random)
        return torch.tensor(choices, dtype=torch.uint8)[drawn]

    return product._replace(scales=(scales(m, blocks), scales(blocks, n)))


@cocotb.test()
async def every_pair_of_8_bit_operands(dut):
    """All 65,536 pairs of operands for each pair of 8-bit formats, as outer products.

    In fp32, which holds every such product: nothing of it is rounded away.
    """
    await start(dut, limit=LIMIT)
    machine = Machine(dut)
    every = torch.arange(256)
    for pair in PAIRS:
        if all(fmt.width == 8 for fmt in pair):
            product = Product(every[:, None], every[None], pair)
            cycles, _ = await machine.run(product)
            assert cycles == product.cycles()
    await machine.finish()


@cocotb.test()
async def edge_values_of_every_pair_of_formats(dut):
    """Zeros, subnormals, ones, the largest, Inf and NaN against each other, K = 1."""
    await start(dut, limit=LIMIT)
    machine = Machine(dut)
    results = itertools.cycle(FORMATS)
    for pair in PAIRS:
        product = Product(edges(pair[0])[:, None], edges(pair[1])[None], pair, next(results))
        cycles, _ = await machine.run(product)
        assert cycles == product.cycles()
    await machine.finish()


@cocotb.test()
async def directed_sums_of_every_pair_of_formats(dut):
    """Cancellation, huge among tiny, subnormals, overflow, ties, NaN and Inf under zeros."""
    await start(dut, limit=LIMIT)
    machine = Machine(dut)
    results = itertools.cycle(FORMATS)
    modes = itertools.cycle((None, "overflow", "saturate"))
    for number, pair in enumerate(PAIRS):
        columns = directed(pair[1]).T
        product = Product(directed(pair[0]), columns[:, torch.randperm(
            columns.shape[1], generator=generator(number))], pair, next(results),
            exponent=(0, -3, 20, -150, 7)[number % 5], overflow=next(modes))
        cycles, _ = await machine.run(product)
        assert cycles == product.cycles()
    await machine.finish()


@cocotb.test()
async def random_sums_of_every_pair_of_formats(dut):
    """K from 0 over the windows' borders to several pieces, all exponents or a few."""
    await start(dut, limit=LIMIT)
    machine = Machine(dut)
    random, lengths = generator(), itertools.cycle((0, *LENGTHS))
    results = itertools.cycle(FORMATS)
    for number, pair in enumerate(PAIRS):
        product = random_product(pair, (2, next(lengths), tile_columns(CONFIG, pair) + 1), random,
                                 result=next(results), octaves=(None, 3, 9)[number % 3],
                                 density=(1.0, 0.3)[number % 2])
        cycles, _ = await machine.run(product)
        assert cycles == product.cycles()
    await machine.finish()


@cocotb.test()
async def random_sums_of_every_length_in_every_format(dut):
    """K from 1 over the windows' borders to many pieces of the tile buffer."""
    await start(dut, limit=LIMIT)
    machine = Machine(dut)
    random = generator(1)
    for fmt, k in itertools.product(ENABLED, (*LENGTHS, min(4096, VPCU.max_k))):
        product = random_product((fmt, fmt), (1, k, 2), random, density=0.5)
        cycles, _ = await machine.run(product)
        assert cycles == product.cycles()
    await machine.finish()


@cocotb.test()
@cocotb.parametrize(sources=list(PATTERNS), sink=list(PATTERNS))
async def stalls_change_nothing(dut, sources, sink):
    """Every pattern at the sources crossed with every one at the sink."""
    await start(dut, limit=LIMIT)
    stalls = dict.fromkeys(INPUTS, PATTERNS[sources])
    machine = Machine(dut, o=PATTERNS[sink], **stalls)
    random = generator(len(sources) + 10 * len(sink))
    shape = 3, min(70, VPCU.max_k), tile_columns(CONFIG, PAIRS[0]) + 1
    products = [random_product(PAIRS[0], shape, random, density=0.1),
                random_product(PAIRS[-1], (2, 5, 2), random)]
    if VPCU.scale_block:
        scaled = random_product(PAIRS[0], (2, VPCU.scale_block + 1, 2), random, density=0.2)
        products += [random_scales(scaled, random), products[1]]
    await machine.run(*products)
    await machine.finish()


@cocotb.test()
async def formats_switch_between_operations(dut):
    """Products of all pairs of formats, each right behind the other."""
    await start(dut, limit=LIMIT)
    machine = Machine(dut)
    random, results = generator(5), itertools.cycle(FORMATS)
    order = torch.randperm(len(PAIRS), generator=random).tolist()
    await machine.run(*(random_product(PAIRS[n], (2, 4, 1), random, result=next(results),
                                       octaves=6, exponent=n - 5) for n in order))
    await machine.finish()


@cocotb.test()
async def as_many_of_the_largest_as_the_window_holds(dut):
    """``max_k`` largest products of either sign; 128 where more would take too long."""
    await start(dut, limit=LIMIT)
    machine = Machine(dut)
    k = min(128, VPCU.max_k)
    for pair in PAIRS:
        a = torch.full((1, k), pair[0].max_finite_bits)
        b = torch.full((k, 2), pair[1].max_finite_bits)
        b[:, 1] |= 1 << pair[1].width - 1
        await machine.run(Product(a, b, pair, exponent=-128))
    await machine.finish()


@cocotb.test()
async def formats_switch_while_rows_of_few_elements_wait(dut):
    """The width of A's packed values changes while the long row before is still unpacked."""
    await start(dut, limit=LIMIT)
    machine = Machine(dut)
    random = generator(6)
    for order in itertools.permutations(ENABLED, min(3, len(ENABLED))):
        await machine.run(*(random_product((fmt, ENABLED[0]), (1, k, 1), random, octaves=6)
                            for fmt, k in zip(order, (64, 1, 3), strict=False)))
    await machine.finish()


@cocotb.test()
async def no_elements_over_a_bank_that_held_infinities(dut):
    """K = 0 gives +0 whatever the tile before left behind."""
    await start(dut, limit=LIMIT)
    machine = Machine(dut)
    for fmt in ENABLED:
        one = torch.full((1, 1), fmt.bias << fmt.mantissa_width)
        special = Product(one, torch.full((1, 2), fmt.nan_bits), (fmt, fmt))
        empty = Product(one[:, :0], special.b[:0], (fmt, fmt))
        await machine.run(special, special, empty, empty)
    await machine.finish()


@cocotb.test()
async def lost_tells_of_dropped_bits(dut):
    """A tiny product under the window sets it for its sum alone; without one the sum is exact."""
    await start(dut, limit=LIMIT)
    machine = Machine(dut)
    for pair in PAIRS:
        one = [fmt.bias << fmt.mantissa_width for fmt in pair]
        a = torch.tensor([[one[0], 1, 0], [one[0], 0, one[0]]])
        b = torch.tensor([[one[1]], [1], [one[1]]])
        _, (lost,) = await machine.run(Product(a, b, pair, "bf16"))
        assert lost.tolist() == [[max(fmt.exponent_width for fmt in pair) > 5 and bool(
            _depth(pair) > VPCU.accumulator_width)], [False]]
    await machine.finish()


def _depth(pair):
    """Bits from the top of the window for a row around one down to the smallest product."""
    smallest = sum(fmt.min_exponent - fmt.mantissa_width for fmt in pair)
    return 3 + (VPCU.max_k - 1).bit_length() - smallest


@cocotb.test()
async def cycles_are_those_of_the_formula(dut):
    """Shapes, densities and special values of B at random; rows shorter than a drain; pieces."""
    await start(dut, limit=LIMIT)
    machine = Machine(dut)
    random = generator(9)
    for number in range(16):
        pair = PAIRS[number * 7 % len(PAIRS)]
        m, k, n = (int(torch.randint(1, high, (), generator=random))
                   for high in (6, min(150, VPCU.max_k), 20))
        product = random_product(pair, (m, k, n), random, density=(0.02, 0.2, 0.9)[number % 3])
        if number % 4 == 0:  # some rows of B may not be skipped
            special = torch.rand((k, n), generator=random) < 0.02
            product = product._replace(b=product.b.masked_fill(special, pair[1].nan_bits))
        cycles, _ = await machine.run(product)
        assert cycles == product.cycles(), f"{pair}, {(m, k, n)}"
    product = random_product(PAIRS[0], (3, VPCU.b_depth + 65, 3), random, density=0.6)
    if VPCU.b_depth + 65 <= VPCU.max_k:
        cycles, _ = await machine.run(product)
        assert cycles == product.cycles()
    await machine.finish()


@cocotb.test()
async def compressed_and_transposed_products(dut):
    """Lines of zeros left out and B streamed: the bits of the whole product, the model's cycles."""
    await start(dut, limit=LIMIT)
    machine, random = Machine(dut), generator(40)
    ways = itertools.product(("a", "b", "auto"), (False, True))
    for number, (orientation, compress) in enumerate(ways):
        for k in (min(100, VPCU.max_k), min(VPCU.b_depth + 70, VPCU.max_k)):
            pair = PAIRS[(number * 7 + k) % len(PAIRS)]
            product = random_product(pair, (3, k, 5), random, density=0.3)
            a, b = with_empty_lines(product.a, product.b, random)
            if number % 2:
                b[k // 3, 1] = pair[1].nan_bits
            product = product._replace(a=a, b=b, orientation=orientation, compress=compress)
            if VPCU.scale_block and number % 3 == 0:
                product = random_scales(product, random)
            cycles, _ = await machine.run(product)
            assert cycles == product.cycles(), product
    await machine.finish()


@cocotb.test() if VPCU.scale_block else unregistered
async def scales_at_their_ends(dut):
    """The scales 0, 254 and NaN in every pair of formats, ragged K, over elements of all kinds;
    results of one scaled operand and of two.
    """
    await start(dut, limit=LIMIT)
    machine, random = Machine(dut), generator(31)
    k = min(VPCU.max_k, 2 * VPCU.scale_block + 5)
    ends = ((0, 254), (0, 127, 254), (127,) * 9 + (NAN_SCALE,))
    results = itertools.cycle(FORMATS)
    for number, pair in enumerate(PAIRS):
        product = random_product(pair, (3, k, 2), random, density=0.7, result=next(results),
                                 octaves=(3, None)[number % 2],
                                 exponent=(0, 254, -254)[number // 2 % 3])
        product = random_scales(product, random, ends[number % 3])
        if number % 4 > 1:  # one operand has none
            kept = product.scales[number % 2]
            product = product._replace(scales=(kept, None) if number % 2 == 0 else (None, kept))
        cycles, _ = await machine.run(product)
        assert cycles == product.cycles(), product
    await machine.finish()


@cocotb.test() if VPCU.scale_block else unregistered
async def nan_scales_reach_zeros_too(dut):
    """A block of zeros is NaN under the scale NaN, in A as in B, and nothing under any other one:
    the largest scale over zeros moves no window.
    """
    await start(dut, limit=LIMIT)
    machine, block = Machine(dut), VPCU.scale_block
    for pair in (PAIRS[0], PAIRS[-1]):
        one = [fmt.bias << fmt.mantissa_width for fmt in pair]
        k = min(VPCU.max_k, 3 * block)
        a, b = torch.full((4, k), one[0]), torch.full((k, 3), one[1])
        a[:, :block], b[block:2 * block] = 0, 0
        scales_a, scales_b = (torch.full(shape, 127, dtype=torch.uint8)
                              for shape in ((4, -(-k // block)), (-(-k // block), 3)))
        scales_a[1, 0], scales_b[1, 1] = 254, 254        # over zeros
        scales_a[2, 0], scales_b[1, 2] = NAN_SCALE, NAN_SCALE
        scales_a[3, 1] = NAN_SCALE                       # over zeros of B
        product = Product(a, b, pair, scales=(scales_a, scales_b))
        cycles, (lost,) = await machine.run(product)
        assert cycles == product.cycles()
        assert not lost.any()
    await machine.finish()


@cocotb.test() if VPCU.scale_block else unregistered
async def scaled_sums_of_many_lengths(dut):
    """Random scales, K around the blocks, the masks and the tile buffer, and none at all."""
    await start(dut, limit=LIMIT)
    machine, random, block = Machine(dut), generator(32), VPCU.scale_block
    lengths = (0, 1, block - 1, block, block + 1, 64, 65, 2 * VPCU.b_depth + block + 1)
    for number, k in enumerate(lengths):
        pair = PAIRS[number * 7 % len(PAIRS)]
        shape = 2, min(k, VPCU.max_k), tile_columns(CONFIG, pair) + 1
        product = random_scales(random_product(pair, shape, random, octaves=5, density=0.4), random,
                                None if number % 2 else range(97, 158, 20))
        cycles, _ = await machine.run(product)
        assert cycles == product.cycles(), (pair, k)
    await machine.finish()


@cocotb.test() if VPCU.scale_block == 32 and {"e4m3", "e5m2"} <= set(VPCU.formats) else unregistered
async def mx_products_are_those_of_their_values(dut):
    """What ``mx_quantize`` makes of random matrices, E4M3 x E5M2: each sum is the value nearest to
    the exact sum of the dequantized products, by exact fractions.
    """
    await start(dut, limit=LIMIT)
    machine, random = Machine(dut), generator(34)
    k = min(100, VPCU.max_k)
    a, b = (torch.randn(shape, generator=random) * 10.0 ** torch.randint(
        -6, 7, shape, generator=random) for shape in ((3, k), (k, 4)))
    a, scales_a = mx_quantize(a, "e4m3", axis=1)
    b, scales_b = mx_quantize(b, "e5m2", axis=0)
    product = Product(to_bits(a), to_bits(b), (FORMATS["e4m3"], FORMATS["e5m2"]),
                      scales=(scales_a, scales_b))
    cycles, (lost,) = await machine.run(product)
    assert cycles == product.cycles()
    assert not lost.any()
    bits, = machine.bits
    values = mx_dequantize(a, scales_a, 1), mx_dequantize(b, scales_b, 0)
    rows, columns = ([[Fraction(v) for v in line] for line in x.tolist()]
                     for x in (values[0], values[1].t()))
    for (m, row), (n, column) in itertools.product(enumerate(rows), enumerate(columns)):
        exact = sum(x * y for x, y in zip(row, column, strict=True))
        near = from_bits(bits[m, n] + torch.tensor([0, -1, 1]), "fp32").tolist()
        found, *neighbours = (abs(Fraction(value) - exact) for value in near)
        assert found <= min(neighbours), (m, n)
    await machine.finish()
