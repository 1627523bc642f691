"""Elements and scales of OCP MX against exact fractions, and their errors."""

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import torch

from exactum.gen.errors import UsageError
from exactum.hdl.formats import E4M3, E5M2, FORMATS
from exactum.host import mx
from exactum.host.mx import mx_dequantize, mx_quantize
from exactum.host.numerics import from_bits, to_bits, torch_dtype
from sim_tests import oracle

narrow = pytest.mark.parametrize("fmt", [E4M3, E5M2], ids=lambda fmt: fmt.name)


def by_hand(values, fmt):
    """(bits of the elements, byte of the scale) of one block, floats to ints, by fractions."""
    if not all(map(math.isfinite, values)):
        return [fmt.nan_bits] * len(values), 255
    exact = [Fraction(v) for v in values]
    largest = max(map(abs, exact))
    exponent = -127
    if largest:
        exponent = max(exponent, oracle._floor_log2(largest) - fmt.max_exponent)
    if exponent > 127:
        return [fmt.nan_bits] * len(values), 255
    bits = [oracle.encode(v / Fraction(2) ** exponent, fmt, "saturate") for v in exact]
    minus = [math.copysign(1, v) < 0 and b == 0 for v, b in zip(values, bits, strict=True)]
    return [b | m << fmt.width - 1 for b, m in zip(bits, minus, strict=True)], exponent + 127


def check(x, fmt, block):
    """``x`` is [rows, n]."""
    elements, scales = mx_quantize(x, fmt.name, block=block)
    assert elements.dtype == torch_dtype(fmt)
    assert elements.shape == x.shape
    assert scales.dtype == torch.uint8
    for row, bits, bytes_ in zip(x.tolist(), to_bits(elements).tolist(), scales.tolist(),
                                 strict=True):
        expected = [by_hand(row[at:at + block], fmt) for at in range(0, len(row), block)]
        assert bits == [b for part, _ in expected for b in part]
        assert bytes_ == [byte for _, byte in expected]


