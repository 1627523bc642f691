"""Log-softmax against its contract in plain integers, against float64, and as part of a loss."""

import math
import random
from fractions import Fraction

import pytest
import torch
from torch import nn

from exactum.benches.softmax_cases import named_rows, random_rows
from exactum.gen.config import preset
from exactum.gen.errors import UsageError
from exactum.hdl.formats import FORMATS, FP32
from exactum.hdl.softmax_tables import (
    exp_table,
    log_error,
    log_octaves,
    log_table,
    step_table,
)
from exactum.host import log_softmax as golden
from exactum.host import offload, open_device
from exactum.host.cycles import dots_cycles
from exactum.host.elementwise import elementwise_cycles
from exactum.host.log_softmax import exact_log_softmax, log_softmax_backward
from exactum.host.masks import NonZeros
from exactum.host.numerics import from_bits, quantize, to_bits
from exactum.host.softmax import exact_softmax, softmax_cycles
from sim_tests.host.recorder import normal, same_bits
from sim_tests.oracle import NAN, decode, encode

CONFIG = preset("default")
LARGE = CONFIG.replace({"softmax.exp_entries": 16384, "softmax.reciprocal_entries": 16384,
                        "softmax.value_width": 22, "softmax.max_length": 4096})
INF = math.inf


def logs(rows, length, seed):
    """Rows of every spread from almost equal to far apart."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp2(torch.rand(rows, 1, generator=generator) * 10 - 5)
    return torch.randn(rows, length, generator=generator) * spread


def to_fp32(x):
    return decode(encode(x, FP32, "overflow"), FP32)


def contract(row, result, parameters):
    """Rule S7 of fp32 bits, an element at a time."""
    values = [decode(bits, FP32) for bits in row]
    counted = [x for x in values if isinstance(x, Fraction)]
    if NAN in values or INF in values or not counted:
        return [result.nan_bits] * len(row)
    width = parameters.value_width
    exp, steps = (make(parameters.exp_entries, width) for make in (exp_table, step_table))
    table, total = log_table(parameters.reciprocal_entries, width), 0
    top = math.trunc(max(counted) * 2 ** width)
    for x in counted:
        distance = top - math.trunc(x * 2 ** width)
        if distance < 128 << width:
            step, low = divmod(distance, 1 << width - 3)
            power = Fraction(exp.value(steps.rests[step] + 2 * low)) / 2 ** steps.octaves[step]
            total += math.floor(power * 2 ** 11 + Fraction(1, 2))
    place = total.bit_length() - width - 11
    fraction = math.floor((Fraction(total, 2 ** (width + 10 + place)) - 1) * 2 ** width)
    log_sum = to_fp32(Fraction(
        log_octaves(width)[place] + 64 * (table.value(0) - table.value(fraction)),
        2 ** (width + 6)))
    found = []
    for x in values:
        if x == -INF:
            found.append(result.nan_bits if result.name == "e4m3" else
                         result.infinity_bits | 1 << result.width - 1)
            continue
        below = to_fp32(x - max(counted))
        log_p = below if below == -INF else to_fp32(below - log_sum)
        if log_p == -INF:
            found.append(result.nan_bits if result.name == "e4m3" else
                         result.infinity_bits | 1 << result.width - 1)
        else:
            found.append(encode(log_p, result, "overflow"))
    return found


@pytest.mark.parametrize("result", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("config", [CONFIG, LARGE], ids=["default", "large tables"])
def test_bits_equal_the_contract_in_integers(result, config):
    for row in named_rows("fp32", 1024) + random_rows("fp32", [1, 2, 3, 17, 100], seed=3):
        x = from_bits(torch.tensor(row, dtype=torch.int64), "fp32")
        got = to_bits(exact_log_softmax(x, result.name, config=config)).tolist()
        assert got == contract(row, result, config.softmax)


@pytest.mark.parametrize(("entries", "width"), [
    (2048, 18), (4096, 18), (16384, 18), (4096, 20), (16384, 22), (2048, 22)])
def test_the_table_stays_within_its_bound_everywhere(entries, width):
    table = log_table(entries, width)
    x = torch.arange(1 << width)
    values = golden.table_values(x, table)
    assert values.min() >= 0
    assert values.max() == values[0] < 1 << width
    found = (values[0] - values).double() / 2 ** width
    worst = max(float((found - torch.log1p((x + cut) / 2 ** width)).abs().max())
                for cut in (0.0, 1.0))                     # what was cut off counts as well
    assert 0.6 * float(table.error) < worst <= float(table.error)


def bound(exact, x, length, config):
    """What rule S7 may err by: ln S, and the roundings of it and of both differences."""
    parameters = config.softmax
    error = float(log_error(parameters.exp_entries, parameters.reciprocal_entries,
                            parameters.value_width, length))
    below = x.amax(-1, keepdim=True) - x
    return error + 2.0 ** -24 * (math.log(length) + error + below + exact.abs() + error) * 1.001


@pytest.mark.parametrize("length", [1, 2, 10, 64, 1000, 4096])
@pytest.mark.parametrize(("config", "goal"), [(CONFIG, 2.0 ** -14.5), (LARGE, 2.0 ** -18.5)],
                         ids=["default", "large tables"])
def test_the_error_is_absolute_and_within_what_is_proven(length, config, goal):
    x = logs(60_000 // length, length, seed=length)
    peaked = torch.zeros(100, length)
    peaked[:, 0] = torch.linspace(-20, 20, 100)
    for rows in (x, peaked, torch.full((1, length), 3.7)):
        exact = torch.log_softmax(rows.double(), -1)
        error = (exact_log_softmax(rows, config=config).double() - exact).abs()
        assert (error <= bound(exact, rows.double(), length, config)).all()
        assert error[exact > -16].max() <= goal


def test_a_log_probability_is_never_above_zero_and_that_of_one_element_is_zero():
    assert (exact_log_softmax(logs(2000, 3, seed=1) * 4, config=CONFIG) <= 0).all()
    one = exact_log_softmax(torch.linspace(-90, 90, 1000).unsqueeze(-1), config=CONFIG)
    assert (to_bits(one) == 0).all()
    far = exact_log_softmax(torch.tensor([[500.0, 0.0, -INF]]), config=CONFIG)
    assert far.tolist() == [[0.0, -500.0, -INF]]


def test_order_strides_blocks_and_max_length_change_no_bit():
    x = logs(4, 3000, seed=6)
    x[1, :1500] = -INF
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(1))
    found = exact_log_softmax(x, config=CONFIG)
    assert same_bits(exact_log_softmax(x[:, order], config=CONFIG), found[:, order])
    whole = CONFIG.replace({"softmax.max_length": 4096})
    assert same_bits(exact_log_softmax(x.T.contiguous().T, config=whole), found)


@pytest.mark.parametrize("seed", range(3))
def test_backward_rounds_the_exact_sum_once(seed):
    draw = random.Random(seed)
    for _ in range(30):
        length = draw.randint(1, 40)
        g = torch.tensor([draw.choice((1, -1)) * draw.random() * 2.0 ** draw.randint(-30, 30)
                          for _ in range(length)])
        g[draw.randrange(length)] = -float(g.sum())        # cancels
        total = sum((Fraction(x) for x in g.tolist()), Fraction(0))
        log_p = torch.log_softmax(normal(length, seed=seed), -1)
        p = exact_softmax(log_p, "fp32", config=CONFIG)
        assert same_bits(log_softmax_backward(log_p, g, config=CONFIG),
                         g - p * float(to_fp32(total)))


def test_backward_is_the_gradient():
    x, g = logs(300, 50, seed=2), normal(300, 50, seed=3)
    exact = x.double().requires_grad_()
    torch.log_softmax(exact, -1).backward(g.double())
    log_p = exact_log_softmax(x, config=CONFIG)
    error = (log_softmax_backward(log_p, g, config=CONFIG) - exact.grad).abs()
    p, total = torch.softmax(x.double(), -1), g.double().sum(-1, keepdim=True).abs()
    # p errs by 2^-13.9 of itself as a softmax, and by the error of the row's ln S, which cancels.
    assert (error <= 2.0 ** -13.5 * p * total + 2.0 ** -22 * (g.abs() + p * total)).all()


def test_empty_gives_empty():
    for shape in ((0,), (0, 5), (5, 0)):
        x = torch.empty(shape)
        assert exact_log_softmax(x, config=CONFIG).shape == shape
        assert log_softmax_backward(x, x, config=CONFIG).shape == shape


@pytest.mark.parametrize(("call", "code", "words"), [
    (lambda d: d.log_softmax(torch.zeros(2, 16385)), "X208", "16385 elements"),
    (lambda d: d.log_softmax(torch.zeros(())), "X201", "scalar"),
    (lambda d: d.log_softmax(torch.zeros(3).int()), "X202", "int32"),
    (lambda d: d.log_softmax(torch.zeros(3), "fp8"), "X203", "fp8"),
    (lambda d: d.log_softmax_backward(torch.zeros(3), torch.zeros(2)), "X201",
     r"log_p is \[3\] and g is \[2\]"),
])
def test_what_cannot_be_served_is_said_in_a_sentence(call, code, words):
    device = open_device()
    with pytest.raises(UsageError, match=words) as caught:
        call(device)
    assert caught.value.code == code
    assert set(device.counters.values()) == {0}


def test_the_device_counts_both_units():
    device, x = open_device(), normal(3, 4, 20)
    found = device.log_softmax(x)
    assert same_bits(found, exact_log_softmax(x, config=CONFIG))
    cycles = softmax_cycles(CONFIG, 12, 20) + 3 * elementwise_cycles(CONFIG, 4, 20)
    assert device.counters["cycles"] == device.counters["cycles_dense"] == cycles
    assert device.counters["bytes_in"] == device.counters["bytes_out"] == x.numel() * 4
    assert same_bits(device.log_softmax_backward(found, x),
                     log_softmax_backward(found, x, config=CONFIG))
    assert device.counters["calls"] == 2
    ones = NonZeros(torch.ones(3, 4, 20, dtype=torch.bool))
    assert device.counters["cycles"] == 2 * cycles + dots_cycles(CONFIG, ones, None, (FP32, FP32))


def test_offloaded_over_any_dimension_and_where_it_is_told():
    device = open_device()
    for dim in (0, 1, -1):
        x, g = normal(3, 4, 6).requires_grad_(), normal(3, 4, 6, seed=2)
        with offload(device) as session:
            y = torch.log_softmax(x, dim)
            y.backward(g)
        last = y.detach().movedim(dim, -1)
        assert y.is_contiguous()
        assert same_bits(last, device.log_softmax(x.detach().movedim(dim, -1)))
        assert same_bits(x.grad.movedim(dim, -1),
                         device.log_softmax_backward(last, g.movedim(dim, -1)))
        assert session.report().fallbacks == ()
    out = torch.empty(0)
    with offload(device) as session:
        torch.log_softmax(normal(2, 5), -1, out=out)
    assert same_bits(out, device.log_softmax(normal(2, 5)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tensors_are_rounded_at_the_end(dtype):
    device, x = open_device(), normal(3, 9).to(dtype)
    with offload(device, "e4m3"):
        y = torch.log_softmax(x, -1)
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    assert same_bits(y, quantize(device.log_softmax(x), name, "overflow"))


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"ignore_index": 2},
                                     {"reduction": "sum"}], ids=str)
def test_cross_entropy_is_offloaded_forward_and_backward(options):
    losses, gradients = [], []
    for offloaded in (False, True):
        x, target = (normal(64, 10) * 3).requires_grad_(), torch.arange(64) % 10
        if offloaded:
            with offload(open_device(), "e4m3") as session:
                loss = nn.functional.cross_entropy(x, target, **options)
                loss.backward()
        else:
            loss = nn.functional.cross_entropy(x, target, **options)
            loss.backward()
        losses.append(loss.item())
        gradients.append(x.grad)
    report = session.report()
    assert sorted((row.op, row.role, row.formats, row.sizes) for row in report.rows) == [
        ("log_softmax", "forward", "fp32", (64, 10)),
        ("log_softmax_backward", "backward", "fp32", (64, 10))]
    assert report.fallbacks == ()
    assert losses[1] == pytest.approx(losses[0], rel=2.0 ** -14)
    assert (gradients[1] - gradients[0]).abs().max() <= 2.0 ** -13 * gradients[0].abs().max()


MUTANTS = {
    "the logarithm is cut to the table's width": (
        "_log_sums", lambda real: lambda rows: (real(rows) * 2.0 ** 18).floor() * 2.0 ** -18),
    "fewer guard bits": ("LOG_GUARD_WIDTH", lambda real: 5),
    "the octaves are one off": ("_octaves", lambda real: lambda width: real(width)[1:]),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(monkeypatch, name):
    target, mutate = MUTANTS[name]
    monkeypatch.setattr(golden, target, mutate(getattr(golden, target)))
    with pytest.raises((AssertionError, IndexError)):
        test_bits_equal_the_contract_in_integers(FP32, CONFIG)
