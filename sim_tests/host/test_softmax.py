"""The golden softmax against its contract in plain integers, and against the right answer."""

import math
import random
from fractions import Fraction

import pytest
import torch

from exactum.benches.softmax_cases import expected, named_rows, random_rows
from exactum.gen.config import preset
from exactum.gen.errors import UsageError
from exactum.hdl.formats import BF16, E4M3, E5M2, FORMATS, FP16, FP32
from exactum.hdl.softmax_tables import exp2_table, probability_error, reciprocal_table
from exactum.host import softmax as golden
from exactum.host.numerics import from_bits, to_bits
from exactum.host.softmax import exact_softmax, softmax_backward, softmax_cycles
from sim_tests.oracle import NAN, decode, encode

CONFIG = preset("default")
PARAMETERS = CONFIG.softmax.model_dump()
INF = math.inf


def table_value(table, fraction):
    index, low = divmod(fraction, 1 << table.low_width)
    rise = table.slopes[index] * low
    line = (table.bases[index] << table.low_width) + (-rise if table.falling else rise)
    return line >> table.drop_width


def logarithm(x):
    """Rule S2, in units of 2^-20."""
    if abs(x) < 2 ** 31:
        steps = math.floor(abs(x) * 0xB8AA3B / 2 ** 23 * 2 ** 20 + Fraction(1, 2))
    else:
        steps = (2 ** 32 + 2 ** 8 * (encode(abs(x), FP32, "overflow") - 0x4F000000)) << 20
    return steps if x > 0 else -steps


