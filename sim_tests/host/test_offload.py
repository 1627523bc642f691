"""The offload: bits of every offloaded operation, what is not offloaded, and PyTorch afterwards."""

import threading

import pytest
import torch
from torch import nn

from exactum.gen.errors import UsageError
from exactum.host import offload, open_device, quantize
from exactum.host.offloading import Choice, routing, running
from exactum.host.offloading.ops import OFFLOADED, WATCHED
from sim_tests.host.recorder import Recorder, normal, same_bits, scaled

E4M3_LARGEST, E5M2_LARGEST = 448.0, 57344.0


def fp8_product(device, a, b, formats=("e4m3", "e4m3"), result="fp32"):
    """The product of tensors scaled and quantised here, and unscaled inside the rounding."""
    largest = {"e4m3": E4M3_LARGEST, "e5m2": E5M2_LARGEST}
    a, a_shift = scaled(a, largest[formats[0]])
    b, b_shift = scaled(b, largest[formats[1]])
    return device.gemm(quantize(a, formats[0]), quantize(b, formats[1]), formats, result,
                       exponent=-a_shift - b_shift)


@pytest.fixture
def device():
    return open_device("emulator")


def test_a_linear_layer_has_the_device_bits_forward_and_backward(device):
    layer, x, gradient = nn.Linear(13, 7), normal(5, 13), normal(5, 7, seed=2)
    x.requires_grad_()
    with offload(device, "e4m3") as session:
        y = layer(x)
        y.backward(gradient)
    weight = layer.weight.detach()
    assert same_bits(y.detach(), fp8_product(device, x.detach(), weight.T) + layer.bias.detach())
    assert same_bits(x.grad, fp8_product(device, gradient, weight, ("e5m2", "e4m3")))
    assert same_bits(layer.weight.grad,
                     fp8_product(device, gradient.T, x.detach(), ("e5m2", "e4m3")))
    assert sorted((row.role, row.formats, row.calls) for row in session.report().rows) == [
        ("data-gradient", "e5m2 × e4m3", 1), ("forward", "e4m3 × e4m3", 1),
        ("weight-gradient", "e5m2 × e4m3", 1)]


def test_a_batched_product_has_the_device_bits_forward_and_backward(device):
    a, b = normal(3, 4, 9).requires_grad_(), normal(3, 9, 5, seed=2).requires_grad_()
    gradient = normal(3, 4, 5, seed=3)
    with offload(device, "e4m3"):
        y = a @ b
        y.backward(gradient)
    assert same_bits(y.detach(), fp8_product(device, a.detach(), b.detach()))
    assert same_bits(a.grad, fp8_product(device, gradient, b.detach().mT, ("e5m2", "e4m3")))
    assert same_bits(b.grad, fp8_product(device, a.detach().mT, gradient, ("e4m3", "e5m2")))


def test_softmax_has_the_device_bits_forward_and_backward_over_any_dimension(device):
    for dim in (0, 1, 2, -2):
        x, gradient = normal(3, 4, 6).requires_grad_(), normal(3, 4, 6, seed=2)
        with offload(device, "e4m3"):
            p = torch.softmax(x, dim)
            p.backward(gradient)
        last = p.detach().movedim(dim, -1)
        assert same_bits(last, device.softmax(x.detach().movedim(dim, -1), "fp32"))
        assert same_bits(x.grad.movedim(dim, -1),
                         device.softmax_backward(last, gradient.movedim(dim, -1)))
        assert p.is_contiguous()


@pytest.mark.parametrize("precision", ["e5m2", "fp16", "bf16", "fp32"])
def test_one_format_serves_both_directions(device, precision):
    layer, x = nn.Linear(6, 4, bias=False), normal(5, 6)
    with offload(device, precision) as session:
        y = layer(x)
        y.sum().backward()
    assert {row.formats for row in session.report().rows} == {f"{precision} × {precision}"}
    if precision != "e5m2":
        assert same_bits(y.detach(), device.gemm(x, layer.weight.detach().T,
                                                 (precision, precision)))


