"""Attention of PyTorch programs on a device: bits, strides, roles, and what falls back."""

import pytest
import torch
import torch._inductor.config
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from exactum.gen.config import preset
from exactum.host import offload, open_device
from exactum.host.offloading import Choice
from exactum.host.offloading.calls import Attention
from sim_tests.host.recorder import normal, same_bits

FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FP32 = {"formats": ("fp32", "fp32")}
E4M3 = {"formats": ("e4m3", "fp16"), "scaled": True}
E5M2_BACK = {"gradients": ("e5m2", "e5m2"), "scaled_gradients": (True, True)}


@pytest.fixture
def device():
    return open_device()


def operands(groups=4, rows=5, keys=7, dtype=torch.float32):
    sizes = (4, rows), (groups, keys), (groups, keys), (4, rows)
    return [normal(2, *size, 8, seed=seed).to(dtype) for seed, size in enumerate(sizes)]


def attend(q, k, v, **options):
    return scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1], **options)


def step(function, q, k, v, g, **options):
    """Output and gradients."""
    q, k, v = (x.clone().requires_grad_() for x in (q, k, v))
    out = function(q, k, v, **options)
    out.backward(g)
    return [x.detach() for x in (out, q.grad, k.grad, v.grad)]


def on_device(device, q, k, v, g, formats, back, **options):
    return [device.attention(q, k, v, **formats, **options)[0],
            *device.attention_backward(g, q, k, v, **formats, **back, **options)]


BOOL = normal(5, 7, seed=9) > 0
WAYS = {
    "plain": ({}, {}),
    "causal": ({"is_causal": True}, {"causal": True}),
    "scale": ({"scale": 0.3}, {"scale": 0.3}),
    "float mask": ({"attn_mask": normal(2, 4, 5, 7, seed=8)}, {"mask": normal(2, 4, 5, 7, seed=8)}),
    "bool mask": ({"attn_mask": BOOL}, {"mask": BOOL}),
}


@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("way", WAYS)
def test_offloaded_attention_has_the_device_bits_forward_and_backward(device, way, groups):
    told, asked = WAYS[way]
    q, k, v, g = operands(groups)
    with offload(device, "e4m3") as session:
        found = step(attend, q, k, v, g, **told)
    for one, other in zip(found, on_device(device, q, k, v, g, E4M3, E5M2_BACK, **asked),
                          strict=True):
        assert same_bits(one, other)
    report = session.report()
    assert sorted((row.op, row.role, row.formats, row.sizes, row.calls) for row in report.rows) == [
        ("attention", "forward", "e4m3, P fp16", (2, 4, 5, 7, 8), 1),
        ("attention_backward", "backward", "e5m2, e5m2", (2, 4, 5, 7, 8), 1)]
    assert report.fallbacks == ()
    products = {row.op: row.products + row.products_skipped for row in report.rows}
    each = 2 * 4 * 5 * 7 * 8
    assert products == {"attention": 2 * each, "attention_backward": 5 * each}
    assert all(row.cycles > 0 and row.cycles_dense > 0 for row in report.rows)


def written_out(q, k, v, mask):
    return torch.softmax((q @ k.mT) * 8 ** -0.5 + mask, -1) @ v


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16",
                                       {"forward": "bf16", "data-gradient": "fp16",
                                        "weight-gradient": "e5m2"}], ids=str)
def test_backward_is_autograds_of_the_same_attention_written_out(device, precision):
    q, k, v, g = operands()
    mask = torch.where(BOOL, normal(5, 7, seed=8), -torch.inf)
    results = []
    for function, told in ((attend, {"attn_mask": mask}), (written_out, {"mask": mask})):
        with offload(device, precision) as session:
            results.append(step(function, q, k, v, g, **told))
    assert session.report().total("calls") == 3 + 5        # each product and softmax by itself
    assert all(map(same_bits, *results))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tensors_give_results_rounded_once_to_their_dtype(device, dtype):
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    q, k, v, g = operands(dtype=dtype)
    mask = normal(5, 7, seed=8).to(dtype)
    with offload(device, name):
        found = step(attend, q, k, v, g, attn_mask=mask)
    back = {"gradients": (name, name), "scaled_gradients": (name == "fp16",) * 2}
    wanted = on_device(device, q, k, v, g, {"formats": (name, name), "result": name}, back,
                       mask=mask)
    assert all(map(same_bits, found, wanted))


