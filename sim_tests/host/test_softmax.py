"""The golden softmax against its contract in plain integers, and against the right answer."""

import math
import random
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
import torch

from exactum.benches.softmax_cases import expected, named_rows, random_rows
from exactum.gen.config import preset
from exactum.gen.errors import UsageError
from exactum.hdl.formats import BF16, E4M3, E5M2, FORMATS, FP16, FP32
from exactum.hdl.softmax_tables import (
    exp_table,
    probability_error,
    reciprocal_table,
    step_table,
)
from exactum.host import softmax as golden
from exactum.host.dots import row_dots
from exactum.host.numerics import from_bits, quantize, to_bits
from exactum.host.softmax import exact_softmax, softmax_backward, softmax_cycles
from sim_tests.oracle import NAN, decode, dot, encode

CONFIG = preset("default")
PARAMETERS = CONFIG.softmax.model_dump()
INF = math.inf


def table_value(table, x):
    segment = x >> table.input_width - table.segment_width
    step, offset = divmod(x, 1 << table.offset_width)
    fall = table.falls[(segment << table.offset_width) + offset]
    return (table.bases[step] - fall) // 4


def contract(row, fmt, result, parameters=PARAMETERS):
    """Rules S1 to S6, an element at a time."""
    values = [decode(bits, fmt) for bits in row]
    counted = [x for x in values if isinstance(x, Fraction)]
    if NAN in values or INF in values or not counted:
        return [result.nan_bits] * len(row)
    width = parameters["value_width"]
    exp, steps = (make(parameters["exp_entries"], width) for make in (exp_table, step_table))
    top, powers = math.trunc(max(counted) * 2 ** width), []
    for x in values:
        distance = top - math.trunc(x * 2 ** width) if x != -INF else 128 << width
        if distance >= 128 << width:
            powers.append(None)
            continue
        step, low = divmod(distance, 1 << width - 3)
        value = table_value(exp, steps.rests[step] + 2 * low)
        powers.append((value, steps.octaves[step], Fraction(value, 2 ** (width - 1))
                       / 2 ** steps.octaves[step]))
    total = sum(math.floor(e * 2 ** (width + 10) + Fraction(1, 2))
                for _, _, e in filter(None, powers))
    place = total.bit_length() - width - 11
    fraction = math.floor((Fraction(total, 2 ** (width + 10 + place)) - 1) * 2 ** width)
    inverse = table_value(reciprocal_table(parameters["reciprocal_entries"], width), fraction)
    out = []
    for power in powers:
        p = Fraction(0)
        if power:
            product = power[0] * inverse // 2 ** width * 4 + 3
            p = Fraction(product, 2 ** (width + 1)) / 2 ** (power[1] + place)
        out.append(encode(p, result, "overflow"))
    return out