def test_fp16_gradients_are_scaled_and_nothing_else_is():
    device, layer, x = Recorder(), nn.Linear(6, 4, bias=False), normal(5, 6)
    with offload(device, "fp16"):
        (layer(x) * 1e-9).sum().backward()
    forward, backward = device.asked
    assert forward.exponent == 0
    assert float(backward.a.max()) * 2.0 ** backward.exponent == pytest.approx(1e-9)
    assert 32768 <= float(backward.a.max()) <= 65504


@pytest.mark.parametrize(("beta", "alpha"), [(1, 1), (0, 1), (1, 0.5), (2, 3), (-0.1, 0.7)])
def test_addmm_scales_and_adds_in_fp32_after_the_rounding(device, beta, alpha):
    c, a, b = normal(4), normal(3, 5), normal(5, 4, seed=2)
    with offload(device, "e4m3"):
        y = torch.addmm(c, a, b, beta=beta, alpha=alpha)
    expected = fp8_product(device, a, b) * alpha
    if beta:
        expected = expected + c * beta
    assert same_bits(y, expected)


def test_beta_zero_ignores_even_a_nan(device):
    with offload(device, "fp32"):
        y = torch.addmm(torch.full((2,), torch.nan), torch.eye(2), torch.eye(2), beta=0)
    assert torch.equal(y, torch.eye(2))


