"""Pairs of operands, and their products by integers: knows docs/numerics.md, not the machine.

Bit patterns are numpy int64 throughout. Shares the format table with the gateware and nothing else.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ..hdl.formats import Format
from ..host.cycles import gemm_cycles
from ..host.gemm import exact_gemm
from ..host.native_engine import NativeEngine
from ..host.numerics import from_bits, to_bits
from ..host.vectors import is_finite, is_nonzero
from .product_cases import random_bits

__all__ = ["Found", "boundary", "check_pairs", "draw", "product_bits", "product_by_float64"]


def boundary(fmt: Format) -> np.ndarray:
    """Zeros, the least and largest subnormals, least normal, powers of two, all-ones mantissas,
    the largest, Inf and NaNs, of both signs; each bit pattern once.
    """
    mantissa = fmt.mantissa_width
    exponents = np.arange(1, fmt.max_exponent + fmt.bias + 1)
    powers = exponents << mantissa
    found = [[0, 1, 2, (1 << mantissa) - 2, (1 << mantissa) - 1], powers, powers + 1,
             powers + (1 << mantissa) - 1,
             [fmt.max_finite_bits - 1, fmt.max_finite_bits, fmt.nan_bits]]
    if fmt.ieee:
        found += [[fmt.infinity_bits, fmt.infinity_bits + 1, (1 << fmt.width - 1) - 1]]
    magnitudes = np.unique(np.concatenate(found))
    return np.concatenate([magnitudes, magnitudes | 1 << fmt.width - 1])


def draw(fmt: Format, count: int, random: np.random.Generator) -> np.ndarray:
    """Operands: in turn any bit pattern, one with an exponent near 0, and one of the boundary.

    Of the boundary's, every other one is from its ends, where subnormals and specials are.
    """
    values = random.integers(0, 1 << fmt.width, count)
    near = random_bits(fmt, (count,), torch.Generator().manual_seed(int(random.integers(1 << 31))),
                       octaves=12).numpy()
    known = boundary(fmt)
    half = len(known) // 2
    ends = np.concatenate([known[:8], known[half - 8:half + 8], known[-8:]])
    kind = np.arange(count) % 6
    values = np.where(kind % 3 == 1, near, values)
    values = np.where(kind == 2, random.choice(known, count), values)
    return np.where(kind == 5, random.choice(ends, count), values)


@dataclass(frozen=True)
class Found:
    """How many pairs were tried, how many came out wrong, the first of those, and the cycles."""

    pairs: int
    wrong: int
    first: str
    cycles: int


def check_pairs(engine: NativeEngine, a: np.ndarray, b: np.ndarray,
                formats: tuple[Format, Format], result: Format,
                expected: np.ndarray | None = None) -> Found:
    """Multiply every a with every b in one product with K = 1.

    A pair is wrong if its bits differ from ``expected`` [a, b] (None: `product_bits`) or from the
    golden model, or if it is flagged as having lost bits. All are wrong if the cycles are.
    """
    names = (formats[0].name, formats[1].name)
    column, row = torch.from_numpy(a)[:, None], torch.from_numpy(b)[None]
    done = engine.gemm(column, row, names, result.name, orientation="a", compress=False)
    if expected is None:
        expected = product_bits(a[:, None], b[None], formats, result)
    vpcu = engine.config.vpcu
    golden, _ = exact_gemm(from_bits(column, names[0]), from_bits(row, names[1]), names,
                           result.name, accumulator_width=vpcu.accumulator_width,
                           max_k=vpcu.max_k)
    wrong = done.lost | (done.bits != torch.from_numpy(expected)) | (done.bits != to_bits(golden))
    cycles = gemm_cycles(engine.config, is_nonzero(column, formats[0]),
                         ~is_finite(row, formats[1]), formats).cycles
    if done.cycles != cycles:
        return Found(wrong.numel(), wrong.numel(), f"{done.cycles} cycles, cycle model {cycles}",
                     done.cycles)
    first = ""
    if wrong.any():
        m, n = wrong.nonzero()[0].tolist()
        first = (f"{names[0]} {a[m]:#x} * {names[1]} {b[n]:#x} -> {result.name}: "
                 f"{int(done.bits[m, n]):#x}, lost {bool(done.lost[m, n])}; expected "
                 f"{int(expected[m, n]):#x}, golden model {int(to_bits(golden)[m, n]):#x}")
    return Found(wrong.numel(), int(wrong.sum()), first, done.cycles)


def product_bits(a: np.ndarray, b: np.ndarray, formats: tuple[Format, Format],
                 result: Format) -> np.ndarray:
    """Rules N1 to N3 for K = 1, in integers: bits of round(a * b) in ``result``, int64.

    Overflow saturates in the 8-bit formats and gives Inf in the others.
    """
    one, other = _Fields(a, formats[0]), _Fields(b, formats[1])
    sign = (one.negative ^ other.negative) << result.width - 1
    product = one.significand * other.significand          # below 2^48
    weight = one.exponent + other.exponent                 # of the product's lowest bit
    length = np.frexp(product.astype(np.float64))[1]
    mantissa = result.mantissa_width
    unit = np.maximum(weight + length - 1, result.min_exponent) - mantissa
    drop = np.clip(unit - weight, 0, 60)                   # more would leave nothing as well
    kept = product << np.maximum(weight - unit, 0) >> drop
    rest = product - (product >> drop << drop)
    half = (1 << drop) >> 1
    kept = kept + ((rest > half) | (rest == half) & (kept & 1 == 1) & (drop > 0))
    # A significand without its hidden bit is a subnormal; one that grew carries into the exponent.
    bits = np.where(kept < 1 << mantissa, kept,
                    (unit + mantissa + result.bias - 1 << mantissa) + kept)
    largest = result.max_finite_bits
    beyond = largest if result.width == 8 else result.infinity_bits
    infinite = one.infinite | other.infinite
    bits = np.where((bits > largest) | infinite, beyond, bits)
    zero = ((one.significand == 0) | (other.significand == 0)) & ~infinite
    nan = one.nan | other.nan
    nan = nan | one.infinite & other.zero | other.infinite & one.zero
    return np.where(nan, result.nan_bits, np.where(zero, 0, sign | bits))


class _Fields:
    """Sign, integer significand, the weight of its lowest bit, and the class of each value."""

    def __init__(self, bits: np.ndarray, fmt: Format) -> None:
        magnitude = bits & (1 << fmt.width - 1) - 1
        biased = magnitude >> fmt.mantissa_width
        self.negative = bits >> fmt.width - 1
        self.zero = magnitude == 0
        top = fmt.infinity_bits if fmt.ieee else fmt.nan_bits
        self.infinite = (magnitude == top) & fmt.ieee
        self.nan = (magnitude >= top) & ~self.infinite
        fraction = magnitude & (1 << fmt.mantissa_width) - 1
        finite = ~(self.nan | self.infinite)
        self.significand = np.where(finite, fraction + ((biased > 0) << fmt.mantissa_width), 0)
        self.exponent = np.maximum(biased, 1) - fmt.bias - fmt.mantissa_width


def product_by_float64(a: np.ndarray, b: np.ndarray,
                       formats: tuple[Format, Format]) -> np.ndarray:
    """The same into fp32 for formats of at most 16 bits, which float64 holds; numpy rounds."""
    values = [torch.from_numpy(x).to(_view(fmt)).view(getattr(torch, fmt.torch_name))
              .to(torch.float64).numpy() for x, fmt in zip((a, b), formats, strict=True)]
    with np.errstate(invalid="ignore", over="ignore"):
        exact = values[0] * values[1] + 0.0                # -0 + 0 is +0
        rounded = exact.astype(np.float32)
    return np.where(np.isnan(rounded), 0x7FC00000, rounded.view(np.uint32).astype(np.int64))


def _view(fmt: Format) -> torch.dtype:
    return torch.uint8 if fmt.width == 8 else torch.int16