@narrow
@pytest.mark.parametrize("block", [16, 32, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ordinary_values(fmt, block, dtype):
    random = torch.Generator().manual_seed(block)
    spread = torch.randint(-60, 60, (6, 100), generator=random).div(8).exp2()
    check((torch.randn(6, 100, generator=random, dtype=torch.float64) * spread).to(dtype), fmt,
          block)


def ramp(start, count=32):
    return [math.ldexp(1.0, start - i) for i in range(count)]


CASES = {
    "nothing but zeros": [0.0, -0.0] * 16,
    "one element": [3.0],
    "just below the next scale": [math.nextafter(512.0, 0.0), 1.0],       # beyond 448 saturates
    "a power of two": [512.0, 1.0, -511.0],
    "ties": [1.0, 1 + 1 / 16, 1 + 3 / 16, -1 - 1 / 16, 2 ** -10, 3 * 2 ** -10, 2 ** -11],
    "falling to nothing": ramp(8),
    "the smallest scale": ramp(-118),
    "below the smallest scale": ramp(-140),
    "float64's smallest": [5e-324, -5e-324],
    "the largest scale": [1.5 * 2.0 ** 135, 2.0 ** 110, -1.0],
    "beyond the largest scale": [2.0 ** 143, 1.0],
    "float64's largest": [1.7e308, 1.0],
    "an infinity": [1.0, -math.inf, 0.0],
    "a NaN": [1.0, math.nan, 0.0],
    "a NaN in the second block": [2.0] * 32 + [math.nan, 5.0],
}


@narrow
@pytest.mark.parametrize("case", CASES)
def test_corner_blocks(fmt, case):
    check(torch.tensor([CASES[case]], dtype=torch.float64), fmt, 32)


@narrow
def test_the_specification_in_ml_dtypes(fmt):
    """The same rule from another library's types: scales as its E8M0, elements by its rounding."""
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(8)).mul_(3).exp_()
    elements, scales = mx_quantize(x, fmt)
    largest = np.abs(x.numpy()).max(1)
    expected = np.exp2(np.floor(np.log2(largest)) - fmt.max_exponent)
    assert (scales.numpy()[:, 0].view(ml_dtypes.float8_e8m0fnu) == expected).all()
    kind = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}[fmt.name]
    top = float(ml_dtypes.finfo(kind).max)
    rounded = np.clip(x.numpy() / expected[:, None], -top, top).astype(kind)
    assert (to_bits(elements).numpy() == rounded.view(np.uint8)).all()


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("own_dtype", [False, True])
def test_values_come_back_exactly(fmt, own_dtype):
    random = torch.Generator().manual_seed(9)
    bits = torch.randint(0, 1 << fmt.width, (4, 70), generator=random)
    scales = torch.randint(0, 256, (4, 3), generator=random).to(torch.uint8)
    given = scales.view(torch.float8_e8m0fnu) if own_dtype else scales
    got = mx_dequantize(from_bits(bits, fmt), given)
    for row, bytes_, values in zip(bits.tolist(), scales.tolist(), got.tolist(), strict=True):
        for k, (pattern, value) in enumerate(zip(row, values, strict=True)):
            exact = oracle.decode(pattern, fmt)
            if bytes_[k // 32] == 255 or exact == oracle.NAN:
                assert math.isnan(value)
            elif isinstance(exact, Fraction):
                assert Fraction(value) == exact * Fraction(2) ** (bytes_[k // 32] - 127)
            else:
                assert value == exact


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_blocks_lie_along_any_axis(axis):
    x = torch.randn(70, 5, 33, generator=torch.Generator().manual_seed(10)).transpose(0, 1)
    elements, scales = mx_quantize(x, "e4m3", axis=axis, block=16)
    assert scales.shape[axis] == -(-x.shape[axis] // 16)
    moved, moved_scales = mx_quantize(x.movedim(axis, -1).contiguous(), "e4m3", block=16)
    assert torch.equal(to_bits(elements.movedim(axis, -1)), to_bits(moved))
    assert torch.equal(scales.movedim(axis, -1), moved_scales)
    assert elements.is_contiguous()
    assert scales.is_contiguous()
    back = mx_dequantize(elements, scales, axis=axis, block=16)
    assert (back - x).abs().max() <= x.abs().max() / 8       # of what saturates


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
def test_nothing_has_no_scales(shape):
    elements, scales = mx_quantize(torch.ones(shape), "e5m2")
    assert elements.shape == shape
    assert scales.shape == (*shape[:-1], -(-shape[-1] // 32))
    assert mx_dequantize(elements, scales).shape == shape


@narrow
def test_what_was_quantized_stays(fmt):
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(11))
    elements, scales = mx_quantize(x, fmt)
    again, same = mx_quantize(mx_dequantize(elements, scales), fmt)
    assert torch.equal(to_bits(again), to_bits(elements))
    assert torch.equal(same, scales)


X = torch.ones(2, 64)
Q = X.to(torch.float8_e4m3fn)
S = torch.full((2, 2), 127, dtype=torch.uint8)


@pytest.mark.parametrize(("call", "code", "says"), [
    (lambda: mx_quantize([1.0], "e4m3"), "X202", "x is a torch tensor; got list"),
    (lambda: mx_quantize(X.int(), "e4m3"), "X202", "x is int32"),
    (lambda: mx_quantize(X, "e4m4"), "X203", "did you mean `e4m3`?"),
    (lambda: mx_quantize(X, "e4m3", axis=2), "X201", "x has 2 dimensions; got axis 2"),
    (lambda: mx_quantize(torch.tensor(1.0), "e4m3"), "X201", "x has 0 dimensions"),
    (lambda: mx_quantize(X, "e4m3", block=0), "X207", "one of 16, 32, 64 elements; got 0"),
    (lambda: mx_dequantize(Q, S[:1]), "X201", "scales is [1, 2]; one for each block is [2, 2]"),
    (lambda: mx_dequantize(Q, S.int()), "X202", "scales is int32 on cpu; scales are uint8"),
    (lambda: mx_dequantize(Q, S.to("meta")), "X202", "on meta"),
    (lambda: mx_dequantize(Q, S, block=48), "X207", "got 48"),
    (lambda: mx_dequantize(Q, S, axis=-3), "X201", "got axis -3"),
])
def test_bad_input_gets_one_sentence(call, code, says):
    with pytest.raises(UsageError) as caught:
        call()
    assert caught.value.code == code
    assert says in str(caught.value)


def flushed(monkeypatch):
    """A fault: the smallest scale is 2^-126."""
    monkeypatch.setattr(mx, "SCALE_BIAS", 126)


def rounded_up(monkeypatch):
    """A fault: the scale is taken large enough that nothing saturates."""
    frexp = torch.frexp
    monkeypatch.setattr(mx.torch, "frexp", lambda x: frexp(x * (1 + 1 / 7)))


def infinities_saturate(monkeypatch):
    """A fault: an infinity does not make its block NaN."""
    monkeypatch.setattr(torch.Tensor, "isfinite", lambda x: ~x.isnan())


FAULTS = [
    (flushed, lambda: test_corner_blocks(E4M3, "the smallest scale")),
    (rounded_up, lambda: test_corner_blocks(E4M3, "just below the next scale")),
    (infinities_saturate, lambda: test_corner_blocks(E5M2, "an infinity")),
]


@pytest.mark.parametrize(("fault", "check"), FAULTS, ids=[f.__name__ for f, _ in FAULTS])
def test_the_tests_catch_faults(monkeypatch, fault, check):
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize(("options", "text"), [
    ({"axis": "a"}, "X201.*got axis 'a'"),
    ({"axis": 1.0}, "X201.*got axis 1.0"),
    ({"axis": 2}, "X201.*got axis 2"),
    ({"block": 32.0}, "X207.*got 32.0"),
])
def test_axes_and_blocks_of_another_kind_are_named(options, text):
    with pytest.raises(UsageError, match=text):
        mx_quantize(torch.ones(2, 64), "e4m3", **options)


def test_scales_in_a_sparse_layout_are_named():
    elements, scales = mx_quantize(torch.ones(2, 64), "e4m3")
    with pytest.raises(UsageError, match=r"X202.*layout .*sparse"):
        mx_dequantize(elements, scales.to_sparse())
