"""Block scales (rule N6) and fp32's dropped bits in the golden model, against the oracle."""

import itertools

import pytest
import torch

from exactum.gen.errors import UsageError
from exactum.hdl.formats import BF16, E4M3, E5M2, FORMATS, FP16, FP32
from exactum.host import gemm, kernels, mx, window
from exactum.host.gemm import exact_gemm
from exactum.host.mx import mx_dequantize, mx_quantize
from exactum.host.numerics import from_bits, to_bits
from sim_tests import oracle
from sim_tests.host.test_gemm import finite, one_huge, ordinary, sparse, special, subnormal

PAIRS = list(itertools.product(FORMATS.values(), repeat=2))
pairs = pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p[0].name}-{p[1].name}")
KINDS = [(ordinary, ordinary), (finite, finite), (subnormal, finite), (one_huge, sparse),
         (special, special)]


def near_one(shape, random):
    return torch.randint(120, 136, shape, generator=random)


def any_finite(shape, random):
    return torch.randint(0, 255, shape, generator=random)


def extremes(shape, random):
    return torch.randint(0, 2, shape, generator=random) * 254


def with_nan(shape, random):
    return torch.where(torch.rand(shape, generator=random) < 0.1, 255, near_one(shape, random))


def check(a, b, pair, scales, result=FP32, scale_block=16, **options):
    """All outputs of A [M, K] times B [N, K] with scales [M, blocks], [N, blocks]; lost ones."""
    given = (None if scales[0] is None else scales[0].to(torch.uint8),
             None if scales[1] is None else scales[1].to(torch.uint8).t())
    got, lost = exact_gemm(from_bits(a, pair[0]), from_bits(b, pair[1]).t(),
                           tuple(f.name for f in pair), result.name, scales=given,
                           scale_block=scale_block, **options)
    for m, n in itertools.product(range(len(a)), range(len(b))):
        bytes_ = tuple(None if x is None else x[at].tolist()
                       for x, at in zip(scales, (m, n), strict=True))
        expected = oracle.dot(a[m].tolist(), b[n].tolist(), pair, result=result, scales=bytes_,
                              scale_block=scale_block, **options)
        assert (to_bits(got)[m, n].item(), lost[m, n].item()) == expected, (m, n, pair, bytes_)
    return int(lost.sum())


@pairs
@pytest.mark.parametrize("drawn", [near_one, any_finite, extremes, with_nan],
                         ids=lambda f: f.__name__)
