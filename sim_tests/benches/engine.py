"""Bench of the engine: bits against the golden model, cycles against their formula, stalls."""

import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import cocotb
import torch

from ..hdl.formats import FORMATS
from ..hdl.layouts import Result
from ..host.cycles import gemm_cycles
from ..host.gemm import exact_gemm
from ..host.numerics import from_bits, to_bits
from ..host.plan import is_finite, is_nonzero, plan_gemm, tile_columns
from .product_cases import directed, edges, random_bits, sparse_bits
from .stalls import PATTERNS
from .streams import StreamSink, StreamSource, finish, start

INPUTS = {"i_operation": "operations", "i_b": "b", "i_row": "rows", "i_mask": "masks",
          "i_values": "values"}
VPCU = SimpleNamespace(**json.loads(Path(os.environ["EXACTUM_DESCRIPTION"]).read_text())[
    "parameters"])
CONFIG = SimpleNamespace(vpcu=VPCU)
SEED = int(os.environ.get("EXACTUM_SEED", "1"))
ENABLED = [FORMATS[name] for name in VPCU.formats]
PAIRS = list(itertools.product(ENABLED, repeat=2))
LENGTHS = tuple(k for k in (1, 2, 3, 63, 64, 65, 768) if k <= VPCU.max_k)
LIMIT = 1_000_000  # cycles of the watchdog


class Product(NamedTuple):
    """One product: bit patterns [M, K] and [K, N], their formats and the result's."""

    a: torch.Tensor
    b: torch.Tensor
    formats: tuple
    result: str = "fp32"
    exponent: int = 0
    overflow: str | None = None

    def plan(self):
        saturate = None if self.overflow is None else self.overflow == "saturate"
        return plan_gemm(self.a, self.b, self.formats, self.result, config=CONFIG,
                         saturate=saturate, exponent=self.exponent)

    def cycles(self):
        """Cycles by the formula."""
        return gemm_cycles(CONFIG, is_nonzero(self.a, self.formats[0]),
                           ~is_finite(self.b, self.formats[1]), self.formats).cycles

    def check(self, items):
        """Compare the engine's items with the golden model, bit for bit; returns the lost flags."""
        plan = self.plan()
        bits, lost = plan.gather(items)
        names = tuple(fmt.name for fmt in self.formats)
        a, b = (from_bits(x, name) for x, name in zip((self.a, self.b), names, strict=True))
        golden, golden_lost = exact_gemm(
            a, b, names, self.result, overflow=self.overflow, exponent=self.exponent,
            accumulator_width=VPCU.accumulator_width, max_k=VPCU.max_k)
        golden = to_bits(golden)
        wrong = ((bits != golden) | (lost != golden_lost)).nonzero().tolist()
        if wrong:
            m, n = wrong[0]
            raise AssertionError(
                f"{names} -> {self.result}, K = {self.a.shape[1]}: {len(wrong)} results differ; "
                f"first [{m}, {n}]: {bits[m, n]:#x} lost {bool(lost[m, n])}, golden model "
                f"{golden[m, n]:#x} lost {bool(golden_lost[m, n])}")
        ends = sum(Result.from_bits(x).last for x in items)
        drains = len(plan.operations) // max(1, -(-self.a.shape[1] // VPCU.b_depth))
        assert ends == drains
        assert Result.from_bits(items[-1]).last
        return lost


class Machine:
    """The engine under test with a driver at each port; ``stalls``: patterns by port."""

    def __init__(self, dut, **stalls):
        flowing = PATTERNS["flowing"]
        self.sources = {name: StreamSource(dut, name, stalls.get(name, flowing)(seed))
                        for seed, name in enumerate(INPUTS, SEED)}
        self.sink = StreamSink(dut, "o", stalls.get("o", flowing)(SEED - 1))

    async def run(self, *products):
        """Issue products back to back, check every result; returns cycles and lost flags."""
        plans = [product.plan() for product in products]
        operations = self.sources["i_operation"].stamps
        first = len(operations)
        for port, items in INPUTS.items():
            for plan in plans:
                self.sources[port].put(*getattr(plan, items))
        lost = [product.check(await self.sink.take(plan.results))
                for product, plan in zip(products, plans, strict=True)]
        return self.sink.stamps[-1] - operations[first] + 1, lost

    async def finish(self):
        """Nothing is left over in any queue."""
        await finish(*self.sources.values(), self.sink)


def generator(salt=0):
    return torch.Generator().manual_seed(1000 * SEED + salt)


def random_product(pair, shape, random, *, result="fp32", density=1.0, octaves=None, **options):
    m, k, n = shape
    a = sparse_bits(random_bits(pair[0], (m, k), random, octaves=octaves), density, random)
    return Product(a, random_bits(pair[1], (k, n), random, octaves=octaves), pair, result,
                   **options)


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
    await machine.run(random_product(PAIRS[0], shape, random, density=0.1),
                      random_product(PAIRS[-1], (2, 5, 2), random))
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
