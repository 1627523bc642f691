"""Products for natively compiled engines: seeded shapes, formats and masks; long, hard sums.

``check`` runs one and compares bits, ``lost`` and cycles with the golden model and the cycle model.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..gen.config import Configuration
from ..hdl.formats import Format
from ..host.gemm import exact_gemm
from ..host.native_engine import NativeEngine
from ..host.numerics import from_bits, to_bits
from ..host.orientation import choose
from ..host.tiling import tile_columns
from ..host.vectors import factor
from .product_cases import random_bits, sparse_bits

__all__ = ["WAYS", "SweepCase", "check", "long_sums", "pairs_of_formats", "sweep",
           "with_empty_lines"]

WAYS = (("a", False), ("a", True), ("b", False), ("b", True), ("auto", True))
"""Orientations, and whether columns are compressed."""


@dataclass(frozen=True, kw_only=True)
class SweepCase:
    """One product: bit patterns a [M, K] and b [K, N] (int64), their formats and the result's.

    ``orientation`` and ``compress`` as in `plan_gemm`.
    """

    a: Tensor
    b: Tensor
    formats: tuple[Format, Format]
    result: Format
    exponent: int = 0
    orientation: str = "a"
    compress: bool = False

    def __str__(self) -> str:
        names = " x ".join(fmt.name for fmt in self.formats)
        return (f"{names} -> {self.result.name}, {list(self.a.shape)} x {list(self.b.shape)}, "
                f"exponent {self.exponent}, orientation {self.orientation}"
                f"{', compressed' if self.compress else ''}")


def pairs_of_formats(config: Configuration) -> list[tuple[Format, Format]]:
    """Every ordered pair of the configuration's formats."""
    return list(itertools.product(config.vpcu.format_objects, repeat=2))


def check(engine: NativeEngine, case: SweepCase, **options: Any) -> list[str]:
    """What is wrong with the engine's product, in words; nothing if all is equal.

    ``options`` go to `NativeUnit.run`; with stalls among them, the cycles are not compared.
    """
    vpcu = engine.config.vpcu
    names = (case.formats[0].name, case.formats[1].name)
    done = engine.gemm(case.a, case.b, names, case.result.name, exponent=case.exponent,
                       orientation=case.orientation, compress=case.compress, **options)
    golden, lost = exact_gemm(
        from_bits(case.a, names[0]), from_bits(case.b, names[1]), names, case.result.name,
        exponent=case.exponent, accumulator_width=vpcu.accumulator_width, max_k=vpcu.max_k)
    wrong = []
    different = (done.bits != to_bits(golden)).nonzero().tolist()
    if different:
        m, n = different[0]
        wrong.append(f"{len(different)} results differ, first [{m}, {n}]: "
                     f"{int(done.bits[m, n]):#x}, golden model {int(to_bits(golden)[m, n]):#x}")
    if not torch.equal(done.lost, lost):
        wrong.append(f"{int((done.lost != lost).sum())} lost flags differ")
    cycles = choose(engine.config, factor(case.a, case.formats[0]),
                    factor(case.b.mT, case.formats[1]), case.formats,
                    orientation=case.orientation, compress=case.compress).work.cycles
    if "stalls" not in options and done.cycles != cycles:
        wrong.append(f"{done.cycles} cycles, cycle model {cycles}")
    return wrong


def sweep(config: Configuration, count: int, seed: int) -> Iterator[SweepCase]:
    """``count`` products: every pair of formats in turn, the rest at random from the seed.

    Shapes: from one element to several tiles with ragged edges; K over the borders of masks and,
    in every eighth, of the tile buffer. Masks: dense, sparse, nearly empty, rows without elements.
    Every fifth B holds infinities and NaN; exponents of a few octaves or all. Each in one of
    ``WAYS``; half of those that are compressed have lines of zeros.
    """
    random = torch.Generator().manual_seed(seed)
    pairs = pairs_of_formats(config)
    lengths = (0, 1, 2, 3, 17, 63, 64, 65, 100, 127, 129, 200, 300)

    def pick(high: int) -> int:
        return int(torch.randint(0, high, (), generator=random))

    for number in range(count):
        pair = pairs[number % len(pairs)]
        width = tile_columns(config, pair)
        k = lengths[pick(len(lengths))]
        m, n = 1 + pick(9), 1 + pick(3 * width)
        if number % 8 == 7:
            k = config.vpcu.b_depth * (1 + pick(2)) + (0, 1, 65)[pick(3)]
            m, n = 1 + pick(3), 1 + pick(width)
        k = min(k, config.vpcu.max_k)
        density = (1.0, 0.5, 0.1, 0.02)[pick(4)]
        octaves = (None, 3, 9)[pick(3)]
        a = sparse_bits(random_bits(pair[0], (m, k), random, octaves=octaves), density, random)
        a[torch.rand(m, generator=random) < 0.15] = 0
        b = random_bits(pair[1], (k, n), random, octaves=octaves)
        if number % 5 == 4:
            special = torch.rand(b.shape, generator=random) < 0.01
            b = b.masked_fill(special, pair[1].nan_bits - pick(2))
        exponent = 0 if pick(2) else pick(61) - 30
        result = config.vpcu.format_objects[pick(len(config.vpcu.formats))]
        orientation, compress = WAYS[pick(len(WAYS))]
        if compress and pick(2):
            a, b = with_empty_lines(a, b, random)
        yield SweepCase(a=a, b=b, formats=pair, result=result, exponent=exponent,
                        orientation=orientation, compress=compress)


def with_empty_lines(a: Tensor, b: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same with a third of A's columns, a fifth of B's rows and a third of B's columns zero."""
    def some(size: int, share: float) -> Tensor:
        return torch.rand(size, generator=random) < share

    k, n = b.shape
    a = a.masked_fill(some(k, 0.3), 0)
    return a, b.masked_fill(some(k, 0.2)[:, None] | some(n, 0.3), 0)


def long_sums(pair: tuple[Format, Format], k: int, seed: int, result: Format) -> SweepCase:
    """One sum of ``k`` terms (even) for each of seven columns that are hard in different ways.

    The row's elements come in equal pairs. Columns: at random; every two terms cancel; they cancel
    but for one least term; the same with a NaN; with opposite infinities; all the largest; and a
    few octaves around one.
    """
    random = torch.Generator().manual_seed(seed)
    sign = 1 << pair[1].width - 1
    halves = random_bits(pair[0], (1, k // 2), random, octaves=12)
    a = sparse_bits(halves, 0.9, random).repeat_interleave(2, 1)
    one = pair[0].bias << pair[0].mantissa_width
    a[0, :2] = one
    cancelling = random_bits(pair[1], (k // 2,), random).repeat_interleave(2)
    cancelling[1::2] ^= sign
    least = cancelling.clone()
    least[:2] = torch.tensor([1, 0])
    nan, opposite = least.clone(), least.clone()
    nan[0] = pair[1].nan_bits
    opposite[:2] = torch.tensor([0, sign]) | (pair[1].infinity_bits if pair[1].ieee
                                              else pair[1].max_finite_bits)
    largest = torch.full((k,), pair[1].max_finite_bits)
    b = torch.stack([random_bits(pair[1], (k,), random), cancelling, least, nan, opposite, largest,
                     random_bits(pair[1], (k,), random, octaves=3)], 1)
    # The hard terms are first; turned round, they are last, or on both sides of a piece's border.
    turn = int(torch.randint(0, k, (), generator=random))
    return SweepCase(a=a.roll(turn, 1), b=b.roll(turn, 0), formats=pair, result=result)