LAYOUTS = {
    "contiguous": lambda x: x,
    "heads last": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "packed": lambda x: torch.cat([x, x, x], -1).chunk(3, -1)[1],
    "packed, heads last": lambda x: torch.cat([x, x], -1).transpose(1, 2).contiguous().chunk(
        2, -1)[1].transpose(1, 2),
    "columns": lambda x: x.mT.contiguous().mT,
    "expanded": lambda x: x[:1].expand(2, -1, -1, -1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("groups", [4, 2])
def test_strides_are_those_that_compilers_are_told(device, layout, groups):
    q, k, v, g = (LAYOUTS[layout](x) for x in operands(groups))
    with offload(device, "fp32"):
        out, sums = FLASH(q, k, v)
        gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            g, q, k, v, out, sums, 0.0, False)
    meta = [x.to("meta").as_strided(x.shape, x.stride()) for x in (q, k, v)]
    expected = FLASH(*meta)
    assert [x.stride() for x in (out, sums)] == [x.stride() for x in expected]
    assert [x.shape for x in (out, sums)] == [x.shape for x in expected]
    expected = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        g.to("meta"), *meta, *expected, 0.0, False)
    assert [x.stride() for x in gradients] == [x.stride() for x in expected]
    assert sums.dtype == torch.float32
    assert same_bits(out.contiguous(), device.attention(q, k, v, **FP32)[0])


