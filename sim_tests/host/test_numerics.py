"""Conversions against ml_dtypes in bulk, and against the rational oracle in depth."""

import math
import random
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import torch

from exactum.gen.errors import UsageError
from exactum.hdl.formats import BF16, E4M3, E5M2, FORMATS, FP16, FP32
from exactum.host import numerics
from exactum.host.numerics import (
    decode,
    from_bits,
    max_finite,
    operand,
    quantize,
    to_bits,
    torch_dtype,
)
from sim_tests.oracle import NAN, encode
from sim_tests.oracle import decode as exact_value

NUMPY = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2, "fp16": np.float16,
         "bf16": ml_dtypes.bfloat16, "fp32": np.float32}
formats = pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)


def all_values(fmt):
    return from_bits(torch.arange(1 << fmt.width), fmt)


def with_neighbours(x):
    """float32 values, and what lies just below and just above each."""
    infinity = torch.tensor(math.inf)
    return torch.cat([x, torch.nextafter(x, infinity), torch.nextafter(x, -infinity)])


def midpoints(fmt):
    """Halfway between neighbours on the grid of a narrow format, and where overflow begins."""
    values = all_values(fmt).double()
    values = values[values.isfinite()].unique()
    step = values[-1] - values[-2]
    values = torch.cat([values, values[-1:] + step, values[:1] - step])
    values = values.sort().values
    return ((values[1:] + values[:-1]) / 2).float()


def reference_bits(x, fmt, overflow):
    """What ml_dtypes gives for float32 ``x``, with our one NaN and our saturation."""
    array = x.numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = array.astype(NUMPY[fmt.name])
    integer = {8: np.uint8, 16: np.uint16, 32: np.uint32}[fmt.width]
    bits = rounded.view(integer).astype(np.int64)
    beyond = ~np.isfinite(rounded.astype(np.float32)) & ~np.isnan(array)
    sign = np.signbit(array).astype(np.int64) << (fmt.width - 1)
    if overflow == "saturate":
        bits = np.where(beyond, sign | fmt.max_finite_bits, bits)
    nan = np.isnan(array) | ((overflow == "overflow") & (not fmt.ieee) & beyond)
    return torch.from_numpy(np.where(nan, fmt.nan_bits, bits))


@formats
@pytest.mark.parametrize("overflow", ["saturate", "overflow"])
@pytest.mark.parametrize("source", [FP16, BF16], ids=["from-fp16", "from-bf16"])
def test_every_16_bit_value_and_its_neighbours_convert_as_in_ml_dtypes(source, fmt, overflow):
    x = with_neighbours(all_values(source).float())
    got = to_bits(quantize(x, fmt, overflow))
    wrong = (got != reference_bits(x, fmt, overflow)).nonzero().flatten()
    assert not len(wrong), [(x[i].item(), hex(got[i])) for i in wrong[:5]]


