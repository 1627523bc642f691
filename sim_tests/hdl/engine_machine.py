"""The engine in Amaranth's simulator: products in, bits, lost flags and cycles out."""

from typing import NamedTuple

import torch

from exactum.gen.config import preset
from exactum.hdl.engine import Engine
from exactum.hdl.formats import FORMATS
from exactum.host.cycles import gemm_cycles
from exactum.host.mx import NAN_SCALE, spread
from exactum.host.plan import plan_gemm
from exactum.host.vectors import is_finite, is_nonzero
from sim_tests.oracle import dot
from sim_tests.streams import get, put, simulate

INPUTS = {"i_operation": "operations", "i_b": "b", "i_row": "rows", "i_mask": "masks",
          "i_values": "values"}


class Product(NamedTuple):
    """Bit patterns a [M, K] and b [K, N], their formats, and the result's.

    ``scales``: uint8 [M, blocks] and [blocks, N], None for an operand without.
    """

    a: torch.Tensor
    b: torch.Tensor
    formats: tuple
    result: str = "fp32"
    exponent: int = 0
    scales: tuple = (None, None)


def configuration(**vpcu):
    """A small configuration with some keys changed."""
    changes = {"lanes": 2, "b_depth": 64} | vpcu
    return preset("small").replace({f"vpcu.{key}": value for key, value in changes.items()})


def engine(config):
    return Engine(**config.vpcu.model_dump())


def plan(config, product):
    return plan_gemm(product.a, product.b, product.formats, product.result, config=config,
                     exponent=product.exponent, scales=product.scales, orientation="a",
                     compress=False)


def drive(dut, config, products, *, sources=None, sink=None):
    """Issue the products back to back; the items of each, and the cycles they all took."""
    plans = [plan(config, product) for product in products]
    stamps, items = {}, []

    def source(port, name, seed):
        async def bench(ctx):
            queue = [item for one in plans for item in getattr(one, name)]
            await put(ctx, getattr(dut, port), queue, sources and sources(seed),
                      stamps=stamps.setdefault(port, []))
        return bench

    async def take(ctx):
        count = sum(one.results for one in plans)
        items.extend(await get(ctx, dut.o, count, sink and sink(9),
                               stamps=stamps.setdefault("o", [])))

    simulate(dut, *(source(*pair, seed) for seed, pair in enumerate(INPUTS.items())), take,
             limit=100_000)
    rest = iter(items)
    found = [one.gather([next(rest) for _ in range(one.results)]) for one in plans]
    return found, stamps["o"][-1] - stamps["i_operation"][0] + 1


def check(config, *products, dut=None, **stalls):
    """Every result against the rational oracle; the cycles of one unstalled product too."""
    found, cycles = drive(dut or engine(config), config, products, **stalls)
    for product, (bits, lost) in zip(products, found, strict=True):
        formats = [FORMATS[name] for name in product.formats]
        scales_a, scales_b = product.scales
        for m, row in enumerate(product.a.tolist()):
            for n, column in enumerate(product.b.T.tolist()):
                wanted = dot(row, column, tuple(formats), result=FORMATS[product.result],
                             exponent=product.exponent, max_k=config.vpcu.max_k,
                             accumulator_width=config.vpcu.accumulator_width,
                             scales=(None if scales_a is None else scales_a[m].tolist(),
                                     None if scales_b is None else scales_b[:, n].tolist()),
                             scale_block=config.vpcu.scale_block)
                assert (int(bits[m, n]), bool(lost[m, n])) == wanted, (product, m, n)
    if len(products) == 1 and not stalls:
        assert cycles == expected_cycles(config, products[0])
    return cycles


def expected_cycles(config, product):
    formats = [FORMATS[name] for name in product.formats]
    block = config.vpcu.scale_block
    a, b = (x if scales is None else x.masked_fill(
                spread(scales == NAN_SCALE, dim, block, x.shape[dim]), fmt.nan_bits)
            for x, dim, fmt, scales in zip((product.a, product.b), (1, 0), formats,
                                           product.scales, strict=True))
    return gemm_cycles(config, is_nonzero(a, formats[0]), ~is_finite(b, formats[1]),
                       product.formats,
                       scaled=any(x is not None for x in product.scales)).cycles