def test_either_direction_may_be_pytorchs(device):
    """The logarithms are right: PyTorch's backward takes them, and ours takes PyTorch's output."""
    q, k, v, g = operands(2)
    mask = torch.where(torch.arange(5)[:, None] == 2, -torch.inf, normal(5, 7, seed=8))
    exact = step(attend, *(x.double() for x in (q, k, v, g)), attn_mask=mask.double())
    for kept in ("attention", "attention_backward"):
        # Backward asks for the forward's formats first; only the pass named is kept.
        direction = "forward" if kept == "attention" else "backward"
        backward = []

        def policy(context, kept=kept, direction=direction, backward=backward):
            if context.op == kept and context.role == direction and not backward:
                backward.append(context)
                return None
            return "fp32"

        with offload(device, policy) as session:
            found = step(attend, q, k, v, g, attn_mask=mask)
        assert [(row.reason, row.products is not None) for row in session.report().fallbacks] == [
            ("the policy keeps it in PyTorch", True)]
        assert len(session.report().rows) == 1
        for one, other in zip(found, exact, strict=True):
            assert (one - other).abs().max() <= 2.0 ** -13 * other.abs().max()


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("way", ["causal", "bool mask"])
def test_compiled_code_has_the_same_bits(device, groups, way):
    check_compiled(device, "aot_eager", groups, way)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_inductors_code_has_the_same_bits(device, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    # Neither processes that are kept, nor a trial of what the processor's vectors can do.
    with torch._inductor.config.patch({"compile_threads": 1, "cpp.vec_isa_ok": True}):
        check_compiled(device, "inductor", 2, "causal")


def check_compiled(device, backend, groups, way):
    told, _ = WAYS[way]
    q, k, v, g = (LAYOUTS["heads last"](x) for x in operands(groups))

    def function(q, k, v):
        return attend(q, k, v, **told).transpose(1, 2).view(2, 5, 32)  # of those strides only

    g = g.transpose(1, 2).view(2, 5, 32)
    with offload(device, "e4m3"):
        plain = step(function, q, k, v, g)
    torch._dynamo.reset()
    with offload(device, "e4m3") as session:
        found = step(torch.compile(function, backend=backend), q, k, v, g)
    assert all(map(same_bits, found, plain))
    assert [row.op for row in session.report().rows] == ["attention_backward", "attention"]
    assert session.report().fallbacks == ()


def test_inference_and_checkpoints_are_offloaded_alike(device):
    q, k, v, g = operands()
    with offload(device, "e4m3") as session:
        with torch.inference_mode():
            first = attend(q, k, v)
        plain = step(attend, q, k, v, g)
        for reentrant in (False, True):
            def again(*tensors, reentrant=reentrant):
                return checkpoint(attend, *tensors, use_reentrant=reentrant)

            assert all(map(same_bits, step(again, q, k, v, g), plain))
    assert torch.equal(first, plain[0])
    assert {(row.op, row.role, row.calls) for row in session.report().rows} == {
        ("attention", "forward", 6), ("attention_backward", "backward", 3)}


@pytest.mark.parametrize(("layout", "name"), [(True, "e4m3"), (False, "bf16")])
def test_a_step_without_gradients_of_some_operand(device, layout, name):
    q, k, v, g = operands(2)
    q = q.requires_grad_(layout)
    v = v.requires_grad_(not layout)
    with offload(device, name) as session:
        attend(q, k, v).backward(g)
    assert (q.grad is None) != layout
    assert k.grad is None
    assert session.report().total("calls") == 2


def test_the_math_backend_is_offloaded_by_its_parts(device):
    q, k, v, g = operands(2)
    with offload(device, "e4m3") as session, sdpa_kernel(SDPBackend.MATH):
        step(attend, q, k, v, g)
    assert {row.op: row.calls for row in session.report().rows if row.op != "gemm"} == {
        "softmax": 1, "softmax_backward": 1}
    assert sum(row.calls for row in session.report().rows if row.op == "gemm") == 6
    assert session.report().fallbacks == ()


@pytest.mark.parametrize("options", [
    {"dropout_p": 0.5}, {"attn_mask": normal(5, 7).requires_grad_()},
    {"attn_mask": normal(4, 5, 7)}],
    ids=["dropout", "mask with a gradient", "mask of three dimensions"])
def test_what_pytorch_does_by_parts_is_offloaded_by_parts(device, options):
    q, k, v, g = operands()
    with offload(device, "e4m3") as session:
        step(attend, q, k, v, g, **options)
    assert {row.op for row in session.report().rows} == {"gemm", "softmax", "softmax_backward"}
    assert session.report().fallbacks == ()


Q = torch.ones(2, 4, 5, 8)


@pytest.mark.parametrize(("change", "reason"), [
    ({"dropout": 0.5}, "attention with dropout"),
    ({"q": Q.double()}, "dtype float64"),
    ({"v": Q.bfloat16()}, "operands of different dtypes"),
    ({"mask": torch.ones(5, 5).bool()}, "mask of dtype bool"),
    ({"mask": torch.ones(5, 5).half()}, "mask of dtype float16"),
    ({"mask": torch.ones(5, 4)}, "shapes that do not fit"),
    ({"k": torch.ones(2, 3, 5, 8), "v": torch.ones(2, 3, 5, 8)}, "shapes that do not fit"),
    ({"v": torch.ones(2, 4, 5, 7)}, "shapes that do not fit"),
    ({"q": Q[0]}, "shapes that do not fit"),
    ({"q": Q[:, :, :0]}, "empty operand"),
    ({}, None)])
def test_what_no_device_serves(change, reason):
    call = Attention(Q, Q, Q, 0.0, False, None, None)._replace(**change)
    assert call.misfit() == reason


def test_what_pytorchs_kernel_refuses_it_refuses(device):
    with offload(device) as session:
        with pytest.raises(RuntimeError, match="dropout"):
            FLASH(Q, Q, Q, 0.5)
        with pytest.raises(RuntimeError, match="mask"):
            FLASH(Q, Q, Q, attn_mask=torch.ones(5, 5).bool())
    assert session.report().rows == session.report().fallbacks == ()


SHORT = preset("default").replace({"vpcu.max_k": 64, "vpcu.b_depth": 64})


@pytest.mark.parametrize(("config", "keys", "reasons"), [
    (SHORT, 81, ["K = 81 exceeds the device's 64"] * 2),
    (SHORT, 64, ["K = 80 exceeds the device's 64"]),     # over the queries of a group of heads
    (preset("tiny"), 7, ["the device has no bf16"] * 2),
], ids=["keys", "queries of a group", "format"])
def test_what_this_device_does_not_serve_is_counted_and_right(config, keys, reasons):
    q, k, v, g = operands(1, rows=20, keys=keys)
    plain = step(attend, q, k, v, g)
    with offload(open_device("emulator", config), lambda context: "bf16") as session:
        found = step(attend, q, k, v, g)
    report = session.report()
    assert [row.reason for row in report.fallbacks] == reasons
    assert len(report.rows) + len(report.fallbacks) == 2
    products = 2 * 4 * 20 * keys * 8
    assert sum(row.products for row in report.fallbacks) == (7 if len(reasons) == 2 else 5) \
        * products
    for one, other in zip(found, plain, strict=True):
        assert (one - other).norm() <= 2.0 ** -6 * other.norm()


def test_a_policy_is_asked_by_backward_for_both_passes(device):
    q, k, v, g = operands()
    told = []

    def policy(context):
        told.append(context)
        return Choice(("bf16", "e5m2")) if context.op == "attention" \
            else Choice(("fp16", "fp32"), (True, False))

    with offload(device, policy) as session:
        found = step(attend, q, k, v, g)
    sizes = (2, 4, 5, 7, 8)
    assert [(c.op, c.role, c.sizes, c.gradient) for c in told] == [
        ("attention", "forward", sizes, (False, False)),
        ("attention", "forward", sizes, (False, False)),
        ("attention_backward", "backward", sizes, (True, False))]
    wanted = on_device(device, q, k, v, g, {"formats": ("bf16", "e5m2")},
                       {"gradients": ("fp16", "fp32"), "scaled_gradients": (True, False)})
    assert all(map(same_bits, found, wanted))
    assert sorted(row.formats for row in session.report().rows) == ["bf16, P e5m2", "fp16, fp32"]


class Block(nn.Module):
    """A causal language model of one block, its attention grouped."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 32)
        self.qkv, self.out, self.head = nn.Linear(32, 64), nn.Linear(32, 32), nn.Linear(32, 11)

    def forward(self, tokens):
        x = self.embedding(tokens)
        q, k, v = self.qkv(x).split((32, 16, 16), -1)
        q, k, v = (t.unflatten(-1, (-1, 8)).transpose(1, 2) for t in (q, k, v))
        y = attend(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)
        return self.head(x + self.out(y))


def test_a_training_loop_is_offloaded_whole_and_learns(device):
    torch.manual_seed(0)
    model, tokens = Block(), torch.arange(8 * 17).mul(7).remainder(11).view(8, 17)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.03), []
    with offload(device, "e4m3") as session:
        for _ in range(15):
            logits = model(tokens[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    report = session.report()
    assert report.fallbacks == ()
    assert report.offloaded_share == 1
    counts = {}
    for row in report.rows:
        counts[row.op, row.layer] = counts.get((row.op, row.layer), 0) + row.calls
    assert counts == {
        **{("gemm", layer): 45 for layer in ("qkv", "out", "head")},
        ("attention", "Block"): 15, ("attention_backward", "Block"): 15,
        ("log_softmax", ""): 15, ("log_softmax_backward", ""): 15}
    assert losses[-1] < 0.2 < 2 < losses[0]


def test_an_encoder_layer_in_training_is_offloaded_whole(device, tmp_path):
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    with offload(device, "e4m3") as session:
        layer(normal(2, 6, 16)).sum().backward()
    assert session.report().fallbacks == ()
    assert {row.op for row in session.report().rows} == {"gemm", "attention", "attention_backward"}
    assert {row.layer for row in session.report().rows if row.op != "gemm"} == {"self_attn"}
    text = str(session.report())
    assert "attention backward" in text
    assert "2 × 2 × 6 × 6 × 8" in text
    page = session.report().save(tmp_path / "x.html").read_text("utf-8")
    assert "self_attn  attention backward" in page
