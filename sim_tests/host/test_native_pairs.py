"""Products of single operands through the compiled engine: 10^5 pairs of each wider format.

Two oracles that share no arithmetic with the model or the gateware: 48-bit integers, and float64
rounded by numpy. More pairs, and every lane of the default preset: ``make pairs``.
"""

import itertools

import numpy as np
import pytest

from exactum.benches.pair_cases import boundary, check_pairs, draw, product_bits, product_by_float64
from exactum.hdl.formats import BF16, E4M3, E5M2, FORMATS, FP16, FP32
from sim_tests.host.native_engine import MANY_LANES, engine
from sim_tests.oracle import dot

NARROW = (E4M3, E5M2, FP16, BF16)
EIGHT_BITS = list(itertools.product((E4M3, E5M2), repeat=2))


def crossed(fmt, count, seed):
    """Operands of ``fmt`` for both sides of a product."""
    random = np.random.default_rng(seed)
    return draw(fmt, count, random), random.permutation(draw(fmt, count, random))


@pytest.mark.parametrize("result", FORMATS.values(), ids=lambda fmt: fmt.name)
def test_the_integer_oracle_agrees_with_fractions(result):
    for seed, pair in enumerate(itertools.product(FORMATS.values(), repeat=2)):
        random = np.random.default_rng(seed)
        a, b = (random.permutation(draw(fmt, 60, random)) for fmt in pair)
        expected = [dot([x], [y], pair, result=result) for x, y in zip(a.tolist(), b.tolist(),
                                                                     strict=True)]
        assert product_bits(a, b, pair, result).tolist() == [bits for bits, _ in expected]
        assert not any(lost for _, lost in expected)


@pytest.mark.parametrize("pair", [*itertools.product(NARROW, repeat=2)],
                         ids=lambda pair: "-".join(fmt.name for fmt in pair))
def test_the_integer_oracle_agrees_with_float64(pair):
    random = np.random.default_rng(7)
    a, b = (random.permutation(draw(fmt, 20_000, random)) for fmt in pair)
    assert np.array_equal(product_bits(a, b, pair, FP32), product_by_float64(a, b, pair))


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda fmt: fmt.name)
def test_the_operands_hold_every_class(fmt):
    drawn = set(draw(fmt, 200_000, np.random.default_rng(1)).tolist())
    sign = 1 << fmt.width - 1
    assert set(boundary(fmt).tolist()) <= drawn
    for bits in (0, 1, (1 << fmt.mantissa_width) - 1, 1 << fmt.mantissa_width,
                 fmt.max_finite_bits, fmt.nan_bits, *([fmt.infinity_bits] if fmt.ieee else [])):
        assert {bits, bits | sign} <= set(boundary(fmt).tolist())


@pytest.mark.parametrize("pair", EIGHT_BITS, ids=lambda pair: "-".join(fmt.name for fmt in pair))
def test_every_pair_of_8_bit_operands(pair):
    every = np.arange(256)
    found = check_pairs(engine(), every, every, pair, FP32)
    assert found.wrong == 0, found.first


def test_every_pair_in_a_build_of_its_own():
    every = np.arange(256)
    found = check_pairs(engine(MANY_LANES), every, every, (E4M3, E4M3), FP32)
    assert found.wrong == 0, found.first


@pytest.mark.parametrize("result", ["fp32", "its own"])
@pytest.mark.parametrize("fmt", [FP16, BF16, FP32], ids=lambda fmt: fmt.name)
def test_100_000_pairs(fmt, result):
    target = FP32 if result == "fp32" else fmt
    found = check_pairs(engine(), *crossed(fmt, 317, len(result)), (fmt, fmt), target)
    assert found.wrong == 0, found.first
    assert found.pairs >= 100_000


def test_a_wrong_bit_of_one_operand_is_found():
    a, b = crossed(FP16, 32, 3)
    expected = product_bits(a[:, None], b[None], (FP16, FP16), FP32)
    assert check_pairs(engine(), a, b, (FP16, FP16), FP32, expected).wrong == 0
    expected[5, 7] ^= 1
    found = check_pairs(engine(), a, b, (FP16, FP16), FP32, expected)
    assert found.wrong == 1
    assert f"{a[5]:#x} * fp16 {b[7]:#x}" in found.first
