"""Attention on a device: the bits of its composition, float64's answer at a format's accuracy."""

import math

import pytest
import torch

from exactum.gen.config import preset
from exactum.gen.errors import UsageError
from exactum.hdl.formats import FORMATS
from exactum.host import attention as module
from exactum.host import open_device
from exactum.host.attention import scale_and_mask
from exactum.host.elementwise import elementwise_cycles
from exactum.host.log_softmax import softmax_and_log_sums
from exactum.host.numerics import to_bits
from sim_tests.host.recorder import normal, same_bits, scaled

INF = math.inf
LARGEST = {"e4m3": 448.0, "e5m2": 57344.0, "fp16": 65504.0}


@pytest.fixture
def device():
    return open_device()


def operands(batch, heads, groups, rows, keys, width, seed=1):
    """Queries, keys, values and a gradient of the output."""
    sizes = ((heads, rows), (groups, keys), (groups, keys), (heads, rows))
    return [normal(batch, count, length, width, seed=seed + place)
            for place, (count, length) in enumerate(sizes)]


def by_power(x, name, on):
    """A scaled operand and its power's exponent; wide formats are not scaled here."""
    return scaled(x, LARGEST[name]) if on and x.any() else (x, 0)


def by_parts(device, q, k, v, g, *, mask=None, causal=False, scale=None,
             formats=("fp32", "fp32"), gradients=("fp32", "fp32"), on=False, result="fp32"):
    """Output, logarithms and gradients, written out head by head with the device's operations."""
    (batch, heads, rows, width), (groups, keys) = q.shape, k.shape[1:3]
    factor = torch.tensor(1 / math.sqrt(width) if scale is None else scale)
    data, p_format = formats
    (q, q_shift), (k, k_shift), (v, v_shift) = (by_power(x, data, on) for x in (q, k, v))
    (left, left_shift), (right, right_shift) = (by_power(g, name, on) for name in gradients)
    shape = (batch, heads, rows, keys)
    mask = None if mask is None else mask.expand(shape)
    p, ds, out, sums = torch.empty(shape), torch.empty(shape), torch.empty(g.shape), []
    for n in range(batch):
        for head in range(heads):
            group = head // (heads // groups)
            x = device.gemm(q[n, head], k[n, group].T, (data, data),
                            exponent=-q_shift - k_shift) * factor
            if causal:
                x[torch.arange(keys) > torch.arange(rows)[:, None]] = -INF
            if mask is not None and mask.dtype == torch.bool:
                x[~mask[n, head]] = -INF
            elif mask is not None:
                x = x + mask[n, head]
            p[n, head] = device.softmax(x, p_format).float()  # exactly
            sums.append(softmax_and_log_sums(x, "fp32", config=device.config)[1])
            masked = (x == -INF).all(-1)
            p[n, head][masked], sums[-1][masked] = 0, 0
            out[n, head] = device.gemm(p[n, head], v[n, group], (p_format, data), result,
                                       exponent=-v_shift).float()
            dp = device.gemm(left[n, head], v[n, group].T, (gradients[0], data),
                             exponent=-left_shift - v_shift)
            ds[n, head] = device.softmax_backward(p[n, head], dp) * factor
    dq, (dk, dv) = torch.empty(q.shape), (torch.empty(x.shape) for x in (k, v))
    (ds_left, s_left), (ds_right, s_right) = (by_power(ds, name, on) for name in gradients)
    for n in range(batch):
        for group in range(groups):
            own = slice(group * heads // groups, (group + 1) * heads // groups)
            for head in range(own.start, own.stop):
                dq[n, head] = device.gemm(ds_left[n, head], k[n, group], (gradients[0], data),
                                          result, exponent=-s_left - k_shift).float()
            # One sum over all queries of all heads of the group.
            dk[n, group] = device.gemm(ds_right[n, own].flatten(0, 1).T, q[n, own].flatten(0, 1),
                                       (gradients[1], data), result,
                                       exponent=-s_right - q_shift).float()
            dv[n, group] = device.gemm(p[n, own].flatten(0, 1).T, right[n, own].flatten(0, 1),
                                       (p_format, gradients[1]), result,
                                       exponent=-right_shift).float()
    return out, torch.stack(sums).view(shape[:3]), dq, dk, dv


MASKS = {
    "none": {},
    "causal": {"causal": True},
    "float": {"mask": normal(9, 13, seed=8)},
    "float, -Inf": {"mask": torch.where(normal(2, 1, 9, 13, seed=8) > -0.5, 0.0, -INF)},
    "bool": {"mask": normal(1, 2, 9, 13, seed=9) > 0},
    "bool, rows of nothing": {
        "mask": (normal(9, 13, seed=9) > 0) & (torch.arange(9) % 3 > 0)[:, None]},
    "bool and causal": {"mask": normal(13, seed=9) > 0, "causal": True},
    "float and causal": {"mask": normal(9, 1, seed=9), "causal": True, "scale": 0.3},
}
KINDS = {"fp32": ("fp32", "fp32"), "bf16": ("bf16", "bf16"), "e4m3": ("e4m3", "e4m3"),
         "e4m3, P fp16": ("e4m3", "fp16")}


def check_bits(device, shape, kind, masking, on=False, result="fp32"):
    q, k, v, g = operands(*shape)
    formats = KINDS[kind]
    gradients = ("e5m2", "e4m3") if on or kind == "e4m3" else formats
    wanted = by_parts(device, q, k, v, g, formats=formats, gradients=gradients, on=on,
                      result=result, **masking)
    found = (*device.attention(q, k, v, formats=formats, scaled=on, result=result, **masking),
             *device.attention_backward(g, q, k, v, formats=formats, gradients=gradients,
                                        scaled=on, scaled_gradients=(on, on), result=result,
                                        **masking))
    for one, other in zip(found, wanted, strict=True):
        assert one.is_contiguous()
        assert same_bits(one.float(), other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masking", MASKS)
def test_bits_are_those_of_the_composition(device, kind, masking):
    check_bits(device, (2, 2, 1, 9, 13, 5), kind, MASKS[masking])


@pytest.mark.parametrize("shape", [
    (1, 1, 1, 1, 1, 1), (1, 1, 1, 1, 7, 3), (1, 4, 2, 5, 1, 2), (2, 3, 3, 33, 17, 8)], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_bits_of_odd_sizes(device, shape, causal):
    check_bits(device, shape, "e4m3, P fp16", {"causal": causal}, on=True)


@pytest.mark.parametrize("result", ["bf16", "fp16"])
def test_results_are_rounded_once_to_their_format(device, result):
    check_bits(device, (1, 2, 1, 6, 5, 4), "bf16", {"causal": True}, result=result)


def test_layouts_are_read_and_operands_are_not_written(device):
    q, k, v, g = operands(2, 4, 2, 6, 7, 5)
    wanted = [*device.attention(q, k, v), *device.attention_backward(g, q, k, v)]
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v, g)]
    before = [x.clone() for x in turned]
    found = [*device.attention(*turned[:3]), *device.attention_backward(turned[3], *turned[:3])]
    assert all(map(same_bits, found, wanted))
    assert all(map(torch.equal, turned, before))


def unit(name):
    """Half an ulp of 1, and half the smallest subnormal, of a format."""
    fmt = FORMATS[name]
    return 2.0 ** -fmt.significand_width, 2.0 ** (fmt.min_exponent - fmt.mantissa_width - 1)


def bounds(q, k, v, g, formats, gradients, allowed, softmax=2.0 ** -13.9):
    """What roundings, each as large as it may be, make of output and gradients: first to last.

    Operands err by u of themselves, P by its scores' error in its exponents, softmax's own and u.
    Gaps under a format's smallest number (e) and fp32's roundings (2^-22 in all) are added.
    """
    (u, _), (u_p, e_p), (u_g, e_g) = map(unit, (*formats, gradients))
    fp32 = 2.0 ** -22
    factor = q.shape[-1] ** -0.5
    q, k, v, g = (x.double() for x in (q, k, v, g))
    x = (q @ k.mT * factor).masked_fill(~allowed, -INF)
    p, both = torch.softmax(x, -1), (1 + u) * (1 + u_g) - 1 + fp32
    x_error = (q.abs() @ k.abs().mT * factor * ((1 + u) ** 2 - 1 + fp32)).amax(-1, keepdim=True)
    p_error = p * (torch.exp(2 * x_error) * (1 + softmax) * (1 + u_p) - 1) + e_p * allowed
    out = p_error @ v.abs() * (1 + u) + p @ v.abs() * (u + fp32)
    dv = p_error.mT @ g.abs() * (1 + u_g) + p.mT @ g.abs() * (u_g + fp32)
    dp, dp_error = g @ v.mT, g.abs() @ v.abs().mT * both
    dot = (p * dp).sum(-1, keepdim=True)
    dot_error = (p_error * (dp.abs() + dp_error) + p * dp_error).sum(-1, keepdim=True)
    inner = (dp - dot).abs() + dp_error + dot_error
    ds = p * (dp - dot)
    ds_error = p_error * inner + p * (dp_error + dot_error) + fp32 * (p + p_error) * inner
    ds_error = ds_error * (1 + u_g) + ds.abs() * u_g + e_g
    dq = factor * (ds_error @ k.abs() * (1 + u) + ds.abs() @ k.abs() * (u + fp32))
    dk = factor * (ds_error.mT @ q.abs() * (1 + u) + ds.abs().mT @ q.abs() * (u + fp32))
    return out, dq, dk, dv


# Largest relative error of a whole tensor (Frobenius norm), in half ulps of the format (of 2^-14
# in fp32, whose softmax is the coarsest part).
NORMS = [("fp32", ("fp32", "fp32"), "fp32", 2.0 ** -14, 1.0),
         ("bf16", ("bf16", "bf16"), "bf16", 2.0 ** -8, 2.0),
         ("fp16", ("fp16", "fp16"), "fp16", 2.0 ** -11, 2.0),
         ("e4m3", ("e4m3", "fp16"), "e5m2", 2.0 ** -3, 1.0)]


@pytest.mark.parametrize(("formats", "gradients", "ulp", "most"), [case[1:] for case in NORMS],
                         ids=[case[0] for case in NORMS])
@pytest.mark.parametrize("causal", [False, True])
def test_output_and_gradients_are_right_at_the_formats_accuracy(device, formats, gradients, ulp,
                                                                most, causal):
    q, k, v, g = operands(2, 3, 3, 24, 24, 8, seed=20)
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    out = torch.nn.functional.scaled_dot_product_attention(*exact, is_causal=causal)
    out.backward(g.double())
    allowed = torch.ones(24, 24, dtype=torch.bool)
    allowed = allowed.tril() if causal else allowed
    on = gradients == "e5m2"
    found = (device.attention(q, k, v, causal=causal, formats=formats)[0],
             *device.attention_backward(g, q, k, v, causal=causal, formats=formats,
                                        gradients=(gradients, gradients),
                                        scaled_gradients=(on, on)))
    wanted = (out.detach(), *(x.grad for x in exact))
    for one, other, bound in zip(found, wanted, bounds(q, k, v, g, formats, gradients, allowed),
                                 strict=True):
        error = one.double() - other
        assert (error.abs() <= bound).all()
        assert error.norm() <= most * ulp * other.norm()


def test_logarithms_are_those_of_the_sums(device):
    q, k, v, _ = operands(2, 2, 2, 30, 40, 8)
    exact = torch.logsumexp(q.double() @ k.double().mT / math.sqrt(8), -1)
    found = device.attention(q, k, v, formats=("fp32", "fp32"))[1]
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() <= 2.0 ** -14.5 + 2.0 ** -21


@pytest.mark.parametrize("formats", KINDS.values(), ids=KINDS)
def test_a_row_of_which_everything_is_masked_gives_zeros(device, formats):
    q, k, v, g = operands(1, 2, 2, 4, 5, 3)
    for mask in (torch.tensor([True, False, True, False])[:, None],
                 torch.tensor([0.0, -INF, 0.0, -INF])[:, None]):
        out, sums = device.attention(q, k, v, mask=mask, formats=formats)
        assert (to_bits(out[:, :, 1::2]) == 0).all()
        assert (to_bits(sums[:, :, 1::2]) == 0).all()
        assert (out[:, :, ::2] != 0).all()
        dq, dk, dv = device.attention_backward(g, q, k, v, mask=mask, formats=formats)
        assert (dq[:, :, 1::2] == 0).all()
        assert dk.isfinite().all()
        assert dv.isfinite().all()


@pytest.mark.parametrize("mask", [None, torch.zeros(4, 4), torch.ones(4, 4, dtype=torch.bool)],
                         ids=["no mask", "float", "bool"])
def test_what_is_not_a_number_stays_where_causality_lets_it_be_seen(device, mask):
    q, k, v, _ = operands(1, 1, 1, 4, 4, 3)
    q[0, 0, 1, 0] = math.nan
    k[0, 0, 3, 1] = math.nan
    out, sums = device.attention(q, k, v, mask=mask, causal=True, formats=("bf16", "bf16"))
    assert out[0, 0].isnan().all(-1).tolist() == [False, True, False, True]
    assert out.isnan().any(-1).equal(sums.isnan())


@pytest.mark.parametrize("sizes", [(2, 0), (0, 3), (0, 0)], ids=["keys", "queries", "both"])
def test_without_queries_or_keys_there_is_nothing_to_see(device, sizes):
    q, k, v, g = operands(1, 4, 2, *sizes, 5)
    for mask in (None, torch.ones(1, 1, *sizes)):
        options = {"mask": mask, "causal": True, "scaled": True}
        out, sums = device.attention(q, k, v, **options)
        assert same_bits(out, torch.zeros(q.shape))
        assert same_bits(sums, torch.zeros(q.shape[:3]))
        for gradient, x in zip(device.attention_backward(g, q, k, v, scaled_gradients=(True, True),
                                                         **options), (q, k, v), strict=True):
            assert torch.equal(gradient, torch.zeros(x.shape))
    none = torch.empty(0, 2, 3, 4)
    assert device.attention(none, none, none, mask=torch.ones(0, 1, 1, 3))[0].shape == none.shape


def test_counters_are_those_of_the_parts():
    q, k, v, g = operands(2, 4, 2, 40, 40, 64)
    whole, parts = open_device(), open_device()
    whole.attention(q, k, v, causal=True, formats=("e4m3", "bf16"))
    left, right, values = (x.reshape(4, -1, 64) for x in (q, k, v))
    x = parts.gemm(left, right.mT).view(4, 2, 40, 40)
    allowed = torch.ones(40, 40, dtype=torch.bool).tril()
    p = torch.stack([parts.softmax(one, "bf16")            # of heads that share keys: one operation
                     for one in scale_and_mask(x, 64 ** -0.5, None, allowed)])
    parts.gemm(p.view(4, 80, 40), values, ("bf16", "e4m3"))
    cycles = 8 * elementwise_cycles(whole.config, 40, 40)
    sums = dict(parts.counters)
    assert dict(whole.counters) == sums | {
        "calls": 1, "cycles": sums["cycles"] + cycles,
        "cycles_dense": sums["cycles_dense"] + cycles}
    assert whole.counters["products_skipped"] >= 2 * 4 * 64 * 40 * 39 // 2    # of P @ V only
    before = dict(whole.counters)
    whole.attention_backward(g, q, k, v, causal=True, formats=("e4m3", "bf16"))
    back = {name: whole.counters[name] - before[name] for name in before}
    assert back["calls"] == 1
    assert back["products"] + back["products_skipped"] == 5 * 2 * 4 * 40 * 40 * 64
    assert back["products_skipped"] >= 3 * 2 * 4 * 64 * 40 * 39 // 2          # of dV, dQ and dK


@pytest.mark.parametrize("masking", MASKS)
def test_heads_that_are_not_held_at_once_change_no_bit_and_no_counter(monkeypatch, masking):
    q, k, v, g = operands(3, 2, 2, 9, 13, 5)
    options = {"formats": ("e4m3", "fp16"), "scaled": True, **MASKS[masking]}
    if masking == "float, -Inf":
        options["mask"] = torch.cat([options["mask"], options["mask"][:1] + 1])
    results, counters = [], []
    for held in (1 << 24, 250, 1):                         # all six groups, two, one
        monkeypatch.setattr(module, "_HELD", held)
        device = open_device()
        results.append((*device.attention(q, k, v, **options), *device.attention_backward(
            g, q, k, v, scaled_gradients=(True, True), **options)))
        counters.append(dict(device.counters))
    for other in results[1:]:
        assert all(map(same_bits, results[0], other))
    assert counters[0] == counters[1] == counters[2]


@pytest.mark.parametrize("formats", [("e4m3", "fp16"), ("bf16", "bf16")])
def test_a_context_of_16384_in_blocks_has_the_same_bits(formats):
    q, k, v, g = operands(1, 2, 1, 2, 16384, 8)
    mask = torch.arange(16384) % 17 > 0
    results, cycles = [], []
    for longest in (1024, 16384):
        device = open_device("emulator", preset("default").replace(
            {"softmax.max_length": longest}))
        assert device.config.vpcu.b_depth == 1024          # the products' sums go in pieces, too
        results.append((
            *device.attention(q, k, v, mask=mask, formats=formats, scaled=formats[0] == "e4m3"),
            *device.attention_backward(g, q, k, v, mask=mask, formats=formats,
                                       gradients=("bf16", "bf16"))))
        cycles.append(device.counters["cycles"])
    assert all(map(same_bits, *results))
    beats = 16384 // 8
    block = 1024 // 8
    assert cycles[0] - cycles[1] == 2 * (4 * 3 * beats + 2 * block - 6 * beats)
    exact = torch.nn.functional.scaled_dot_product_attention(
        q, *(x.expand(1, 2, -1, -1) for x in (k, v)), attn_mask=mask.expand(2, -1))
    if formats[0] == "bf16":
        assert (results[0][0] - exact).abs().max() <= 2.0 ** -11 * v.abs().mean()


@pytest.mark.parametrize(("change", "code", "says"), [
    ({"q": torch.ones(2, 3, 4)}, "X201", "q is [2, 3, 4], k is [1, 2, 5, 8]"),
    ({"q": torch.ones(1, 3, 4, 8)}, "X201", "G a divisor of H"),
    ({"q": torch.ones(1, 2, 4, 7)}, "X201", "q is [1, 2, 4, 7]"),
    ({"v": torch.ones(1, 2, 6, 8)}, "X201", "v is [1, 2, 6, 8]"),
    ({"mask": torch.ones(3, 5)}, "X201", "mask is [3, 5]; it is added to scores of [1, 2, 4, 5]"),
    ({"mask": torch.ones(4, 5).int()}, "X202", "mask is int32"),
    ({"mask": [1.0]}, "X202", "mask is a torch tensor; got list"),
    ({"k": None}, "X202", "k is a torch tensor; got NoneType"),
    ({"formats": ("e4m3", "e4m4")}, "X203", "e4m4"),
    ({"result": "fp8"}, "X203", "fp8"),
])
def test_what_cannot_be_served_is_said_in_a_sentence(device, change, code, says):
    arguments = {"q": torch.ones(1, 2, 4, 8), "k": torch.ones(1, 2, 5, 8),
                 "v": torch.ones(1, 2, 5, 8)} | change
    with pytest.raises(UsageError) as caught:
        device.attention(**arguments)
    assert caught.value.code == code
    assert says in str(caught.value)
    assert set(device.counters.values()) == {0}


def test_a_gradient_of_another_shape_and_a_format_that_is_not_there_are_refused():
    q = torch.ones(1, 1, 2, 3)
    tiny = open_device("emulator", "tiny")
    with pytest.raises(UsageError, match=r"X201.*g is \[1, 1, 2, 2\]"):
        tiny.attention_backward(q[..., :2], q, q, q, gradients=("e4m3", "e4m3"))
    with pytest.raises(UsageError, match=r"X205.*'fp16'"):
        tiny.attention(q, q, q, formats=("e4m3", "fp16"))
    with pytest.raises(UsageError, match=r"X205.*'e5m2'"):
        tiny.attention_backward(q, q, q, q)


MUTANTS = {
    "the mask comes before the scale": ("scale_and_mask", lambda real: lambda x, factor, *masks:
                                        real(real(x, 1.0, *masks), factor)),
    "a masked row is what softmax makes of it": ("from_bits", lambda real: lambda bits, name: real(
        bits, name).fill_(math.nan)),
    "heads take the groups in turn": ("_by_group", lambda real: lambda x, k: real(
        x.view(x.shape[0], -1, k.shape[1], *x.shape[2:]).transpose(1, 2).reshape(x.shape), k)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(device, monkeypatch, name):
    target, mutate = MUTANTS[name]
    mutant = mutate(getattr(module, target))
    monkeypatch.setattr(module, target, mutant)
    monkeypatch.setattr("exactum.host.device.scale_and_mask",
                        mutant if target == "scale_and_mask" else scale_and_mask)
    with pytest.raises(AssertionError):
        _check_some(device)


def _check_some(device):
    for masking in ("float and causal", "bool, rows of nothing"):
        check_bits(device, (1, 4, 2, 9, 13, 5), "fp32", MASKS[masking])
