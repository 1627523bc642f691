"""Bench of the VPCU by itself: elements in any order, zeros among them, and the force windows."""

import itertools

import cocotb
import torch

from ..hdl.formats import FORMATS
from ..hdl.layouts import UNSCALED, ForceWindow, skipper_token
from ..host.tiling import tile_columns
from ..host.vectors import is_finite, is_nonzero
from .engine_products import CONFIG, LIMIT, PAIRS, VPCU, Product, generator, random_product
from .product_cases import directed
from .stalls import PATTERNS
from .streams import StreamSink, StreamSource, finish, start

INPUTS = {"i_operation": "operations", "i_b": "b", "i_row": "rows"}
TOKEN = skipper_token(VPCU.max_k, VPCU.scale_block)
SCALE = {"scale": UNSCALED} if VPCU.scale_block else {}
WINDOW = 64


def tokens(product, random):
    """The elements of each row in random order: the non-zeros, those that count, some zeros."""
    must = (~is_finite(product.b, product.formats[1])).any(1)
    chance = torch.rand(product.a.shape, generator=random) < 0.3
    chosen = is_nonzero(product.a, product.formats[0]) | must | chance
    for row, wanted in zip(product.a.tolist(), chosen, strict=True):
        places = wanted.nonzero()[:, 0]
        order = places[torch.randperm(len(places), generator=random)].tolist()
        if not order:
            yield TOKEN.const({"last": 1, "empty": 1} | SCALE).as_bits()
        for number, k in enumerate(order, 1):
            yield TOKEN.const({"index": k, "value": row[k],
                               "last": number == len(order)} | SCALE).as_bits()


def force_windows(product):
    """What is to come out of ``o_force``."""
    k, n = product.b.shape
    width = tile_columns(CONFIG, product.formats)
    special = ~is_finite(product.b, product.formats[1])
    for start_column in range(0, n, width):
        rows = special[:, start_column:start_column + width].any(1).tolist()
        windows = []
        for low in range(0, max(k, 1), WINDOW):
            force = sum(bit << place for place, bit in enumerate(rows[low:low + WINDOW]))
            windows.append(ForceWindow.const({
                "force": force, "last": low + WINDOW >= k,
                "format": product.formats[0].code}).as_bits())
        yield from windows * len(product.a)


class Machine:
    """The VPCU under test with a driver at each port; ``stalls``: patterns by port."""

    def __init__(self, dut, source="flowing", sink="flowing"):
        self.sources = {name: StreamSource(dut, name, PATTERNS[source](seed))
                        for seed, name in enumerate((*INPUTS, "i_a"))}
        self.results = StreamSink(dut, "o", PATTERNS[sink](7))
        self.force = StreamSink(dut, "o_force", PATTERNS[sink](8))

    async def run(self, product, random):
        """Issue a product, check every result and every force window."""
        plan = product.plan()
        for port, items in INPUTS.items():
            self.sources[port].put(*getattr(plan, items))
        for _ in plan.operations:
            self.sources["i_a"].put(*tokens(product, random))
        product.check(await self.results.take(plan.results))
        expected = list(force_windows(product))
        assert await self.force.take(len(expected)) == expected

    async def finish(self):
        """Nothing is left over in any queue."""
        await finish(*self.sources.values(), self.results, self.force)


@cocotb.test()
async def sums_do_not_depend_on_the_order(dut):
    """Directed and random products of every pair of formats, elements shuffled."""
    await start(dut, limit=LIMIT)
    machine, random = Machine(dut), generator(21)
    results = itertools.cycle(FORMATS)
    for number, pair in enumerate(PAIRS):
        rows, columns = (directed(fmt, 7) for fmt in pair)
        await machine.run(Product(rows[::3], columns.T[:, number % 3::3], pair, next(results)),
                          random)
        k = (0, 1, 20, min(70, VPCU.b_depth))[number % 4]
        await machine.run(random_product(pair, (2, k, 3), random, density=0.5, octaves=7), random)
    await machine.finish()


@cocotb.test()
@cocotb.parametrize(source=list(PATTERNS), sink=list(PATTERNS))
async def stalls_change_nothing(dut, source, sink):
    """Every pattern at the sources crossed with every one at the sinks."""
    await start(dut, limit=LIMIT)
    machine, random = Machine(dut, source, sink), generator(22)
    for pair in (PAIRS[0], PAIRS[-1]):
        await machine.run(random_product(pair, (3, 5, 3), random), random)
    await machine.finish()
