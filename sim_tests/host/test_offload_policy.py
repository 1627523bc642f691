"""Policies: what a precision stands for, what a policy is told, and the scale."""

import re
import runpy
from pathlib import Path

import pytest
import torch

from exactum.gen.errors import UsageError
from exactum.hdl.formats import FORMATS
from exactum.host import offload, open_device, quantize
from exactum.host.numerics import max_finite
from exactum.host.offloading import Choice, OpContext, RolePolicy
from exactum.host.offloading.ops import WATCHED
from exactum.host.offloading.policy import policy_from
from exactum.host.scaling import scale_exponent
from sim_tests.host.recorder import Recorder, scaled

ALL = tuple(FORMATS)
GRADIENT_LEFT = OpContext("gemm", "layer", "data-gradient", (1, 2, 3), (True, False))
FORWARD = OpContext("gemm", "layer", "forward", (1, 2, 3))


@pytest.mark.parametrize(("precision", "forward", "backward"), [
    ("e4m3", Choice(("e4m3", "e4m3"), (True, True)), Choice(("e5m2", "e4m3"), (True, True))),
    ("e5m2", Choice(("e5m2", "e5m2"), (True, True)), Choice(("e5m2", "e5m2"), (True, True))),
    ("fp16", Choice(("fp16", "fp16")), Choice(("fp16", "fp16"), (True, False))),
    ("bf16", Choice(("bf16", "bf16")), Choice(("bf16", "bf16"))),
    ("fp32", Choice(("fp32", "fp32")), Choice(("fp32", "fp32"))),
    ({"forward": "bf16", "data-gradient": "fp16"}, Choice(("bf16", "bf16")),
     Choice(("fp16", "bf16"), (True, False))),
    ({"forward": "e4m3", "weight-gradient": "fp32"}, Choice(("e4m3", "e4m3"), (True, True)),
     Choice(("e4m3", "e4m3"), (True, True))),
])
def test_precisions(precision, forward, backward):
    policy = policy_from(precision, ALL)
    assert policy(FORWARD) == forward
    assert policy(GRADIENT_LEFT) == backward


def test_e4m3_alone_serves_gradients_where_the_device_has_no_e5m2():
    assert policy_from("e4m3", ["e4m3"])(GRADIENT_LEFT).formats == ("e4m3", "e4m3")


@pytest.mark.parametrize(("precision", "format_name"), [
    ("e4m3", "fp32"), ("e5m2", "fp32"), ("bf16", "bf16"), ("fp16", "fp16"), ("fp32", "fp32")])
def test_probabilities_are_wide(precision, format_name):
    context = OpContext("softmax", "", "forward", (1, 2))
    assert policy_from(precision, ALL)(context).formats == (format_name, format_name)


@pytest.mark.parametrize("precision", [*ALL, {"forward": "bf16", "backward": "e5m2"}])
def test_log_probabilities_are_never_rounded(precision):
    for op, role in (("log_softmax", "forward"), ("log_softmax_backward", "backward")):
        choice = policy_from(precision, ALL)(OpContext(op, "", role, (1, 2)))
        assert choice.formats == ("fp32", "fp32")


@pytest.mark.parametrize(("precision", "forward", "backward"), [
    ("e4m3", Choice(("e4m3", "fp16"), (True, False)), Choice(("e5m2", "e5m2"), (True, True))),
    ("e5m2", Choice(("e5m2", "fp16"), (True, False)), Choice(("e5m2", "e5m2"), (True, True))),
    ("fp16", Choice(("fp16", "fp16")), Choice(("fp16", "fp16"), (True, True))),
    ("bf16", Choice(("bf16", "bf16")), Choice(("bf16", "bf16"))),
    ({"forward": "bf16", "data-gradient": "fp16", "weight-gradient": "fp32"},
     Choice(("bf16", "bf16")), Choice(("fp16", "fp32"), (True, False))),
])
def test_precisions_of_an_attention(precision, forward, backward):
    policy, sizes = policy_from(precision, ALL), (1, 2, 3, 4, 5)
    assert policy(OpContext("attention", "", "forward", sizes)) == forward
    assert policy(OpContext("attention_backward", "", "backward", sizes, (True, False))) == backward


def test_probabilities_of_an_attention_are_narrow_where_the_device_has_nothing_else():
    for available, p in ((["e4m3"], "e4m3"), (["e4m3", "bf16"], "bf16"), (ALL, "fp16")):
        policy = policy_from("e4m3", available)
        assert policy(OpContext("attention", "", "forward", (1, 2, 3, 4, 5))).formats \
            == ("e4m3", p)


