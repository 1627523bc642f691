"""Products for the benches of engine and VPCU: golden bits and cycles, and the ports' drivers."""

import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch

from ..hdl.formats import FORMATS
from ..hdl.layouts import Operation, Result
from ..host.gemm import exact_gemm
from ..host.mx import NAN_SCALE, spread
from ..host.numerics import from_bits, to_bits
from ..host.orientation import choose
from ..host.plan import plan_gemm
from ..host.vectors import factor
from .product_cases import random_bits, sparse_bits
from .stalls import PATTERNS
from .streams import StreamSink, StreamSource, finish

__all__ = ["CONFIG", "ENABLED", "INPUTS", "LENGTHS", "LIMIT", "PAIRS", "VPCU", "Machine", "Product",
           "generator", "random_product"]

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
    """One product: bit patterns [M, K] and [K, N], their formats and the result's.

    ``scales``: uint8 [M, blocks] and [blocks, N], None for an operand without. ``orientation`` and
    ``compress`` as in `plan_gemm`; unless told otherwise, A is streamed and all of it sent.
    """

    a: torch.Tensor
    b: torch.Tensor
    formats: tuple
    result: str = "fp32"
    exponent: int = 0
    overflow: str | None = None
    scales: tuple = (None, None)
    orientation: str = "a"
    compress: bool = False

    @property
    def is_scaled(self):
        return any(x is not None for x in self.scales)

    def scaled_by_nan(self):
        """(a, b), NaN where the scale is."""
        for x, dim, fmt, scales in zip((self.a, self.b), (1, 0), self.formats, self.scales,
                                       strict=True):
            if scales is None:
                yield x
            else:
                unknown = spread(scales == NAN_SCALE, dim, VPCU.scale_block, x.shape[dim])
                yield x.masked_fill(unknown, fmt.nan_bits)

    def plan(self):
        saturate = None if self.overflow is None else self.overflow == "saturate"
        return plan_gemm(self.a, self.b, self.formats, self.result, config=CONFIG,
                         saturate=saturate, exponent=self.exponent, scales=self.scales,
                         orientation=self.orientation, compress=self.compress)

    def cycles(self):
        """Cycles by the formula."""
        a, b = self.scaled_by_nan()
        way = choose(CONFIG, factor(a, self.formats[0]), factor(b.mT, self.formats[1]),
                     self.formats, scaled=self.is_scaled, orientation=self.orientation,
                     compress=self.compress)
        return way.work.cycles

    def check(self, items):
        """Compare the engine's items with the golden model, bit for bit; returns bits, lost flags.
        """
        plan = self.plan()
        bits, lost = plan.gather(items)
        names = tuple(fmt.name for fmt in self.formats)
        a, b = (from_bits(x, name) for x, name in zip((self.a, self.b), names, strict=True))
        golden, golden_lost = exact_gemm(
            a, b, names, self.result, overflow=self.overflow, exponent=self.exponent,
            scales=self.scales, scale_block=VPCU.scale_block or 32,
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
        assert ends == sum(Operation.from_bits(x).drain for x in plan.operations)
        assert Result.from_bits(items[-1]).last
        return bits, lost


class Machine:
    """The engine under test with a driver at each port; ``stalls``: patterns by port.

    ``bits`` holds those of each product of the last run.
    """

    def __init__(self, dut, **stalls):
        flowing = PATTERNS["flowing"]
        self.sources = {name: StreamSource(dut, name, stalls.get(name, flowing)(seed))
                        for seed, name in enumerate(INPUTS, SEED)}
        self.sink = StreamSink(dut, "o", stalls.get("o", flowing)(SEED - 1))
        self.bits = ()

    async def run(self, *products):
        """Issue products back to back, check every result; returns cycles and lost flags."""
        plans = [product.plan() for product in products]
        operations = self.sources["i_operation"].stamps
        first = len(operations)
        for port, items in INPUTS.items():
            for plan in plans:
                self.sources[port].put(*getattr(plan, items))
        found = [product.check(await self.sink.take(plan.results))
                 for product, plan in zip(products, plans, strict=True)]
        self.bits, lost = zip(*found, strict=True)
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
