"""Layers, roles and which operand is the gradient, however PyTorch comes to run the product."""

import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from exactum.host import offload
from exactum.host.offloading import roles
from sim_tests.host.recorder import Recorder


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Witness:
    """An fp32 policy that keeps what it was told."""

    def __init__(self):
        self.told = []

    def __call__(self, context):
        self.told.append(context)
        return "fp32"

    @property
    def roles(self):
        return [(context.layer, context.role) for context in self.told]


def assert_gradients_found(device, told, gradient):
    """In each backward product the operand said to be the gradient is ``gradient``, and only it."""
    told = [context for context in told if context.op == "gemm"]
    backward = 0
    for context, asked in zip(told, device.asked, strict=True):
        if context.role == "forward":
            assert context.gradient == (False, False)
            continue
        backward += 1
        for operand, said in zip((asked.a, asked.b), context.gradient, strict=True):
            is_gradient = any(operand.shape == g.shape and torch.equal(operand, g)
                              for g in (gradient, gradient.mT))
            assert said == is_gradient
        assert context.role == ("weight-gradient" if asked.is_for_right else "data-gradient")
    return backward


class Asking(Recorder):
    """Tells by the operands' bits which operand of the forward product the result is for."""

    def __init__(self, left, right):
        super().__init__()
        self.left, self.right = left, right

    def gemm(self, a, b, formats, result, *, exponent=0):
        done = super().gemm(a, b, formats, result, exponent=exponent)
        self.asked[-1] = Told(a.clone(), b.clone(), any(
            x.shape == side.shape and torch.equal(x, side)
            for x in (a, b) for side in (self.left, self.left.mT)))
        return done


class Told:
    def __init__(self, a, b, is_for_right):
        self.a, self.b, self.is_for_right = a, b, is_for_right


def plain(a, b, gradient):
    (a @ b).backward(gradient)


def added(a, b, gradient):
    torch.addmm(torch.zeros(b.shape[-1], requires_grad=True), a, b).backward(gradient)


def reentrant_checkpoint(a, b, gradient):
    checkpoint(torch.matmul, a, b, use_reentrant=True).backward(gradient)


def checkpointed(a, b, gradient):
    def recomputed(a, b):
        return (a * 1) @ b  # the left operand is not met again

    checkpoint(recomputed, a, b, use_reentrant=False).backward(gradient)


def moved(a, b, gradient):
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda x: x):
        y = a @ b
    y.backward(gradient)


def twice(a, b, gradient):
    y = a @ b
    y.backward(gradient, retain_graph=True)
    y.backward(gradient)


def in_another_thread(a, b, gradient):
    y = a @ b
    thread = threading.Thread(target=y.backward, args=(gradient,))
    thread.start()
    thread.join()


def own_function(a, b, gradient):
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            return a @ b

        @staticmethod
        def backward(ctx, g):
            a, b = ctx.saved_tensors
            return g @ b.mT, a.mT @ g

    Own.apply(a, b).backward(gradient)


def compiled_eager(a, b, gradient):
    torch.compile(torch.matmul, backend="eager")(a, b).backward(gradient)


def compiled_aot(a, b, gradient):
    torch.compile(torch.matmul, backend="aot_eager")(a, b).backward(gradient)


MANNERS = [plain, added, reentrant_checkpoint, checkpointed, twice, in_another_thread,
           own_function]
LAYOUTS = {
    "rows": lambda x: x,
    "columns": lambda x: x.mT.contiguous().mT,
}


@pytest.mark.parametrize("manner", MANNERS, ids=lambda manner: manner.__name__)
@pytest.mark.parametrize("left", LAYOUTS)
@pytest.mark.parametrize("right", LAYOUTS)
@pytest.mark.parametrize("sizes", [(3, 4, 5), (4, 4, 4)], ids=["oblong", "square"])
def test_the_gradient_is_found(manner, left, right, sizes):
    rows, k, columns = sizes
    a = LAYOUTS[left](normal(rows, k)).requires_grad_()
    b = LAYOUTS[right](normal(k, columns, seed=2)).requires_grad_()
    gradient = normal(rows, columns, seed=3)
    device, policy = Asking(a.detach(), b.detach()), Witness()
    with offload(device, policy):
        manner(a, b, gradient)
    assert assert_gradients_found(device, policy.told, gradient) == 2 * (1 + (manner is twice))
    assert torch.allclose(a.grad, (1 + (manner is twice)) * gradient @ b.detach().mT, atol=1e-5)


@pytest.mark.parametrize("manner", [compiled_eager, compiled_aot],
                         ids=lambda manner: manner.__name__)