def test_scaled_products_of_every_kind(pair, drawn):
    random = torch.Generator().manual_seed(pair[0].code.value * 5 + pair[1].code.value)
    results, blocks = itertools.cycle(FORMATS.values()), itertools.cycle((16, 32, 64))
    for kinds, k in zip(KINDS, (40, 16, 33, 70, 1), strict=True):
        a, b = kinds[0](pair[0], (3, k), random), kinds[1](pair[1], (2, k), random)
        block = next(blocks)
        scales = [drawn((len(x), -(-k // block)), random) for x in (a, b)]
        check(a, b, pair, scales, next(results), block)
        check(a, b, pair, (scales[0], None), next(results), block)
        check(a, b, pair, (None, scales[1]), next(results), block)


@pairs
@pytest.mark.parametrize("width", [40, 64])
def test_bits_under_a_scaled_window_are_dropped(pair, width):
    random = torch.Generator().manual_seed(width)
    for kind in (finite, subnormal):
        a, b = (kind(fmt, (4, 40), random) for fmt in pair)
        scales = [any_finite((4, 3), random) for _ in range(2)]
        assert check(a, b, pair, scales, accumulator_width=width, max_k=64) > 0


@pairs
def test_a_scale_of_one_changes_nothing_where_the_window_is_anchored(pair):
    random = torch.Generator().manual_seed(21)
    names = tuple(fmt.name for fmt in pair)
    a, b = (from_bits(ordinary(fmt, (5, 70), random), fmt) for fmt in pair)
    ones = torch.full((5, 3), 127, dtype=torch.uint8)
    got = exact_gemm(a, b.t(), names, scales=(ones, ones.t()))
    plain = exact_gemm(a, b.t(), names)
    assert torch.equal(to_bits(got[0]), to_bits(plain[0]))
    assert torch.equal(got[1], plain[1])


def test_a_common_scale_is_an_exponent():
    random = torch.Generator().manual_seed(22)
    a, b = (from_bits(ordinary(E4M3, (5, 70), random), E4M3) for _ in range(2))
    scales = torch.full((5, 3), 127 + 9, dtype=torch.uint8), \
        torch.full((3, 5), 127 - 30, dtype=torch.uint8)
    got, _ = exact_gemm(a, b.t(), scales=scales)
    assert torch.equal(got, exact_gemm(a, b.t(), exponent=9 - 30)[0])


def test_a_nan_scale_makes_its_block_nan():
    a, b = torch.zeros(2, 64).to(torch.float8_e4m3fn), torch.zeros(64, 2).to(torch.float8_e4m3fn)
    scales = torch.full((2, 2), 127, dtype=torch.uint8)
    scales[1, 0] = 255
    got, lost = exact_gemm(a, b, scales=(scales, None))
    assert got.isnan().tolist() == [[False, False], [True, True]]
    assert not lost.any()


def test_scales_may_be_of_their_own_dtype_and_come_in_batches():
    random = torch.Generator().manual_seed(23)
    a = from_bits(ordinary(E5M2, (3, 4, 50), random), E5M2)
    b = from_bits(ordinary(BF16, (3, 50, 6), random), BF16)
    scales = near_one((3, 4, 4), random).to(torch.uint8), near_one((3, 4, 6), random).to(
        torch.uint8)
    own = tuple(x.view(torch.float8_e8m0fnu) for x in scales)
    got, lost = exact_gemm(a, b, ("e5m2", "bf16"), scales=own, scale_block=16)
    for index in range(3):
        one, flags = exact_gemm(a[index], b[index], ("e5m2", "bf16"), scale_block=16,
                                scales=(scales[0][index], scales[1][index]))
        assert torch.equal(to_bits(got[index]), to_bits(one))
        assert torch.equal(lost[index], flags)


@pairs
def test_the_kernels_change_nothing_under_scales(pair, monkeypatch):
    random = torch.Generator().manual_seed(24)
    names = tuple(fmt.name for fmt in pair)
    a, b = (from_bits(special(fmt, (20, 70), random), fmt) for fmt in pair)
    scales = with_nan((20, 3), random).to(torch.uint8), with_nan((3, 20), random).to(torch.uint8)
    compiled = exact_gemm(a, b.t(), names, scales=scales)
    monkeypatch.setattr(kernels, "_loaded", (None, "none"))
    plain = exact_gemm(a, b.t(), names, scales=scales)
    assert torch.equal(to_bits(compiled[0]), to_bits(plain[0]))
    assert torch.equal(compiled[1], plain[1])


def test_the_product_of_quantized_matrices_is_that_of_their_values():
    random = torch.Generator().manual_seed(25)
    x, y = torch.randn(6, 96, generator=random).exp_(), torch.randn(96, 5, generator=random) * 9
    (a, scale_a), (b, scale_b) = mx_quantize(x, "e4m3"), mx_quantize(y, "e5m2", axis=0)
    got, lost = exact_gemm(a, b, ("e4m3", "e5m2"), scales=(scale_a, scale_b))
    values = mx_dequantize(a, scale_a) @ mx_dequantize(b, scale_b, axis=0)   # float64 holds these
    assert torch.equal(got, values.float())
    assert not lost.any()
    assert (got - x @ y).abs().max() < 0.1 * (x @ y.abs()).max()


def test_fp32_products_lose_bits_part_by_part():
    """H L' and L H' reach into the window by half a step each: the whole product by one step."""
    one, x = 0x3F800000, 0x3F800000 | 0x8000 >> 1   # 1, and 1 + 2^-9: S = 2^24 + 2^15
    width = 3 + 6 + 9 - 1
    for sign in (0, 1 << 31):
        a, b = torch.tensor([[x, one]]), torch.tensor([[x | sign, 0]])
        bits, lost = oracle.dot(a[0].tolist(), b[0].tolist(), (FP32, FP32), result=FP32,
                                accumulator_width=width, max_k=64)
        assert lost
        assert bits == (one | sign)   # 1 + 2^-8 + 2^-18, the lowest bit kept weighs 2^-8
        assert check(a, b, (FP32, FP32), (None, None), accumulator_width=width, max_k=64) == 1


@pytest.mark.parametrize("pair", [p for p in PAIRS if FP32 in p],
                         ids=lambda p: f"{p[0].name}-{p[1].name}")
@pytest.mark.parametrize("width", [26, 29, 32, 35, 37])
def test_every_alignment_of_fp32_halves(pair, width):
    """Exponents one by one below the anchor: all fine shifts and groups, mantissas at random.

    The window is so short that a result of 24 bits shows what is dropped.
    """
    random = torch.Generator().manual_seed(width)
    rows = []
    for fmt in pair:
        reach = min(40, fmt.max_exponent - fmt.min_exponent)
        places = torch.arange(fmt.bias + fmt.max_exponent, 0, -1)[:reach]
        if fmt.is_wide:
            places = places - 100
        mantissa = torch.randint(0, 1 << fmt.mantissa_width, (3, len(places)), generator=random)
        sign = torch.randint(0, 2, mantissa.shape, generator=random) << fmt.width - 1
        bits = sign | places << fmt.mantissa_width | mantissa
        rows.append(torch.nn.functional.pad(bits, (0, 40 - reach)))
    rows[1] = rows[1][:, torch.randperm(40, generator=random)]
    assert check(*rows, pair, (None, None), accumulator_width=width, max_k=64) > 0


ONES = torch.ones(2, 33).to(torch.float8_e4m3fn)
GOOD = torch.full((2, 2), 127, dtype=torch.uint8)


@pytest.mark.parametrize(("a", "scales", "options", "code", "says"), [
    (ONES, GOOD, {}, "X202", "scales is a pair, of a and of b, None for either; got Tensor"),
    (ONES, (GOOD,), {}, "X202", "scales is a pair"),
    (ONES, (GOOD, GOOD[:1]), {}, "X201", "scales of b is [1, 2]; one for each block is [2, 2]"),
    (ONES, (GOOD[:, :1], None), {}, "X201", "scales of a is [2, 1]"),
    (ONES, (GOOD, None), {"scale_block": 16}, "X201", "one for each block is [2, 3]"),
    (ONES, (GOOD, None), {"scale_block": 8}, "X207", "one of 16, 32, 64 elements; got 8"),
    (ONES, (GOOD.float(), None), {}, "X202", "scales are uint8 or float8_e8m0fnu"),
    (ONES, ([[127]], None), {}, "X202", "scales of a is a torch tensor; got list"),
    (ONES.float(), (GOOD, None), {}, "X202", "a is float32; with scales it is float8_e4m3fn"),
])
def test_bad_scales_get_one_sentence(a, scales, options, code, says):
    with pytest.raises(UsageError) as caught:
        exact_gemm(a, ONES.t(), scales=scales, **options)
    assert caught.value.code == code
    assert says in str(caught.value)


def whole_products(monkeypatch):
    """A fault: fp32's products are dropped from as a whole."""
    monkeypatch.setattr(window.Window, "parts", 1)


def halves_of_the_significand(monkeypatch):
    """A fault: halves are split at a fixed place under the exponent, not on the byte grid."""
    def halves(values, of, fmt, weights, place):
        x = values[place]
        grid = window.power_of_two(x).clamp_(min=2.0 ** -300) * 2.0 ** -8
        high = (x / grid).trunc_() * grid
        return high, x - high
    monkeypatch.setattr(window, "_halves", halves)


def window_of_the_format(monkeypatch):
    """A fault: the window of scaled operands lies where that of their formats does."""
    def side(x, dim, fmt, anchored, weights=None):
        found = SIDE(x, dim, fmt, anchored, weights)
        return found._replace(anchor=torch.full_like(found.anchor, 2.0 ** fmt.max_exponent))
    monkeypatch.setattr(gemm, "side", side)


def normalised_subnormals(monkeypatch):
    """A fault: subnormals have the exponent of their leading bit."""
    def scaled(x, *rest):
        found = SCALED(x, *rest)
        return found if found.weights is None else found._replace(
            weights=window.power_of_two(found.values).nan_to_num_(0, 0, 0))
    monkeypatch.setattr(gemm, "scaled", scaled)


def nan_as_power(monkeypatch):
    """A fault: the byte 255 is 2^128."""
    monkeypatch.setattr(mx, "NAN_SCALE", 256)


SIDE, SCALED = window.side, mx.scaled
FAULTS = [
    (whole_products, test_fp32_products_lose_bits_part_by_part),
    (halves_of_the_significand, lambda: test_every_alignment_of_fp32_halves((FP32, BF16), 29)),
    (window_of_the_format, lambda: test_scaled_products_of_every_kind((E4M3, FP16), any_finite)),
    (normalised_subnormals, lambda: test_bits_under_a_scaled_window_are_dropped((E5M2, E5M2), 40)),
    (nan_as_power, test_a_nan_scale_makes_its_block_nan),
]


@pytest.mark.parametrize(("fault", "check"), FAULTS, ids=[f.__name__ for f, _ in FAULTS])
def test_the_tests_catch_faults(monkeypatch, fault, check):
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check()