@pytest.mark.parametrize("result", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
def test_bits_equal_the_contract_in_integers(fmt, result):
    rows = named_rows(fmt.name, 1024) + random_rows(fmt.name, [1, 2, 3, 17, 64, 100], seed=3)
    for row in rows:
        assert expected(row, fmt.name, result.name, PARAMETERS) == contract(row, fmt, result)


@pytest.mark.parametrize("tables", [
    (2048, 4096, 18), (16384, 2048, 18), (4096, 16384, 20), (16384, 16384, 22), (2048, 2048, 22)])
def test_bits_equal_the_contract_with_other_tables(tables):
    parameters = PARAMETERS | dict(
        zip(("exp_entries", "reciprocal_entries", "value_width"), tables, strict=True))
    for row in random_rows("fp32", [5, 50, 1], seed=4) + named_rows("fp32", 9):
        wanted = contract(row, FP32, FP32, parameters)
        assert expected(row, "fp32", "fp32", parameters) == wanted


@pytest.mark.parametrize(("entries", "width"), [
    (2048, 18), (4096, 18), (16384, 18), (4096, 20), (16384, 22), (2048, 22)])
def test_tables_stay_within_their_bound_everywhere(entries, width):
    for table, exact in ((exp_table(entries, width), lambda x: torch.exp(-x)),
                         (reciprocal_table(entries, width), lambda x: 1 / (1 + x))):
        units = 2.0 ** table.input_width
        x = torch.arange(1 << table.input_width)
        segment = x >> table.input_width - table.segment_width
        fall = (segment << table.offset_width) + (x & (1 << table.offset_width) - 1)
        bases, falls = torch.tensor(table.bases), torch.tensor(table.falls)
        values = bases[x >> table.offset_width] - falls[fall] >> 2
        assert values.min() > 0
        assert values.max() < 1 << width
        # What is cut off from the reciprocal's argument is an error, too.
        reach = (0.0, 1.0) if table.input_width == width else (0.0,)
        worst = max(float((values / 2 ** width / exact((x + off) / units) - 1).abs().max())
                    for off in reach)
        assert 0.3 * float(table.error) < worst <= float(table.error)


@pytest.mark.parametrize(("entries", "width"), [(4096, 18), (16384, 22), (2048, 22)])
def test_steps_give_powers_of_at_most_one_and_one_at_zero(entries, width):
    steps, table = step_table(entries, width), exp_table(entries, width)
    with localcontext(prec=30):
        for step, (octave, rest) in enumerate(zip(steps.octaves, steps.rests, strict=True)):
            exact = Decimal(step) / 8 - (octave - 1) * Decimal(2).ln()
            assert abs(rest - exact * 2 ** (width + 1)) <= float(steps.error) * 2 ** (width + 1)
    assert table_value(table, steps.rests[0]) == 1 << width - 1
    assert steps.octaves[0] == 0
    assert all(table_value(table, steps.rests[0] + 2 * low) <= 1 << width - 1
               for low in range(1 << width - 3))
    assert all(octave > 0 for octave in steps.octaves[1:])


def test_tables_reject_other_parameters():
    with pytest.raises(ValueError, match=r"power of two in 2048\.\.16384; got 100"):
        exp_table(100)
    with pytest.raises(TypeError, match="integer; got '64'"):
        reciprocal_table("64")
    with pytest.raises(ValueError, match=r"value_width is in 18\.\.22; got 23"):
        exp_table(4096, 23)


def logits(rows, length, seed):
    """Rows of every spread from almost equal to mostly zero probabilities."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp2(torch.rand(rows, 1, generator=generator) * 10 - 5)
    return torch.randn(rows, length, generator=generator) * spread


def against_exact(x, fmt, config=CONFIG):
    """The largest error in ulp, the share of elements correctly rounded, the mean divergence."""
    exact = torch.softmax(x.double(), -1)
    p = exact_softmax(x, fmt.name, config=config).float().double()
    exponent = torch.frexp(exact)[1].clamp(min=fmt.min_exponent + 1).double() - 1
    ulp = torch.exp2(exponent - fmt.mantissa_width)
    correct = torch.round(exact / ulp) * ulp
    q = p / p.sum(-1, keepdim=True)
    divergence = torch.where(q > 0, q * (q / exact).log(), 0.0).sum(-1).mean()
    return (float(((p - exact).abs() / ulp).max()), float((p == correct).double().mean()),
            float(divergence))


GOALS = [(BF16, 0.51, 0.998), (FP16, 0.55, 0.99), (E5M2, 0.501, 0.9999), (E4M3, 0.501, 0.9999)]


@pytest.mark.parametrize(("fmt", "max_ulp", "equal"), GOALS)
@pytest.mark.parametrize("length", [2, 64, 1000, 4096])
def test_narrow_results_are_almost_correctly_rounded(fmt, max_ulp, equal, length):
    config = CONFIG.replace({"softmax.max_length": 4096})
    error, share, divergence = against_exact(
        logits(200_000 // length, length, seed=length), fmt, config)
    assert error <= max_ulp
    bound = probability_error(4096, 2048, 18, length)
    assert error <= 0.5 + float(bound) * 2 ** fmt.significand_width
    assert share >= equal
    assert fmt is not BF16 or divergence <= 1.5e-6


@pytest.mark.parametrize(("fmt", "max_ulp", "equal"), GOALS)
@pytest.mark.parametrize("inputs", [BF16, FP16], ids=lambda f: f.name)
def test_every_16_bit_number_among_random_partners(fmt, max_ulp, equal, inputs):
    x = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(getattr(
        torch, inputs.torch_name)).float()
    x = x[x.isfinite()].unsqueeze(-1)
    partners = torch.randn(len(x), 3, generator=torch.Generator().manual_seed(2)) * 3
    partners[:, 1:] += x
    rows = torch.cat([x, partners], -1).to(getattr(torch, inputs.torch_name))
    error, share, _ = against_exact(rows[rows.isfinite().all(-1)].float(), fmt)
    assert error <= max_ulp
    assert share >= equal


@pytest.mark.parametrize(("fmt", "max_ulp", "equal"), GOALS)
def test_flat_and_peaked_rows(fmt, max_ulp, equal):
    config = CONFIG.replace({"softmax.max_length": 4096})
    shares = []
    for length in (1, 2, 3, 5, 16, 100, 1000, 1024, 2048, 4095, 4096):
        x = torch.zeros(100 if length > 100 else 2000, length)
        x[:, :1] = torch.linspace(0, 20, len(x)).unsqueeze(-1)
        error, share, _ = against_exact(x, fmt, config)
        assert error <= max_ulp
        shares.append(share)
        p = exact_softmax(torch.full((1, length), -3.7), fmt.name, config=config).double()
        assert torch.equal(p, quantize(torch.full((1, length), 1 / length, dtype=torch.float64),
                                       fmt.name).double())
    assert sum(shares) / len(shares) >= equal  # a long row's elements are right or wrong together


def test_larger_tables_give_fp32_results_to_18_bits():
    config = CONFIG.replace({"softmax.exp_entries": 16384, "softmax.reciprocal_entries": 16384,
                             "softmax.value_width": 22, "softmax.max_length": 4096})
    for length in (2, 200, 4096):
        x = logits(100_000 // length, length, seed=5)
        peaked = torch.zeros(20, length)
        peaked[:, 0] = torch.linspace(0, 25, 20)
        for rows in (x, peaked):
            exact = torch.softmax(rows.double(), -1)
            p = exact_softmax(rows, "fp32", config=config).double()
            normal = exact >= 2.0 ** -126
            assert ((p - exact) / exact)[normal].abs().max() <= 2.0 ** -18


def test_fp32_results_keep_their_relative_error_down_to_the_smallest():
    x = logits(1000, 200, seed=5)
    exact = torch.softmax(x.double(), -1)
    p = exact_softmax(x, "fp32", config=CONFIG).double()
    normal = exact >= 2.0 ** -126
    error = ((p - exact) / exact)[normal].abs().max()
    bound = float(probability_error(4096, 2048, 18, 200))
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
        assert softmax_backward(p, p, config=CONFIG).dtype == torch.float32
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


@pytest.mark.parametrize("length", [1025, 2048, 5000, 16384])
def test_rows_in_blocks_have_the_bits_of_rows_as_a_whole(length):
    x = logits(3, length, seed=8)
    x[0, 1024:], x[1, :2048] = -INF, -INF                 # a block that is masked as a whole
    x = torch.cat([x, torch.full((1, length), -INF), x[2:] * 1e4])
    x[2, -1] = math.nan
    whole = CONFIG.replace({"softmax.max_length": 16384})
    for result in FORMATS:
        p = exact_softmax(x, result, config=CONFIG)
        assert torch.equal(to_bits(p), to_bits(exact_softmax(x, result, config=whole)))
        assert p[0, :1024].double().sum() > 0.5 or result == "e4m3"
        assert p[2].isnan().all()


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (2, 0, 3)])
def test_empty_gives_empty(shape):
    for result in FORMATS.values():
        p = exact_softmax(torch.empty(shape), result.name, config=CONFIG)
        assert (p.shape, p.dtype) == (shape, getattr(torch, result.torch_name))
    empty = torch.empty(shape)
    assert softmax_backward(empty, empty, config=CONFIG).shape == shape


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
    (torch.zeros(2, 16385), "bf16", "X208", "16385 elements; .* at most 16384"),
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
    ("STEP_WIDTH", 2), ("DISTANCE_WIDTH", 7), ("SUM_GUARD_WIDTH", 9)])
def test_a_fault_of_the_model_is_caught(monkeypatch, name, fault):
    monkeypatch.setattr(golden, name, fault)
    rows = named_rows("fp32", 1024) + random_rows("fp32", [20, 30], seed=3)
    assert any(expected(row, "fp32", "fp32", PARAMETERS) != contract(row, FP32, FP32)
               for row in rows)


def right_dot(p, dp):
    """The dot product's fp32 by rationals, in the engine's window (rule N4)."""
    rows = [to_bits(torch.tensor(row)).tolist() for row in (p, dp)]
    bits, _ = dot(*rows, (FP32, FP32), result=FP32)
    return from_bits(torch.tensor(bits), "fp32")


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
        assert torch.equal(softmax_backward(p, dp, config=CONFIG), wanted)


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
    found = row_dots(torch.tensor([p]), torch.tensor([dp]), config=CONFIG)
    assert to_bits(found).tolist() == to_bits(right_dot(p, dp)).reshape(1).tolist()


def test_backward_with_infinities_and_nan():
    p = torch.tensor([[.5, .5], [.5, .5], [0.0, 1.0], [.5, .5]])
    dp = torch.tensor([[INF, 1.0], [INF, -INF], [INF, 2.0], [math.nan, 0.0]])
    out = softmax_backward(p, dp, config=CONFIG)
    assert out.isnan()[1:].all()
    assert out[0].isnan().tolist() == [True, False]
    assert out[0, 1] == -INF


def test_backward_needs_two_tensors_of_one_shape():
    with pytest.raises(UsageError, match=r"p is \[2\] and dp is \[3\]"):
        softmax_backward(torch.zeros(2), torch.zeros(3), config=CONFIG)


def test_cycles_follow_the_formula():
    assert softmax_cycles(CONFIG, 1, 1) == 3 + 18
    assert softmax_cycles(CONFIG, 10, 1024) == 12 * 128 + 18
    assert softmax_cycles(preset("tiny"), 3, 64) == 5 * 64 + 18
    assert softmax_cycles(CONFIG, 10, 1025) == 10 * (3 * 129 + 128 - 1) + 128 + 1 + 18
    assert softmax_cycles(CONFIG, 0, 5) == softmax_cycles(CONFIG, 5, 0) == 0


def test_cycles_of_rows_in_blocks_follow_the_formula():
    assert softmax_cycles(CONFIG, 1, 16384) == 3 * 2048 + 2 * 128 + 18
    assert softmax_cycles(CONFIG, 10, 2048) == 10 * 3 * 256 + 2 * 128 + 18
    assert softmax_cycles(CONFIG, 2, 1025) == 2 * (3 * 129 + 127) + 129 + 18
