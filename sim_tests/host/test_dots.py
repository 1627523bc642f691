"""Row-wise dot products: the golden model by fractions, the compiled engine by the golden model."""

import itertools

import pytest
import torch

from exactum.benches.product_cases import edges, random_bits, sparse_bits
from exactum.benches.stalls import PATTERNS
from exactum.gen.config import preset
from exactum.gen.errors import UsageError
from exactum.hdl.formats import FORMATS
from exactum.host.cycles import dots_cycles
from exactum.host.dots import exact_dots, plan_dots, row_dots
from exactum.host.masks import NonZeros
from exactum.host.numerics import from_bits, operand, to_bits
from exactum.host.tiling import tile_columns
from exactum.host.vectors import factor
from sim_tests.host.native_engine import CONFIG, engine
from sim_tests.oracle import dot

PAIRS = [(FORMATS[a], FORMATS[b]) for a, b in (
    ("e4m3", "fp32"), ("bf16", "fp32"), ("fp32", "fp32"), ("e5m2", "bf16"), ("fp16", "fp16"),
    ("e4m3", "e4m3"))]


def names(pair):
    return tuple(fmt.name for fmt in pair)


def golden(a, b, pair):
    values, lost = exact_dots(*(operand(from_bits(bits, fmt), fmt)
                                for bits, fmt in zip((a, b), pair, strict=True)), names(pair))
    return to_bits(values), lost


def rows_of(pair, shape, seed, density=0.6):
    random = torch.Generator().manual_seed(seed)
    a, b = (random_bits(fmt, shape, random) for fmt in pair)
    return sparse_bits(a, density, random), b


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "-".join(names(pair)))
def test_the_golden_model_by_fractions(pair):
    a, b = rows_of(pair, (12, 19), 1)
    ends = [edges(fmt) for fmt in pair]
    b[0, :2] = pair[1].nan_bits
    for row in range(1, 5):
        a[row, :3] = ends[0][row:row + 3]
        b[row, :3] = ends[1][-row - 3:-row]
    found, lost = golden(a, b, pair)
    expected = [dot(x, y, pair, result=FORMATS["fp32"], overflow="overflow")
                for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert list(zip(found.tolist(), lost.tolist(), strict=True)) == expected


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "-".join(names(pair)))
@pytest.mark.parametrize(("rows", "k", "density"), [
    (1, 1, 1.0), (17, 70, 0.5), (5, 0, 1.0), (9, 130, 0.02), (3, CONFIG.vpcu.b_depth + 3, 0.3)])
def test_the_compiled_engine_gives_these_bits_in_these_cycles(pair, rows, k, density):
    a, b = rows_of(pair, (rows, k), rows + k, density)
    check(a, b, pair)


def check(a, b, pair, **options):
    done = engine().run(plan_dots(a, b, names(pair), config=CONFIG), **options)
    bits, lost = golden(a, b, pair)
    assert done.bits[:, 0].tolist() == bits.tolist()
    assert done.lost[:, 0].tolist() == lost.tolist()
    left, right = factor(a, pair[0]), factor(b, pair[1])
    if not options:
        assert done.cycles == dots_cycles(CONFIG, left.nonzero, right.special, pair)


def test_infinities_and_nans_under_zeros_are_met():
    pair = FORMATS["e4m3"], FORMATS["fp32"]
    a, b = rows_of(pair, (tile_columns(CONFIG, pair) + 1, 100), 3, density=0.1)
    b[1, 70], b[-1, 3] = pair[1].nan_bits, pair[1].infinity_bits
    a[1, 70] = a[-1, 3] = 0
    check(a, b, pair)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_stalls_change_nothing(pattern):
    pair = FORMATS["bf16"], FORMATS["fp32"]
    a, b = rows_of(pair, (5, 40), 4)
    check(a, b, pair, stalls={port: list(itertools.islice(PATTERNS[pattern](seed), 1000))
                              for seed, port in enumerate((*engine().unit.inputs, "o"))})


def test_a_batch_takes_the_cycles_of_its_parts():
    pair = FORMATS["bf16"], FORMATS["fp32"]
    mask = torch.rand(3, 11, 90, generator=torch.Generator().manual_seed(6)) < 0.2
    special = torch.zeros(3, 11, 90, dtype=torch.bool)
    special[1, 2, 3] = True
    parts = [dots_cycles(CONFIG, NonZeros(a), b, pair) for a, b in zip(mask, special, strict=True)]
    assert dots_cycles(CONFIG, NonZeros(mask), special, pair) == sum(parts)


def test_no_rows_take_no_cycles():
    pair = FORMATS["bf16"], FORMATS["fp32"]
    a, b = rows_of(pair, (0, 40), 4)
    left = factor(a, pair[0])
    assert dots_cycles(CONFIG, left.nonzero, None, pair) == 0
    plan = plan_dots(a, b, names(pair), config=CONFIG)
    assert plan.results == 0
    assert not plan.operations


def test_what_the_configuration_cannot_sum_is_said():
    with pytest.raises(UsageError, match="tiny has the formats e4m3; got 'fp32'") as caught:
        row_dots(torch.ones(1, 2), torch.ones(1, 2), config=preset("tiny"))
    assert caught.value.code == "X205"
    with pytest.raises(UsageError, match="sums at most 64 products") as caught:
        row_dots(torch.ones(1, 65), torch.ones(1, 65),
                 config=CONFIG.replace({"vpcu.max_k": 64, "vpcu.b_depth": 64}))
    assert caught.value.code == "X204"


def test_the_dots_are_the_diagonal_of_the_product():
    pair = FORMATS["e5m2"], FORMATS["bf16"]
    a, b = rows_of(pair, (6, 50), 5)
    plain = engine().gemm(a, b.mT.contiguous(), names(pair))
    dots = engine().run(plan_dots(a, b, names(pair), config=CONFIG))
    assert dots.bits[:, 0].tolist() == plain.bits.diagonal().tolist()