def test_the_gradient_is_found_in_compiled_code(manner):
    test_the_gradient_is_found(manner, "rows", "columns", (3, 4, 5))


@pytest.mark.parametrize("left", LAYOUTS)
@pytest.mark.parametrize("right", LAYOUTS)
def test_the_gradient_is_found_when_saved_tensors_are_moved(left, right):
    a = LAYOUTS[left](normal(3, 4)).requires_grad_()
    b = LAYOUTS[right](normal(4, 5, seed=2)).requires_grad_()
    gradient = normal(3, 5, seed=3)
    device, policy = Asking(a.detach(), b.detach()), Witness()
    with offload(device, policy):
        moved(a, b, gradient)
    assert assert_gradients_found(device, policy.told, gradient) == 2


class Sines(torch.autograd.Function):
    """A product by a user's own function, in whose forward gradients are disabled."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w.mT, x.mT @ g


def by_own_function(x, w):
    return Sines.apply(x.sin(), w).sin()


def by_a_block_without_gradients(x, w):
    with torch.no_grad():
        factor = x @ w
    return ((x.sin() @ w) * factor).sin()


def once(function, *operands):
    return function(*operands)


def reentrant(function, *operands):
    return checkpoint(function, *operands, use_reentrant=True)


def not_reentrant(function, *operands):
    return checkpoint(function, *operands, use_reentrant=False)


def nested(function, *operands):
    return not_reentrant(lambda *operands: not_reentrant(function, *operands) * 1, *operands)


def nested_reentrant(function, *operands):
    return reentrant(lambda *operands: reentrant(function, *operands) * 1, *operands)


@pytest.mark.parametrize("manner", [reentrant, not_reentrant, nested, nested_reentrant],
                         ids=lambda manner: manner.__name__)
@pytest.mark.parametrize("function", [by_own_function, by_a_block_without_gradients],
                         ids=lambda function: function.__name__)
def test_a_recomputation_is_forward_also_where_gradients_are_disabled(function, manner):
    gradients, told = [], []
    for way in (once, manner):
        x, w = normal(8, 8).requires_grad_(), normal(8, 8, seed=2).requires_grad_()
        with offload(Recorder(), "e4m3") as session:
            way(function, x, w).sum().backward()
        gradients.append((x.grad, w.grad))
        told.append({(row.role, row.formats) for row in session.report().rows})
    assert all(map(torch.equal, *gradients))
    assert told[0] == told[1]


def test_a_node_of_another_thread_does_not_get_a_strangers_note():
    stranger, weight = normal(10, 10, seed=4).requires_grad_(), normal(10, 10, seed=2)
    x, gradient, results = normal(10, 10).requires_grad_(), normal(10, 10, seed=3), []
    device, policy = Asking(x.detach(), weight), Witness()

    def in_new_thread(work):  # where sequence numbers begin with 0
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    def work():
        kept = [normal(10, 10, seed=5) @ stranger for _ in range(3)]
        in_new_thread(lambda: results.append(x @ weight.requires_grad_()))
        assert {y.grad_fn._sequence_nr() for y in kept} == {0, 1, 2}
        assert results[0].grad_fn._sequence_nr() == 0
        del device.asked[:], policy.told[:]
        results[0].backward(gradient)

    with offload(device, policy):
        in_new_thread(work)
    assert assert_gradients_found(device, policy.told, gradient) == 2


def test_a_batched_product_with_views_of_one_tensor():
    packed = normal(2, 4, 12).requires_grad_()
    q, k, v = packed.chunk(3, -1)
    policy = Witness()
    with offload(Recorder(), policy):
        ((q @ k.mT) @ v).sum().backward()
    forward, backward = policy.told[:2], policy.told[2:]
    assert [context.role for context in forward] == ["forward"] * 2
    assert sorted((context.role, context.gradient) for context in backward) == [
        ("data-gradient", (True, False)), ("data-gradient", (True, False)),
        ("weight-gradient", (False, True)), ("weight-gradient", (False, True))]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out((q @ k.mT).softmax(-1) @ v)


def test_a_training_step_of_attention_has_its_layers_and_roles():
    model = nn.Sequential(nn.Linear(5, 8), Attention(), nn.Flatten(), nn.Linear(32, 3))
    with offload(Recorder(), "e4m3") as session:
        nn.functional.cross_entropy(model(normal(2, 4, 5)), torch.tensor([0, 2])).backward()
    rows = session.report().rows
    assert {(row.layer, row.role): row.formats for row in rows if row.op == "gemm"} == {
        **{(layer, "forward"): "e4m3 × e4m3" for layer in ("0", "1", "1.qkv", "1.out", "3")},
        **{(layer, "data-gradient"): "e5m2 × e4m3" for layer in ("1", "1.qkv", "1.out", "3")},
        **{(layer, "weight-gradient"): "e5m2 × e4m3" for layer in ("0", "1.qkv", "1.out", "3")},
        ("1", "weight-gradient"): "e4m3 × e5m2"}
    assert sum(row.calls for row in rows if row.op == "gemm") == 4 + 3 + 4 + 3 * 2
    assert sorted((row.op, row.layer, row.calls) for row in rows if row.op != "gemm") == [
        ("log_softmax", "", 1), ("log_softmax_backward", "", 1),
        ("softmax", "1", 1), ("softmax_backward", "1", 1)]
    assert session.report().fallbacks == ()


def test_shared_layers_and_inputs_keep_their_names():
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = model

        def forward(self, x):
            return self.parts["a"](x) + self.parts["b"](x) + x @ x.mT

    x = normal(4, 4).requires_grad_()
    policy = Witness()
    with offload(Recorder(), policy):
        Both()(x).sum().backward()
    assert sorted(policy.roles) == sorted(
        [(layer, role) for layer in ("parts.a", "parts.b")
         for role in ("forward", "data-gradient", "weight-gradient")]
        + [("Both", "forward"), ("Both", "data-gradient"), ("Both", "data-gradient")])


def test_a_second_network_is_told_from_the_first():
    first, second = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))
    policy = Witness()
    with offload(Recorder(), policy):
        second(first(torch.ones(1, 2)))
        torch.eye(2) @ torch.eye(2)
    assert [context.layer for context in policy.told] == ["0", "Sequential.0", ""]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_network_is_offloaded_with_the_same_gradients(backend):
    model, x = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)), normal(3, 4)
    gradients, counts = [], []
    for compiled in (False, True):
        if compiled:
            model.compile(backend=backend)
        model.zero_grad()
        with offload(Recorder(), "e4m3") as session:
            model(x).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
        counts.append(sorted((row.role, row.formats) for row in session.report().rows))
    assert all(map(torch.equal, *gradients))
    assert counts[0] == counts[1]


def test_the_layer_is_left_when_its_forward_raises():
    class Broken(nn.Module):
        def forward(self, x):
            raise KeyError("of the user")

    policy = Witness()
    with offload(Recorder(), policy):
        with pytest.raises(KeyError):
            Broken()(torch.ones(1))
        torch.eye(2) @ torch.eye(2)
    assert [context.layer for context in policy.told] == [""]


def test_backward_knows_its_roles_when_forward_was_not_offloaded():
    weight = torch.ones(40000, 2, requires_grad=True)
    x = torch.ones(3, 40000, requires_grad=True)
    policy = Witness()
    with offload(Recorder(), policy) as session:
        (x @ weight).sum().backward()
    assert [row.calls for row in session.report().fallbacks] == [1]
    assert sorted(policy.roles) == [("", "data-gradient"), ("", "weight-gradient")]


def test_a_role_mapping_reaches_each_role():
    layer, x = nn.Linear(3, 2, bias=False), normal(4, 3).requires_grad_()
    device = Recorder()
    with offload(device, {"forward": "bf16", "data-gradient": "e5m2", "weight-gradient": "fp16"}):
        layer(x).sum().backward()
    assert sorted(asked.formats for asked in device.asked) == [
        ("bf16", "bf16"), ("e5m2", "bf16"), ("fp16", "bf16")]


def test_notes_of_forward_passes_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(roles, "MOST_NOTES", 8)
    weight = torch.ones(2, 2, requires_grad=True)
    with offload(Recorder(), "fp32") as session:
        for _ in range(20):
            torch.ones(2, 2) @ weight
        assert len(session._roles._notes()) == 8


MUTANTS = {
    "data-gradients are taken for weight-gradients": (
        roles, "_by_note", lambda real: lambda product, note: ("weight-gradient",
                                                               real(product, note)[1])),
    "the other operand is the gradient": (
        roles, "_by_note", lambda real: lambda product, note: (
            real(product, note)[0], real(product, note)[1][::-1])),
    "column-major operands are not noticed": (
        roles._Operand, "columns", lambda real: property(lambda _: False, lambda *_: None)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(monkeypatch, name):
    owner, attribute, mutate = MUTANTS[name]
    monkeypatch.setattr(owner, attribute, mutate(getattr(owner, attribute)))
    with pytest.raises(AssertionError):
        test_the_gradient_is_found_when_saved_tensors_are_moved("rows", "columns")