def test_out_and_in_place_forms_deliver_where_they_are_told(device):
    a, b, c = normal(3, 5), normal(5, 4, seed=2), normal(3, 4, seed=3)
    with offload(device, "fp32") as session:
        out = torch.empty(4, 3).T
        assert torch.mm(a, b, out=out) is out
        added = torch.addmm(c, a, b)
        assert torch.addmm(c, a, b, out=torch.empty(0)).equal(added)
        assert c.clone().addmm_(a, b).equal(added)
        batch = torch.baddbmm(c[None], a[None], b[None])
        assert c[None].clone().baddbmm_(a[None], b[None]).equal(batch)
        torch.softmax(c, 1, out=(probabilities := torch.empty(3, 4)))
    assert same_bits(out.contiguous(), device.gemm(a, b, ("fp32", "fp32")))
    assert added.equal(out + c)
    assert batch[0].equal(added)
    assert probabilities.equal(device.softmax(c, "fp32"))
    assert sum(row.calls for row in session.report().rows) == 7
    assert session.report().fallbacks == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tensors_give_results_rounded_once_to_their_dtype(device, dtype):
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    a, b = normal(3, 40).to(dtype), normal(40, 4, seed=2).to(dtype)
    with offload(device, name):
        y, added = a @ b, torch.addmm(a[:, :4], a, b)
    assert same_bits(y, device.gemm(a, b, (name, name), name))
    exact = device.gemm(a, b, (name, name), "fp32")
    assert same_bits(added, quantize(exact + a[:, :4].float(), name, "overflow"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_sum_beyond_the_dtype_becomes_infinite(device, dtype):
    largest = torch.full((1, 1), torch.finfo(dtype).max, dtype=dtype)
    one = torch.ones(1, 1, dtype=dtype)
    with offload(device, "fp32") as session:
        sums = [torch.addmm(sign * largest, sign * largest, one) for sign in (1, -1)]
    assert [float(x) for x in sums] == [torch.inf, -torch.inf]
    assert session.report().total("calls") == 2


@pytest.mark.parametrize("shape", [(6,), (1, 6), (6, 1), ()], ids=str)
def test_in_place_forms_do_not_broadcast_what_they_write_to(device, shape):
    a = normal(6, 6)
    for change in (lambda c: c.addmm_(a, a), lambda c: c.baddbmm_(a[None], a[None])):
        c = torch.zeros(shape)
        with pytest.raises(RuntimeError) as plain:
            change(c)
        with offload(device) as session, pytest.raises(RuntimeError) as offloaded:
            change(c)
        assert str(offloaded.value) == str(plain.value)
        assert c.shape == shape
        assert session.report().rows == session.report().fallbacks == ()


def test_nan_and_infinity_follow_the_contract(device):
    a = torch.tensor([[1.0, torch.nan], [torch.inf, 1.0], [2.0, 3.0]])
    with offload(device, "fp32"):
        assert same_bits(a @ torch.ones(2, 1), torch.tensor([[torch.nan], [torch.inf], [5.0]]))
    with offload(device, "e4m3") as session:
        y = a @ torch.ones(2, 1)
    assert y[0].isnan().all()
    assert y[1:].isfinite().all()
    assert session.report().total("saturations") == 1  # the infinity, clamped to e4m3's largest


def test_a_tensor_of_zeros_and_a_tiny_one_are_served(device):
    with offload(device, "e4m3"):
        assert torch.equal(torch.zeros(2, 3) @ torch.ones(3, 2), torch.zeros(2, 2))
        for power in (-149, -140, -110, 127):
            x = torch.full((2, 2), 2.0 ** power)
            assert torch.equal(x @ torch.eye(2), x)


def test_malformed_calls_get_pytorchs_own_message(device):
    with offload(device), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        torch.mm(torch.ones(2, 3), torch.ones(2, 3))
    with offload(device), pytest.raises(RuntimeError, match="must be a matrix"):
        torch.mm(torch.tensor(1.0), torch.ones(2, 3))
    with offload(device) as session, pytest.raises(RuntimeError, match="expected input"):
        nn.functional.conv2d(torch.ones(2, 3, 8, 8), torch.ones(4, 2, 3, 3))
    assert session.report().fallbacks == ()


def test_a_format_the_device_lacks(device):
    small = open_device("emulator", "tiny")
    with pytest.raises(UsageError, match=r"X205.*e4m3.*fp16"), offload(small, "fp16"):
        pass
    with offload(small, "e4m3") as session:
        nn.Linear(3, 2, bias=False)(torch.ones(1, 3)).sum().backward()
    assert {row.formats for row in session.report().rows} == {"e4m3 × e4m3"}
    with offload(small, lambda context: "bf16") as session:
        torch.ones(2, 2) @ torch.ones(2, 2)
    assert [row.reason for row in session.report().fallbacks] == ["the device has no bf16"]


@pytest.mark.parametrize("answer", [
    ("e4m3", "e4m3"), ("fp32",), 7, Choice("e4m3"), Choice(("e4m3",)), Choice(("e4m3", None)),
    Choice(("e4m3", "e4m3"), True), Choice(("e4m3", "e4m3"), (1, 0))], ids=repr)
def test_an_answer_that_is_no_choice_is_refused_with_its_value(device, answer):
    for operation in (lambda x: x @ x, lambda x: x.softmax(-1)):
        with offload(device, lambda context: answer), pytest.raises(UsageError) as raised:
            operation(torch.eye(2))
        assert "X209" in str(raised.value)
        assert "a format name or None; got " + repr(answer) in str(raised.value)


def dump():
    return [torch._C._dispatch_dump(f"aten::{name}") for name in (*OFFLOADED, *WATCHED)]


def test_pytorch_is_as_it_was_afterwards_also_after_an_exception(device):
    a, b = normal(16, 16), normal(16, 16, seed=2)
    before, product = dump(), a @ b
    with offload(device, "e4m3"):
        assert dump() != before
        assert not torch.equal(a @ b, product)
    assert dump() == before
    assert same_bits(a @ b, product)
    with pytest.raises(KeyError), offload(device, "e4m3"):
        raise KeyError("of the user")
    assert dump() == before
    assert same_bits(a @ b, product)
    assert not nn.modules.module._global_forward_pre_hooks
    assert not nn.modules.module._global_forward_hooks


def test_nothing_is_left_behind_when_the_start_fails(device, monkeypatch):
    before, real = dump(), routing.Overrides.put

    def put(self, name, route):
        if name == "_softmax":
            raise RuntimeError("no")
        real(self, name, route)

    monkeypatch.setattr(routing.Overrides, "put", put)
    with pytest.raises(RuntimeError, match="no"), offload(device):
        pass
    monkeypatch.undo()
    assert dump() == before
    with offload(device):
        pass


def test_an_error_of_the_device_reaches_the_caller_and_the_session_goes_on(device):
    with offload(device) as session:
        device.close()
        with pytest.raises(Exception, match="X403"):
            torch.eye(2) @ torch.eye(2)
        with session.paused():
            torch.eye(2) @ torch.eye(2)
    assert torch.equal(torch.eye(2) @ torch.eye(2), torch.eye(2))


def test_sessions_do_not_nest(device):
    with offload(device) as outer:
        with pytest.raises(UsageError, match="X210"), offload(device):
            pass
        torch.eye(2) @ torch.eye(2)
    assert outer.report().total("calls") == 1


def test_only_a_device_is_accepted():
    with pytest.raises(UsageError, match=r"X202.*'emulator'"), offload("emulator"):
        pass


def test_paused_work_is_pytorchs_and_is_not_counted(device):
    a = normal(8, 8)
    plain = a @ a
    with offload(device) as session:
        with session.paused():
            assert torch.equal(a @ a, plain)
            torch.log_softmax(a, 0)
        assert not torch.equal(a @ a, plain)
        assert session.report().total("calls") == 1
        session.reset()
    assert session.report().rows == session.report().fallbacks == ()


def test_other_threads_are_offloaded_and_counted_without_loss(device):
    def work():
        for _ in range(20):
            torch.eye(4) @ torch.eye(4)

    with offload(device) as session:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [(row.calls, row.products + row.products_skipped) for row in session.report().rows] \
        == [(80, 80 * 64)]


def test_inference_mode_and_no_grad_are_offloaded_alike(device):
    a = normal(4, 4)
    with offload(device) as session:
        with torch.inference_mode():
            first = a @ a
        with torch.no_grad():
            second = a @ a
    assert torch.equal(first, second)
    assert [(row.role, row.calls) for row in session.report().rows] == [("forward", 2)]


def test_counters_are_the_devices(device):
    with offload(device, "e4m3") as session:
        torch.relu(normal(8, 16)) @ normal(16, 4, seed=2)
    row, = session.report().rows
    for name in ("cycles", "products", "products_skipped", "bytes_in", "bytes_out"):
        assert getattr(row, name) == device.counters[name] > 0
    assert row.products + row.products_skipped == 8 * 16 * 4
    assert row.density == row.products / (8 * 16 * 4)
    assert row.seconds > 0


MUTANTS = {
    "the scale is not taken back": ("scaled_operand", lambda real: lambda x, name, on: (
        real(x, name, on)[0], 0)),
    "operands are not scaled": ("scaled_operand", lambda real: lambda x, name, on: (x.detach(), 0)),
    "results are not rounded to their dtype": (
        "_deliver", lambda real: lambda result, dtype, out: result.contiguous()),
    "sums saturate": (
        "_deliver", lambda real: lambda result, dtype, out: real(
            result.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max), dtype, out)),
    "the addend is forgotten": ("_run_product", lambda real: lambda device, call, choice: real(
        device, call._replace(addend=None), choice)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(device, monkeypatch, name):
    target, mutate = MUTANTS[name]
    mutant = mutate(getattr(running, target))
    monkeypatch.setattr(running, target, mutant)
    monkeypatch.setitem(running._RUN, running.Product, running._run_product)
    with pytest.raises(AssertionError):
        _check_bits(device)


def _check_bits(device):
    test_a_sum_beyond_the_dtype_becomes_infinite(device, torch.float16)
    test_a_linear_layer_has_the_device_bits_forward_and_backward(device)
    test_half_precision_tensors_give_results_rounded_once_to_their_dtype(device, torch.float16)
