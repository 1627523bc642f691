"""The golden model of the product against the rational oracle, bit for bit."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exactum.gen.errors import UsageError
from exactum.hdl.formats import BF16, E4M3, E5M2, FORMATS, FP16, FP32
from exactum.host import gemm, numerics, window
from exactum.host.gemm import exact_gemm
from exactum.host.numerics import decode, from_bits, quantize, to_bits, torch_dtype
from sim_tests import oracle

PAIRS = list(itertools.product(FORMATS.values(), repeat=2))
pairs = pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p[0].name}-{p[1].name}")


def any_bits(fmt, shape, random):
    """Every bit pattern as likely: the widest spread of exponents, a few NaN and Inf."""
    return torch.randint(0, 1 << fmt.width, shape, generator=random)


def finite(fmt, shape, random):
    """Every finite value as likely."""
    magnitude = torch.randint(0, fmt.max_finite_bits + 1, shape, generator=random)
    return magnitude | torch.randint(0, 2, shape, generator=random) << fmt.width - 1


def ordinary(fmt, shape, random):
    """Normally distributed, as in a network."""
    return to_bits(quantize(torch.randn(shape, generator=random), fmt))


def subnormal(fmt, shape, random):
    """Nothing but subnormals and zeros."""
    magnitude = torch.randint(0, 1 << fmt.mantissa_width, shape, generator=random)
    return magnitude | torch.randint(0, 2, shape, generator=random) << fmt.width - 1


def sparse(fmt, shape, random):
    """Mostly zeros of both signs."""
    kept = torch.rand(shape, generator=random) < 0.2
    sign = torch.randint(0, 2, shape, generator=random) << fmt.width - 1
    return torch.where(kept, finite(fmt, shape, random), sign)


def special(fmt, shape, random):
    """Ordinary, zero, NaN and Inf mixed."""
    dice = torch.randint(0, 40, shape, generator=random)
    sign = torch.randint(0, 2, shape, generator=random) << fmt.width - 1
    bits = torch.where(dice == 0, fmt.nan_bits, ordinary(fmt, shape, random))
    bits = torch.where((dice > 0) & (dice < 4), sign | (fmt.infinity_bits if fmt.ieee else 0), bits)
    return torch.where(dice > 30, sign, bits)


def cancelling(fmt, shape, random):
    """Terms, their opposites in the same order, and one small rest; pair with `repeating`."""
    bits, half = ordinary(fmt, shape, random), shape[-1] // 2
    bits[..., half:2 * half] = bits[..., :half] ^ 1 << fmt.width - 1
    tiny = 2.0 ** -30 if fmt.is_wide else 2.0 ** fmt.min_exponent
    bits[..., -1] = to_bits(quantize(torch.randn(shape[:-1], generator=random) * tiny, fmt))
    return bits


def repeating(fmt, shape, random):
    """The same terms twice."""
    bits, half = ordinary(fmt, shape, random), shape[-1] // 2
    bits[..., half:2 * half] = bits[..., :half]
    return bits


def one_huge(fmt, shape, random):
    """One large value, the rest tiny."""
    bits = subnormal(fmt, shape, random)
    bits[..., 0] = fmt.max_finite_bits - 1
    return bits


KINDS = [(any_bits, any_bits), (finite, finite), (ordinary, ordinary), (subnormal, finite),
         (subnormal, subnormal), (sparse, sparse), (one_huge, ordinary), (cancelling, repeating),
         (one_huge, one_huge), (special, special), (ordinary, sparse)]


def check(a, b, pair, result, **options):
    """Compare all outputs of A [M, K] times B [N, K], given as bits; return how many were lost."""
    got, lost = exact_gemm(from_bits(a, pair[0]), from_bits(b, pair[1]).t(),
                           tuple(f.name for f in pair), result.name, **options)
    assert got.dtype == torch_dtype(result)
    rows, columns = a.tolist(), b.tolist()
    for m, n in itertools.product(range(len(rows)), range(len(columns))):
        expected = oracle.dot(rows[m], columns[n], pair, result=result, **options)
        seen = to_bits(got)[m, n].item(), lost[m, n].item()
        assert seen == expected, (rows[m], columns[n], pair, result)
    return int(lost.sum())


@pairs
def test_small_products_of_every_kind(pair):
    random = torch.Generator().manual_seed(pair[0].code.value * 5 + pair[1].code.value)
    results = itertools.cycle(FORMATS.values())
    for kinds, k in zip(KINDS, itertools.cycle([1, 2, 33, 16, 5]), strict=False):
        a = kinds[0](pair[0], (4, k), random)
        b = kinds[1](pair[1], (3, k), random)
        for _ in range(3):
            check(a, b, pair, next(results))
        check(a, b, pair, FP32, exponent=int(torch.randint(-90, 90, (), generator=random)))


@pairs
@pytest.mark.parametrize("width", [40, 64, 100])
def test_bits_under_the_window_are_dropped_product_by_product(pair, width):
    random = torch.Generator().manual_seed(width)
    lost = 0
    for kinds in [(finite, finite), (cancelling, repeating), (one_huge, one_huge)]:
        a, b = kinds[0](pair[0], (4, 9), random), kinds[1](pair[1], (4, 9), random)
        lost += check(a, b, pair, FP32, accumulator_width=width, max_k=64)
    wide = any(fmt.is_wide for fmt in pair)
    if width == 100 and not wide:
        assert lost == 0
    if width == 40 and pair != (E4M3, E4M3):
        assert lost > 0


def test_a_wide_window_over_many_terms():
    """The search for lost bits takes the terms in parts; each part finds its own."""
    random = torch.Generator().manual_seed(9)
    a, b = (finite(FP32, (4, 300), random) for _ in range(2))
    exponent = 0xFF << 23
    narrow = to_bits(quantize(torch.randn(4, 300, generator=random), FP32))
    for deep in (5, 299):
        rows, columns = narrow.clone(), narrow.flip(0)
        rows[:, deep], columns[:, deep] = a[:, deep] & ~exponent, b[:, deep] & ~exponent
        lost = check(rows, columns[:2], (FP32, FP32), FP32, accumulator_width=256)
        assert lost == 8


@pytest.mark.parametrize("overflow", ["saturate", "overflow"])
@pytest.mark.parametrize("result", FORMATS.values(), ids=FORMATS)
def test_results_overflow_as_asked(result, overflow):
    random = torch.Generator().manual_seed(3)
    for fmt in (E5M2, FP32):
        a, b = finite(fmt, (6, 7), random), finite(fmt, (6, 7), random)
        for exponent in (-2048, 0, 200, 2047):
            check(a, b, (fmt, fmt), result, overflow=overflow, exponent=exponent)


@pytest.mark.parametrize(("pair", "k", "kinds"), [
    ((E4M3, E4M3), 32768, (ordinary, ordinary)),
    ((FP32, FP32), 32768, (cancelling, repeating)),
    ((E5M2, E5M2), 768, (finite, finite)),
    ((FP16, E5M2), 4096, (cancelling, repeating)),
    ((BF16, BF16), 4096, (ordinary, ordinary)),
    ((FP32, E4M3), 768, (ordinary, sparse)),
], ids=lambda x: str(x) if isinstance(x, int) else "")
def test_long_products(pair, k, kinds):
    random = torch.Generator().manual_seed(k)
    check(kinds[0](pair[0], (1, k), random), kinds[1](pair[1], (1, k), random), pair, FP32)


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
def test_the_largest_sums_fit(fmt):
    largest = torch.full((1, 4096), fmt.max_finite_bits)
    smallest = torch.full((1, 4096), 1)
    for a, b in [(largest, largest), (smallest, smallest | 1 << fmt.width - 1)]:
        check(a, b, (fmt, fmt), FP32, max_k=4096)


@pytest.mark.parametrize("fmt", [E4M3, FP16, FP32], ids=lambda fmt: fmt.name)
def test_no_terms_and_no_outputs(fmt):
    for m, k, n in [(2, 0, 3), (0, 4, 3), (2, 4, 0), (0, 0, 0)]:
        got, lost = exact_gemm(torch.ones(m, k), torch.ones(k, n), (fmt.name, fmt.name))
        assert got.shape == lost.shape == (m, n)
        assert torch.equal(to_bits(got), torch.zeros(m, n, dtype=torch.int64))


@pairs
def test_a_batch_is_its_products(pair):
    random = torch.Generator().manual_seed(11)
    names = tuple(fmt.name for fmt in pair)
    a = from_bits(any_bits(pair[0], (3, 4, 6), random), pair[0])
    b = from_bits(any_bits(pair[1], (3, 6, 5), random), pair[1])
    a[1] = from_bits(cancelling(pair[0], (4, 6), random), pair[0])
    b[1] = from_bits(repeating(pair[1], (5, 6), random), pair[1]).t()
    got, lost = exact_gemm(a, b, names)
    for index in range(3):
        one, flags = exact_gemm(a[index], b[index], names)
        assert torch.equal(to_bits(got[index]), to_bits(one))
        assert torch.equal(lost[index], flags)


@pairs
def test_the_number_of_threads_and_the_layout_change_nothing(pair):
    random = torch.Generator().manual_seed(12)
    names = tuple(fmt.name for fmt in pair)
    a, b = (from_bits(finite(fmt, (70, 70), random), fmt) for fmt in pair)
    threads = torch.get_num_threads()
    got, lost = exact_gemm(a, b.t(), names)
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        again, flags = exact_gemm(a.t().contiguous().t(), b.t().contiguous(), names)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(to_bits(got), to_bits(again))
    assert torch.equal(lost, flags)


@pairs
def test_turning_the_right_factor_changes_nothing(pair, monkeypatch):
    random = torch.Generator().manual_seed(14)
    names = tuple(fmt.name for fmt in pair)
    a, b = (from_bits(finite(fmt, (2, 30, 30), random), fmt) for fmt in pair)
    whole = exact_gemm(a, b, names)
    monkeypatch.setattr(numerics, "_WORTH_TURNING", 1)
    assert same(exact_gemm(a, b, names), whole)
    assert same(exact_gemm(a.float(), b.float(), names), whole)


@pairs
def test_working_in_blocks_changes_nothing(pair, monkeypatch):
    random = torch.Generator().manual_seed(13)
    names = tuple(fmt.name for fmt in pair)
    a, b = from_bits(cancelling(pair[0], (2, 20, 16), random), pair[0]), \
        from_bits(repeating(pair[1], (2, 10, 16), random), pair[1]).transpose(1, 2)
    a[1] = from_bits(finite(pair[0], (20, 16), random), pair[0])
    whole = exact_gemm(a, b, names)
    monkeypatch.setattr(gemm, "_BLOCK", 64)
    monkeypatch.setattr(window, "_CHUNK_PRODUCTS", 50)
    assert same(exact_gemm(a, b, names), whole)
    check(to_bits(a[0])[:, :7], to_bits(b[0].t().contiguous())[:, :7], pair, FP32)


@st.composite
def products(draw):
    """Two formats, A [3, K] and B [K, 3], and a generator for what the property does to them."""
    pair = draw(st.sampled_from(PAIRS))
    random = torch.Generator().manual_seed(draw(st.integers(0, 1 << 40)))
    kinds, k = draw(st.sampled_from(KINDS)), draw(st.integers(1, 40))
    a, b = kinds[0](pair[0], (3, k), random), kinds[1](pair[1], (3, k), random)
    return tuple(f.name for f in pair), from_bits(a, pair[0]), from_bits(b, pair[1]).t(), random


def same(first, second):
    return torch.equal(to_bits(first[0]), to_bits(second[0])) and torch.equal(first[1], second[1])


@given(products())
@settings(max_examples=100, deadline=None)
def test_the_order_of_terms_changes_nothing(case):
    names, a, b, random = case
    order = torch.randperm(a.shape[1], generator=random)
    assert same(exact_gemm(a[:, order], b[order], names), exact_gemm(a, b, names))


@given(products(), st.integers(1, 70))
@settings(max_examples=100, deadline=None)
def test_inserted_zeros_change_nothing(case, zeros):
    names, a, b, random = case
    at = torch.randint(0, a.shape[1] + 1, (), generator=random)
    sign = torch.tensor(-0.0 if zeros % 2 else 0.0)
    wider_a, wider_b = (torch.cat([x[:, :at], sign.expand(3, zeros).to(x.dtype), x[:, at:]], 1)
                        for x in (a, b.t()))
    assert same(exact_gemm(wider_a, wider_b.t(), names), exact_gemm(a, b, names))


@given(products())
@settings(max_examples=100, deadline=None)
def test_rows_and_columns_are_independent(case):
    names, a, b, _ = case
    whole = exact_gemm(a, b, names)
    for m, n in itertools.product(range(3), repeat=2):
        one = exact_gemm(a[m:m + 1], b[:, n:n + 1], names)
        assert same(one, (whole[0][m:m + 1, n:n + 1], whole[1][m:m + 1, n:n + 1]))


@pairs
def test_results_are_the_nearest_of_a_wide_sum(pair):
    """A second opinion on many outputs: integers in Python, not fractions."""
    random = torch.Generator().manual_seed(5)
    names = tuple(fmt.name for fmt in pair)
    a, b = (from_bits(ordinary(fmt, (12, 33), random), fmt) for fmt in pair)
    got, lost = exact_gemm(a, b.t(), names)
    scale = 2.0 ** 149
    left, right = ([[int(v * scale) for v in row] for row in decode(x).double().tolist()]
                   for x in (a, b))
    for m, n in itertools.product(range(12), repeat=2):
        exact = sum(x * y for x, y in zip(left[m], right[n], strict=True))
        nearest = oracle.encode(oracle.Fraction(exact, 1 << 298), FP32, "overflow")
        assert to_bits(got)[m, n] == nearest
        assert not lost[m, n]


@pytest.mark.parametrize(("a", "b", "options", "code", "says"), [
    ((2, 3), (4, 5), {}, "X201", "a is [2, 3] and b is [4, 5]"),
    ((3,), (3, 5), {}, "X201", "a is [3] and b is [3, 5]"),
    ((2, 2, 3), (3, 3, 5), {}, "X201", "a is [2, 2, 3] and b is [3, 3, 5]"),
    ((2, 2, 3), (3, 5), {}, "X201", "a [B, M, K]"),
    ((1, 65), (65, 1), {"max_k": 64}, "X204", "K is 65; this configuration sums at most 64"),
    ((2, 3), (3, 2), {"formats": ("e4m3", "fp8")}, "X203", "got 'fp8'"),
    ((2, 3), (3, 2), {"result": "float32"}, "X203", "got 'float32'"),
    ((2, 3), (3, 2), {"overflow": "wrap"}, "X206", "saturate, overflow"),
])
def test_bad_input_gets_one_sentence(a, b, options, code, says):
    with pytest.raises(UsageError) as caught:
        exact_gemm(torch.ones(a), torch.ones(b), **options)
    assert caught.value.code == code
    assert says in str(caught.value)


def no_bound(monkeypatch):
    """A fault: float64's sums are believed."""
    monkeypatch.setattr(gemm, "_LARGEST_INTEGER", math.inf)