@pytest.mark.parametrize("fmt", [E4M3, E5M2, FP16, BF16], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("overflow", ["saturate", "overflow"])
def test_midpoints_go_to_even(fmt, overflow):
    x = with_neighbours(midpoints(fmt))
    assert torch.equal(to_bits(quantize(x, fmt, overflow)), reference_bits(x, fmt, overflow))


@formats
@pytest.mark.parametrize("overflow", ["saturate", "overflow"])
def test_random_float64_values_round_once(fmt, overflow):
    chance = random.Random(fmt.width)
    exponents = range(fmt.min_exponent - fmt.mantissa_width - 2, fmt.max_exponent + 3)
    values = [chance.choice((-1, 1)) * math.ldexp(chance.uniform(1, 2), chance.choice(exponents))
              for _ in range(1500)]
    values += [0.0, -0.0, 1e-300, -1e300, 5e-324]
    expected = [encode(Fraction(v), fmt, overflow) or int(math.copysign(1, v) < 0) << fmt.width - 1
                for v in values]
    got = to_bits(quantize(torch.tensor(values, dtype=torch.float64), fmt, overflow)).tolist()
    assert got == expected


@formats
def test_float64_is_not_rounded_through_float32(fmt):
    """Just above a midpoint, by less than float32 can tell: twice rounded it would go to even."""
    even = from_bits(torch.tensor([fmt.max_finite_bits // 2 & ~1]), fmt).double()
    above = from_bits(to_bits(even.to(torch_dtype(fmt))) + 1, fmt).double()
    x = (even + above) / 2 * (1 + 2.0 ** -50)
    assert to_bits(quantize(x, fmt, "overflow")) == to_bits(above.to(torch_dtype(fmt)))
    assert to_bits(quantize(-x, fmt, "overflow")) == to_bits((-above).to(torch_dtype(fmt)))


@formats
def test_every_value_decodes_exactly(fmt):
    if fmt is FP32:
        bits = torch.randint(0, 1 << 32, (4096,), generator=torch.Generator().manual_seed(1))
    else:
        bits = torch.arange(1 << fmt.width)
    x = from_bits(bits, fmt)
    assert torch.equal(to_bits(x), bits)
    for pattern, got in zip(bits.tolist(), decode(x).tolist(), strict=True):
        want = exact_value(pattern, fmt)
        assert math.isnan(got) if want == NAN else got == want


@formats
@pytest.mark.parametrize("overflow", ["saturate", "overflow"])
def test_own_values_convert_to_themselves(fmt, overflow):
    bits = torch.arange(1 << min(fmt.width, 16)) << max(0, fmt.width - 16)
    for x in (from_bits(bits, fmt), decode(from_bits(bits, fmt)).double()):
        values = decode(from_bits(bits, fmt))
        finite = values.isfinite()
        got = to_bits(quantize(x, fmt, overflow))
        assert torch.equal(got[finite], bits[finite])
        assert (got[values.isnan()] == fmt.nan_bits).all()
        if fmt.ieee:
            magnitude = fmt.infinity_bits if overflow == "overflow" else fmt.max_finite_bits
            assert (got[values == math.inf] == magnitude).all()


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (2, 3, 4)])
@formats
def test_any_shape_and_layout(fmt, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    got = quantize(x, fmt)
    assert got.shape == x.shape
    assert got.dtype == torch_dtype(fmt)
    assert got.is_contiguous()
    views = torch.randn(6, 8).t()[::2, 1::3]
    assert torch.equal(to_bits(quantize(views, fmt)), to_bits(quantize(views.contiguous(), fmt)))
    wide = torch.randn(3, 1).expand(3, 4)
    assert torch.equal(to_bits(quantize(wide, fmt)), to_bits(quantize(wide.contiguous(), fmt)))


@formats
def test_the_input_is_left_alone(fmt):
    x = torch.tensor([1.7, -0.0, math.inf, math.nan, 1e30, 3e38], requires_grad=True)
    before = to_bits(x.detach()).clone()
    quantize(x, fmt)
    operand(x.detach(), fmt)
    assert torch.equal(to_bits(x.detach()), before)


@formats
def test_operands_convert_like_quantize_and_count_what_was_clamped(fmt):
    x = with_neighbours(all_values(BF16).float())
    mode = "saturate" if fmt.width == 8 else "overflow"
    taken = operand(x, fmt)
    expected = decode(quantize(x, fmt, mode)).double()
    same = torch.where(expected == 0, taken.values == 0, taken.values == expected)
    assert (same | (expected.isnan() & taken.values.isnan())).all()
    assert taken.finite is False
    beyond = decode(quantize(x, fmt, "overflow"))
    clamped = int((~beyond.isfinite() & ~x.isnan()).sum()) if fmt.width == 8 else 0
    assert taken.saturations == clamped
    assert operand(torch.ones(2, 2), fmt).finite is True


@formats
def test_operands_of_the_format_are_taken_bit_for_bit(fmt):
    x = from_bits(torch.tensor([fmt.infinity_bits if fmt.ieee else fmt.nan_bits, 1, 3]), fmt)
    taken = operand(x, fmt)
    assert taken.saturations == 0
    assert not taken.finite
    assert not taken.values[0].isfinite()
    assert torch.equal(taken.values[1:], decode(x)[1:].double())


def test_largest_values():
    assert [max_finite(f) for f in (E4M3, E5M2, FP16)] == [448.0, 57344.0, 65504.0]
    assert max_finite(FP32) == torch.finfo(torch.float32).max


@pytest.mark.parametrize(("arguments", "code", "says"), [
    ((torch.ones(2), "e4m4"), "X203", "did you mean `e4m3`?"),
    ((torch.ones(2), None), "X203", "e4m3, e5m2, fp16, bf16, fp32"),
    ((torch.ones(2), "e4m3", "saturated"), "X206", "did you mean `saturate`?"),
    ((torch.ones(2, dtype=torch.int64), "e4m3"), "X202", "x is int64"),
    ((torch.ones(2, dtype=torch.bool), "e4m3"), "X202", "x is bool"),
    ((torch.ones(2, dtype=torch.complex64), "e4m3"), "X202", "x is complex64"),
    ((torch.ones(2, device="meta"), "e4m3"), "X202", "x is on meta"),
    ((torch.eye(2).to_sparse(), "e4m3"), "X202", "x has layout"),
    (([1.0], "e4m3"), "X202", "x is a torch tensor; got list"),
])
def test_bad_input_gets_one_sentence(arguments, code, says):
    with pytest.raises(UsageError) as caught:
        quantize(*arguments)
    assert caught.value.code == code
    assert says in str(caught.value)


def truncating(x, fmt):
    """A fault: rounds toward zero."""
    ulp = numerics.power_of_two(x.double()).clamp_(min=2.0 ** fmt.min_exponent)
    step = ulp * 2.0 ** -fmt.mantissa_width
    return (x.double() / step).trunc() * step


def flushing(x, fmt):
    """A fault: subnormal results become zero."""
    grid = ROUND_GRID(x, fmt)
    return torch.where(grid.abs() < 2.0 ** fmt.min_exponent, 0.0, grid)


def through_float32(x, fmt):
    """A fault: float64 goes through float32."""
    return ROUND_GRID(x.float(), fmt)


ROUND_GRID = numerics.round_grid
FAULTS = [
    (truncating, lambda: test_midpoints_go_to_even(E4M3, "saturate")),
    (flushing, lambda: test_every_16_bit_value_and_its_neighbours_convert_as_in_ml_dtypes(
        BF16, E4M3, "saturate")),
    (through_float32, lambda: test_float64_is_not_rounded_through_float32(E5M2)),
]


@pytest.mark.parametrize(("fault", "check"), FAULTS, ids=[f.__name__ for f, _ in FAULTS])
def test_the_tests_catch_faults(monkeypatch, fault, check):
    monkeypatch.setattr(numerics, "round_grid", fault)
    with pytest.raises(AssertionError):
        check()
