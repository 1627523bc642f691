"""The golden elementwise model against exact fractions, and its requests."""

import random

import pytest
import torch

from exactum.benches.elementwise_cases import HARD, MODES, expected, random_operation
from exactum.gen.config import preset
from exactum.gen.errors import UsageError
from exactum.hdl.formats import FORMATS, FP32
from exactum.host.elementwise import elementwise_cycles, exact_elementwise
from exactum.host.numerics import from_bits, to_bits
from exactum.host.softmax import softmax_backward
from sim_tests.oracle import NAN, add, decode, encode, multiply

SIGN = 1 << 31
ONES = torch.ones(2, 3)


def widened(bits, name):
    """The fp32 bits of a value of a format, its zero's sign kept."""
    fmt = FORMATS[name]
    value = decode(bits, fmt)
    if value == NAN:
        return FP32.nan_bits
    return encode(value, FP32, "overflow") | (bits >> fmt.width - 1) << 31


def contract(operation):
    """Rules E1 to E5, an element at a time."""
    q_is_scalar, t_is_scalar, negate = operation.mode
    out = []
    for row in operation.rows:
        found = []
        for x, q, t in zip(row.x, row.q, row.t, strict=True):
            x, q, t = (widened(*one) for one in zip((x, q, t), operation.formats, strict=True))
            s, row_q, row_t = row.numbers
            v = multiply(add(x, s ^ SIGN), row_q if q_is_scalar else q)
            t = row_t if t_is_scalar else t
            found.append(add(t, v ^ SIGN) if negate else add(v, t ^ SIGN))
        out.append(found)
    return out


@pytest.mark.parametrize("mode", MODES)
def test_bits_equal_exact_fractions(mode):
    names = list(FORMATS)
    for n in range(5):
        formats = names[n], names[(2 * n + 1) % 5], names[(3 * n + 2) % 5]
        operation = random_operation([0, 1, 40, 200], formats, mode, seed=n)
        assert expected(operation) == contract(operation)


def test_hard_numbers_equal_exact_fractions():
    draw = random.Random(1)
    signed = [bits | sign for bits in HARD for sign in (0, SIGN)]
    x, s, q, t = ([draw.choice(signed) for _ in range(8000)] for _ in range(4))
    found = exact_elementwise(*(from_bits(torch.tensor(bits), "fp32") for bits in (x, s, q, t)))
    assert to_bits(found).tolist() == [
        add(multiply(add(a, b ^ SIGN), c), d ^ SIGN) for a, b, c, d in zip(x, s, q, t, strict=True)]


def test_the_gradient_of_softmax_is_one_operation():
    generator = torch.Generator().manual_seed(1)
    p, dp = torch.rand(8, 32, generator=generator), torch.randn(8, 32, generator=generator)
    dot = (p.double() * dp.double()).sum(-1, keepdim=True).float()
    assert torch.equal(exact_elementwise(dp, dot, p, torch.zeros(1)),
                       softmax_backward(p, dp, config=preset("default")))


def test_scale_and_mask_log_softmax_and_its_gradient():
    generator = torch.Generator().manual_seed(2)
    x, g = torch.randn(8, 32, generator=generator), torch.randn(8, 32, generator=generator)
    zero, mask = torch.zeros(1), torch.full((8, 32), -torch.inf).triu(1)
    masked = exact_elementwise(x, zero, torch.tensor(0.125), -mask)
    assert torch.equal(masked, x * 0.125 + mask)
    top, log = x.amax(-1, keepdim=True), (x - x.amax(-1, keepdim=True)).exp().sum(-1, True).log()
    assert torch.equal(exact_elementwise(x, top, torch.ones(1), log), x - top - log)
    p, total = torch.softmax(x, -1), g.sum(-1, keepdim=True)
    assert torch.equal(exact_elementwise(p, zero, total, g, negate=True), g - p * total)


def test_any_strides_and_shapes_and_nothing_is_written_to():
    x = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(3)).mT
    before = x.clone()
    found = exact_elementwise(x, torch.ones(5, 1), torch.tensor(2.0), torch.ones(4, 5, 6).half())
    assert torch.equal(found, (x - 1) * 2 - 1)
    assert found.is_contiguous()
    assert found.dtype == torch.float32
    assert torch.equal(x, before)
    assert exact_elementwise(x[:0], x[:0], x[:0], x[:0]).shape == (0, 5, 6)


def test_float64_is_rounded_to_fp32_first():
    third = torch.tensor([1 / 3], dtype=torch.float64)
    assert torch.equal(exact_elementwise(third, *torch.tensor([[0.0], [1.0], [0.0]]).double()),
                       third.float())


def test_nan_is_canonical():
    x = from_bits(torch.tensor([0xFFC00001, 0x7F800001]), "fp32")
    found = to_bits(exact_elementwise(x, *torch.zeros(3, 1)))
    assert found.tolist() == [0x7FC00000] * 2


@pytest.mark.parametrize(("arguments", "code", "words"), [
    ((ONES, ONES, ONES, ONES[:, :2]), "X201", r"t is \[2, 2\] and x is \[2, 3\]"),
    ((ONES[:1], ONES, ONES, ONES), "X201", r"s is \[2, 3\] and x is \[1, 3\]"),
    ((ONES, ONES.long(), ONES, ONES), "X202", "s is int64"),
    ((ONES, ONES, 1.0, ONES), "X202", "q is a torch tensor; got float"),
])
def test_bad_requests_are_named(arguments, code, words):
    with pytest.raises(UsageError, match=f"{code}: .*{words}"):
        exact_elementwise(*arguments)


def test_flushed_subnormals_are_refused():
    torch.set_flush_denormal(True)
    try:
        with pytest.raises(UsageError, match="X216"):
            exact_elementwise(ONES, ONES, ONES, ONES)
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize(("rows", "length", "cycles"), [
    (1, 1, 44), (1, 4, 44), (1, 5, 45), (10, 9, 73), (0, 9, 0), (9, 0, 0)])
def test_cycles(rows, length, cycles):
    assert elementwise_cycles(preset("default"), rows, length) == cycles