def contract(row, fmt, result, parameters=PARAMETERS):
    """Rules S1 to S6, an element at a time."""
    values = [decode(bits, fmt) for bits in row]
    counted = [x for x in values if isinstance(x, Fraction)]
    if NAN in values or INF in values or not counted:
        return [result.nan_bits] * len(row)
    exp2 = exp2_table(parameters["exp_segments"])
    powers = [divmod(logarithm(x), 1 << 20) if x != -INF else None for x in values]
    powers = [(n, table_value(exp2, f)) for n, f in filter(None, powers)]
    top = max(n // 32 for n, _ in powers)
    total = sum(value << n - 32 * (top - 1) for n, value in powers if n // 32 >= top - 1)
    place = total.bit_length() - 1
    fraction = math.floor(Fraction(total, 2 ** place) * 2 ** 20) - 2 ** 20
    inverse = table_value(reciprocal_table(parameters["reciprocal_segments"]), fraction)
    powers, out = iter(powers), []
    for x in values:
        if x == -INF:
            out.append(0)
            continue
        n, value = next(powers)
        exponent = max(n - 32 * (top - 1) - place - 18, -1000)
        p = value * inverse * Fraction(2) ** exponent
        out.append(encode(min(p, Fraction(1)), result, "overflow"))
    return out


@pytest.mark.parametrize("result", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
def test_bits_equal_the_contract_in_integers(fmt, result):
    rows = named_rows(fmt.name, 1024) + random_rows(fmt.name, [1, 2, 3, 17, 64, 100], seed=3)
    for row in rows:
        assert expected(row, fmt.name, result.name, PARAMETERS) == contract(row, fmt, result)


@pytest.mark.parametrize("segments", [(16, 16), (1024, 1024), (128, 256)])
def test_bits_equal_the_contract_with_other_tables(segments):
    parameters = PARAMETERS | dict(
        zip(("exp_segments", "reciprocal_segments"), segments, strict=True))
    for row in random_rows("fp32", [5, 50, 1], seed=4):
        wanted = contract(row, FP32, FP32, parameters)
        assert expected(row, "fp32", "fp32", parameters) == wanted


@pytest.mark.parametrize("segments", [16, 64, 128, 512, 1024])
def test_tables_stay_within_their_bound_everywhere(segments):
    fractions = torch.arange(1 << 20)
    for table, unit, exact in (
            (exp2_table(segments), 2.0 ** -17, torch.exp2(fractions.double() / 2 ** 20)),
            (reciprocal_table(segments), 2.0 ** -18, 1 / (1 + fractions.double() / 2 ** 20))):
        index, low = fractions >> table.low_width, fractions & (1 << table.low_width) - 1
        slopes = torch.tensor(table.slopes)[index] * (-1 if table.falling else 1)
        bases = torch.tensor(table.bases)[index] << table.low_width
        values = (bases + slopes * low) >> table.drop_width
        assert values.max() < 1 << 18
        worst = float((values * unit / exact - 1).abs().max())
        assert 0.5 * float(table.error) < worst <= float(table.error) * (1 + 1e-6)


def test_tables_reject_other_numbers_of_segments():
    with pytest.raises(ValueError, match=r"power of two in 16\.\.1024; got 100"):
        exp2_table(100)
    with pytest.raises(TypeError, match="integer; got '64'"):
        reciprocal_table("64")


def logits(rows, length, seed):
    """Rows of every spread from almost equal to mostly zero probabilities."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp2(torch.rand(rows, 1, generator=generator) * 10 - 5)
    return torch.randn(rows, length, generator=generator) * spread


@pytest.mark.parametrize(("fmt", "max_ulp", "equal"), [
    (BF16, 0.51, 0.998), (FP16, 0.56, 0.98), (E5M2, 0.501, 0.999), (E4M3, 0.501, 0.999)])
@pytest.mark.parametrize("length", [2, 64, 1000])
def test_narrow_results_are_almost_correctly_rounded(fmt, max_ulp, equal, length):
    x = logits(200_000 // length, length, seed=length)
    exact = torch.softmax(x.double(), -1)
    p = exact_softmax(x, fmt.name, config=CONFIG).float().double()
    exponent = torch.frexp(exact)[1].clamp(min=fmt.min_exponent + 1).double() - 1
    ulp = torch.exp2(exponent - fmt.mantissa_width)
    error = (p - exact).abs() / ulp
    assert error.max() <= max_ulp
    bound = probability_error(exp2_table(64), reciprocal_table(128), 1024)
    assert error.max() <= 0.5 + float(bound) * 2 ** fmt.significand_width
    correct = torch.round(exact / ulp) * ulp
    assert (p == correct).double().mean() >= equal


def test_fp32_results_keep_their_relative_error_down_to_the_smallest():
    x = logits(1000, 200, seed=5)
    exact = torch.softmax(x.double(), -1)
    p = exact_softmax(x, "fp32", config=CONFIG).double()
    normal = exact >= 2.0 ** -126
    error = ((p - exact) / exact)[normal].abs().max()
    bound = float(probability_error(exp2_table(64), reciprocal_table(128), 200))
    assert error <= bound + 2 ** -24
    assert error <= 2.0 ** -14
    assert ((p - exact).abs() <= bound * exact + 2.0 ** -150)[~normal].all()
    assert (p[exact > 2.0 ** -149] > 0).all()


@pytest.mark.parametrize("result", FORMATS)
def test_order_and_strides_change_no_bit(result):
    x = logits(50, 130, seed=6)
    x[3, 7], x[4] = INF, -INF
    order = torch.randperm(130, generator=torch.Generator().manual_seed(1))
    p = to_bits(exact_softmax(x, result, config=CONFIG))
    assert torch.equal(to_bits(exact_softmax(x[:, order], result, config=CONFIG)), p[:, order])
    assert torch.equal(to_bits(exact_softmax(x.T.contiguous().T, result, config=CONFIG)), p)


def test_masks_and_large_logits_give_the_right_answer():
    rows = {(-1e9, 0.0, -1e9, 0.0): [0, .5, 0, .5], (-1e9, -1e9): [.5, .5],
            (-3.38e38, 2.0): [0, 1], (-3.38e38, -3.38e38): [.5, .5], (-3.38e38, -3.3e38): [0, 1],
            (3e9, 4e9, 4e9): [0, .5, .5], (1e30, -1e30): [1, 0], (2.0 ** 31, 2147483520.0): [1, 0],
            (-INF, 1.0, 1.0): [0, .5, .5]}
    for row, wanted in rows.items():
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            if dtype == torch.bfloat16 and 2147483520.0 in row:
                continue  # not a bf16 value
            x = torch.tensor(row, dtype=dtype)
            assert exact_softmax(x, "bf16", config=CONFIG).tolist() == wanted


@pytest.mark.parametrize("far", [-735.0, -2154.0, -1e9, -3e38])
def test_masked_elements_are_plus_zero_however_low_the_others(far):
    row = exact_softmax(torch.tensor([-INF, far, far]), "fp32", config=CONFIG)
    assert to_bits(row)[0] == 0
    assert row.tolist()[1:] == pytest.approx([0.5, 0.5], rel=2.0 ** -14)


def test_backward_is_fp32_whatever_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        p = torch.full((1, 2), 0.5)
        assert softmax_backward(p, p).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
def test_undefined_rows_are_canonical_nan_and_leave_the_others_alone(fmt):
    x = torch.tensor([[1.0, math.nan, -INF], [INF, 1.0, 1.0], [-INF] * 3, [-math.nan, 0, 0],
                      [0.0, 0.0, -INF]])
    bits = to_bits(exact_softmax(x, fmt.name, config=CONFIG))
    assert (bits[:4] == fmt.nan_bits).all()
    half = fmt.bias - 1 << fmt.mantissa_width
    assert bits[4].tolist()[2] == 0
    assert all(abs(b - half) <= (1 if fmt is FP32 else 0) * 2 ** 8 for b in bits[4, :2].tolist())


@pytest.mark.parametrize("fmt", [E4M3, E5M2, FP16, BF16], ids=lambda f: f.name)
def test_a_row_of_one_element_is_one(fmt):
    x = torch.linspace(-90, 90, 1000).unsqueeze(-1)
    assert (exact_softmax(x, fmt.name, config=CONFIG).float() == 1).all()


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (2, 0, 3)])
def test_empty_gives_empty(shape):
    for result in FORMATS.values():
        p = exact_softmax(torch.empty(shape), result.name, config=CONFIG)
        assert (p.shape, p.dtype) == (shape, getattr(torch, result.torch_name))
    assert softmax_backward(torch.empty(shape), torch.empty(shape)).shape == shape


def test_input_is_taken_as_it_is_and_not_written():
    x = logits(6, 20, seed=7).reshape(2, 3, 20)
    before = x.clone()
    p = exact_softmax(x.requires_grad_(), config=CONFIG)
    assert p.shape == x.shape
    assert p.dtype == torch.bfloat16
    assert not p.requires_grad
    assert torch.equal(x, before)
    wide = exact_softmax(x.double(), "fp32", config=CONFIG)
    assert torch.equal(wide, exact_softmax(x, "fp32", config=CONFIG))


@pytest.mark.parametrize(("x", "result", "code", "words"), [
    (torch.zeros(2, 1025), "bf16", "X208", "1025 elements; .* at most 1024"),
    (torch.zeros(()), "bf16", "X201", "scalar"),
    (torch.zeros(3, dtype=torch.int32), "bf16", "X202", "int32"),
    ([1.0], "bf16", "X202", "list"),
    (torch.zeros(3), "bf61", "X203", "bf61"),
])
def test_what_cannot_be_served_is_said_in_a_sentence(x, result, code, words):
    with pytest.raises(UsageError, match=words) as caught:
        exact_softmax(x, result, config=CONFIG)
    assert caught.value.code == code


@pytest.mark.parametrize(("name", "fault"), [
    ("LOG2E", golden.LOG2E - 1), ("CODE_SHIFT", 7), ("ROW_FRACTION_WIDTH", 19)])
def test_a_fault_of_the_model_is_caught(monkeypatch, name, fault):
    monkeypatch.setattr(golden, name, fault)
    rows = named_rows("fp32", 1024) + random_rows("fp32", [20, 30], seed=3)
    assert any(expected(row, "fp32", "fp32", PARAMETERS) != contract(row, FP32, FP32)
               for row in rows)


def right_dot(p, dp):
    """The dot product's fp32 by rationals."""
    total = sum((Fraction(a) * Fraction(b) for a, b in zip(p, dp, strict=True)), Fraction(0))
    return from_bits(torch.tensor(encode(total, FP32, "overflow")), "fp32")


@pytest.mark.parametrize("seed", range(4))
def test_backward_rounds_the_exact_dot_once(seed):
    draw = random.Random(seed)
    rows = [[draw.choice((1, -1)) * draw.random() * 2.0 ** draw.randint(-30, 30)
             for _ in range(draw.randint(1, 90))] for _ in range(60)]
    for row in rows:
        p = torch.softmax(torch.tensor(row), -1)
        dp = torch.tensor(row)
        dp[draw.randrange(len(row))] = -float((p * dp).sum())       # cancels
        wanted = p * (dp - right_dot(p.tolist(), dp.tolist()))
        assert torch.equal(softmax_backward(p, dp), wanted)


@pytest.mark.parametrize(("p", "dp"), [
    # sums next to or at ties of fp32, their last bits far below float64's
    ([1.0, 2.0 ** -24, 2.0 ** -90], [1.0, 1.0, 1.0]),
    ([1.0, 2.0 ** -24, 2.0 ** -90], [1.0, 1.0, -1.0]),
    ([1.0, 2.0 ** -24], [1.0, 1.0]),
    ([1.0, 2.0 ** -23, 2.0 ** -24], [1.0, 1.0, 1.0]),
    ([1.0, 2.0 ** -24, 2.0 ** -90, 0.5], [-1.0, -1.0, -1.0, 0.0]),
    # everything cancels but the smallest term
    ([1.0, 2.0 ** -100, 1.0], [2.0 ** 60, 2.0 ** -30, -2.0 ** 60]),
    ([1.0, 2.0 ** -140, 1.0], [2.0 ** 60, -2.0 ** -30, -2.0 ** 60]),
    ([1.0, 1.0], [5.0, -5.0]),
    ([0.0, 0.0], [-5.0, -5.0]),
])
def test_backward_dot_where_float64_would_mislead(p, dp):
    dot = golden._row_dot(torch.tensor([p]), torch.tensor([dp]))
    assert to_bits(dot[0]).tolist() == to_bits(right_dot(p, dp)).reshape(1).tolist()


def test_backward_with_infinities_and_nan():
    p = torch.tensor([[.5, .5], [.5, .5], [0.0, 1.0], [.5, .5]])
    dp = torch.tensor([[INF, 1.0], [INF, -INF], [INF, 2.0], [math.nan, 0.0]])
    out = softmax_backward(p, dp)
    assert out.isnan()[1:].all()
    assert out[0].isnan().tolist() == [True, False]
    assert out[0, 1] == -INF


def test_backward_needs_two_tensors_of_one_shape():
    with pytest.raises(UsageError, match=r"p is \[2\] and dp is \[3\]"):
        softmax_backward(torch.zeros(2), torch.zeros(3))


def test_cycles_follow_the_formula():
    assert softmax_cycles(CONFIG, 1, 1) == 2 + 10 + 3
    assert softmax_cycles(CONFIG, 10, 1024) == 11 * 128 + 13
    assert softmax_cycles(preset("tiny"), 3, 64) == 4 * 64 + 10
    assert softmax_cycles(CONFIG, 0, 5) == softmax_cycles(CONFIG, 5, 0) == 0