@pytest.mark.parametrize("precision", [
    "e4m4", "", 8, None, {}, {"forward": "fp8"}, {"backward": "e4m3"},
    {"forward": "e4m3", "weights": "e4m3"}, ["e4m3"]])
def test_unknown_precisions_are_refused_with_what_is_allowed(precision):
    with pytest.raises(UsageError, match=r"X209.*e4m3, e5m2, fp16, bf16, fp32"):
        policy_from(precision, ALL)


def test_a_misspelling_is_met_with_the_nearest_name():
    with pytest.raises(UsageError, match="did you mean `bf16`"):
        policy_from("bf61", ALL)


def test_a_format_that_the_device_lacks_is_refused():
    with pytest.raises(UsageError, match=r"X205.*e4m3, bf16; the precision asks for fp16"):
        policy_from({"forward": "e4m3", "backward": "fp16"}, ["e4m3", "bf16"])


def test_a_users_policy_chooses_for_each_operation():
    told = []

    def policy(context):
        told.append(context)
        if context.op == "softmax":
            return None
        if context.role == "weight-gradient":
            return Choice(("fp16", "e5m2"), (False, True))
        return "bf16"

    device, layer = Recorder(), torch.nn.Linear(3, 2, bias=False)
    with offload(device, policy) as session:
        layer(torch.ones(4, 3)).softmax(-1).sum().backward()
    assert [asked.formats for asked in device.asked] == [("bf16", "bf16"), ("fp16", "e5m2")]
    assert told[0] == OpContext("gemm", "Linear", "forward", (4, 3, 2), (False, False))
    assert [row.reason for row in session.report().fallbacks] == ["the policy keeps it in PyTorch"]


def test_a_policy_that_chooses_nonsense_is_told():
    with offload(open_device("emulator"), lambda context: "fp8"), \
            pytest.raises(UsageError, match=r"X203.*the policy chose 'fp8'"):
        torch.ones(2, 2) @ torch.ones(2, 2)


@pytest.mark.parametrize("name", FORMATS)
def test_the_scale_brings_the_largest_just_under_the_formats(name):
    largest = max_finite(FORMATS[name])
    for value in (1.0, -1.75, 1.7500001, 1.99, 3e-39, 2.0 ** -149, 3.4e38, 448.0, 449.0, 65504.0,
                  65520.0):
        x = torch.tensor([0.0, value])
        shift = scale_exponent(x, name)
        magnitude = abs(float(x[1]))
        assert magnitude * 2.0 ** shift <= largest < magnitude * 2.0 ** (shift + 1)
        assert shift == scaled(x, largest)[1]


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_a_scaled_tensor_never_saturates(name):
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 1e-7
    shift = scale_exponent(x, name)
    assert torch.equal(quantize(x * 2.0 ** shift, name, "overflow").float(),
                       quantize(x * 2.0 ** shift, name, "saturate").float())


@pytest.mark.parametrize(("values", "shift"), [
    ([0.0, -0.0], 0), ([torch.nan, 2.0], 7), ([torch.inf, -2.0, torch.nan], 7),
    ([torch.inf, torch.nan], 0)])
def test_the_scale_looks_at_finite_values_only(values, shift):
    assert scale_exponent(torch.tensor(values), "e4m3") == shift


def test_roles_are_spelt_out():
    assert str(RolePolicy({"forward": "e4m3", "backward": "e5m2"})) == "e4m3, backward e5m2"


GUIDE = Path(__file__).parents[2] / "docs" / "offload.md"
PRELUDE = """
import torch
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
batches = [(torch.ones(3, 4), torch.zeros(3, 2))] * 2
loss_function = torch.nn.functional.mse_loss
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""
EPILOGUE = """
with offload(device, policy) as session:
    loss_function(model(batches[0][0]), batches[0][1]).backward()
formats = {(row.role, row.formats) for row in session.report().rows}
"""


def test_the_guides_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    script = tmp_path / "guide.py"
    script.write_text("\n".join([PRELUDE, *blocks, EPILOGUE]), encoding="utf-8")
    found = runpy.run_path(str(script))
    assert (tmp_path / "report.html").exists()
    assert "gemm, weight gradient" in capsys.readouterr().out
    assert ("weight-gradient", "e5m2 × e4m3") in found["formats"]


def test_the_guide_gives_every_reason():
    text = GUIDE.read_text(encoding="utf-8")
    for watched in WATCHED.values():
        assert watched.reason.partition(";")[0] in text