def nothing_is_lost(monkeypatch):
    """A fault: the window is never found too short."""
    monkeypatch.setattr(window.Window, "lost", lambda self: None)


def nearest_sums(monkeypatch):
    """A fault: exact sums are rounded to nearest on the way, so twice."""
    monkeypatch.setattr(window, "_add_to_odd", torch.add)


def zeros_hide_infinities(monkeypatch):
    """A fault: 0 times Inf is taken for 0."""
    def faulty(a, b):
        found = SPECIAL(a, b)
        hidden = a.isnan().any(-1).unsqueeze(-1) | b.isnan().any(-2).unsqueeze(-2)
        return torch.where(found.isnan() & ~hidden, 0.0, found)
    monkeypatch.setattr(gemm, "_special", faulty)


def rounded_drops(monkeypatch):
    """A fault: dropped bits round the products instead of truncating them."""
    monkeypatch.setattr(window, "_truncate", lambda x: x.round_())


SPECIAL = gemm._special
FAULTS = [
    (no_bound, lambda: test_small_products_of_every_kind((FP32, FP32))),
    (nothing_is_lost, lambda: test_small_products_of_every_kind((FP32, BF16))),
    (nearest_sums, lambda: test_a_tie_broken_far_below()),
    (zeros_hide_infinities, lambda: test_small_products_of_every_kind((E5M2, FP16))),
    (rounded_drops, lambda: test_bits_under_the_window_are_dropped_product_by_product(
        (FP32, FP32), 40)),
]


@pytest.mark.parametrize(("fault", "check"), FAULTS, ids=[f.__name__ for f, _ in FAULTS])
def test_the_tests_catch_faults(monkeypatch, fault, check):
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check()


def test_a_tie_broken_far_below():
    """1 + 2^-24 is halfway in fp32; a term 2^-70 below decides, far under float64's last bit."""
    for sign in (1.0, -1.0):
        a = torch.tensor([[1.0, 2.0 ** -24, sign * 2.0 ** -70, 2.0 ** -50, -2.0 ** -50]])
        check(to_bits(a), to_bits(torch.ones(1, 5)), (FP32, FP32), FP32)
        check(to_bits(-a), to_bits(torch.ones(1, 5)), (FP32, FP32), FP32)
