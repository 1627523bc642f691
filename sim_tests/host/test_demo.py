"""The demo in a few steps: what it writes, counts, judges and says."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from exactum.gen.config import load
from exactum.gen.errors import ToolMissing, UsageError
from exactum.gen.manifest import read_manifest
from exactum.host.demo import main, text
from exactum.host.demo.digits import digits_task
from exactum.host.demo.figures import smoothed
from exactum.host.demo.goals import judge
from exactum.host.demo.progress import Steps
from exactum.host.demo.text import text_task
from exactum.host.demo.training import CrossEntropy, Training, train
from exactum.host.offloading import Fallback, Report, Row

# Products, softmaxes and softmax backwards of one training step, and of one evaluated batch.
STEP = {"digits": {"gemm": 3 + 5, "softmax": 1, "softmax_backward": 1},
        "text": {"gemm": 13 + 26, "softmax": 3, "softmax_backward": 3}}
TEST = {"digits": {"gemm": 7 * 3}, "text": {"gemm": 8 * 13, "softmax": 8 * 3}}
STEPS = {"digits": 8, "text": 4}


def without_times(value):
    """The results without what a clock measured."""
    if isinstance(value, dict):
        return {name: without_times(v) for name, v in value.items() if name != "seconds"}
    return [without_times(v) for v in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A quick run with everything in it: its exit code, folder, and results."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    code = main.run(folder, quick=True, quiet=True)
    return SimpleNamespace(code=code, folder=folder,
                           results=json.loads((folder / "results.json").read_text("utf-8")))


@pytest.fixture
def no_verilog(monkeypatch):
    """For runs whose Verilog does not matter."""
    monkeypatch.setattr(main, "generate", lambda *_: SimpleNamespace(manifest={"units": []}))


def test_reaches_its_goals(demo):
    assert demo.code == 0
    assert demo.results["passed"]
    assert all(goal["reached"] for goal in demo.results["goals"])


def test_writes_the_verilog_of_what_was_emulated(demo):
    hardware = demo.folder / "hardware"
    assert read_manifest(hardware)["configuration"]["hash"] == load("small").hash
    assert "module exactum_engine" in (hardware / "rtl/exactum_engine.v").read_text("utf-8")


def test_writes_one_page_that_needs_nothing_else(demo):
    page = (demo.folder / "report.html").read_text("utf-8")
    for heading in ("Handwritten digits: loss", "sources: loss", "Density and cycles saved",
                    "Zeros skipped per layer", "Cycles and time per operation",
                    "Not offloaded, and why"):
        assert heading in page
    assert page.count("<svg") == 5
    assert not re.search(r"src=|<link|@import|url\((?!#)|href=\"(?!#)", page)
    assert not list(demo.folder.glob(".*")), "nothing half-written stays behind"


@pytest.mark.parametrize(("place", "name"), list(enumerate(STEP)))
def test_every_product_and_softmax_of_the_step_is_offloaded(demo, place, name):
    device = demo.results["tasks"][place]["device"]
    assert device["fallbacks"] == []
    for op in ("gemm", "softmax", "softmax_backward"):
        calls = sum(row["calls"] for row in device["rows"] if row["op"] == op)
        assert calls == STEPS[name] * STEP[name][op] + TEST[name].get(op, 0), op


def test_gradients_are_e5m2_and_everything_else_e4m3(demo):
    for task in demo.results["tasks"]:
        for row in task["device"]["rows"]:
            if row["op"] == "gemm":
                kinds = set(row["formats"].split(" × "))
                assert kinds == ({"e4m3"} if row["role"] == "forward" else {"e4m3", "e5m2"})


def test_zeros_are_skipped(demo):
    for task in demo.results["tasks"]:
        totals = task["device"]["totals"]
        taken, skipped = totals["products"], totals["products_skipped"]
        assert skipped / (taken + skipped) > 0.1


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(demo, no_verilog, tmp_path,
                                                                    capsys):
    assert main.run(tmp_path, quick=True, json=True) == 0
    assert without_times(json.loads(capsys.readouterr().out)) == without_times(demo.results)
    first, other = (digits_task(seed=seed, steps=1).batches[0][0] for seed in (0, 1))
    assert not torch.equal(first, other)


def test_a_sum_too_long_for_the_engine_misses_the_goal(no_verilog, tmp_path, capsys):
    config = load("small", ["softmax.max_length=64", "vpcu.max_k=256", "vpcu.b_depth=256"])
    assert main.run(tmp_path, config=config, quick=True) == 1
    printed = capsys.readouterr().out
    # Gradients of nine weights, over 1024 characters, in four steps; the loss's rows go in blocks.
    assert "FAIL  text: every matrix product and softmax is offloaded: 272 offloaded, 36 not" \
        in printed
    assert "PASS  digits: every" in printed
    assert "K = 1024 exceeds" in (tmp_path / "report.html").read_text("utf-8")


def test_a_folder_of_somebody_else_stops_it_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(main, "train", None)
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware/thesis.tex").touch()
    with pytest.raises(UsageError, match="X111"):
        main.run(tmp_path, quick=True, quiet=True)


def comparison(name, accuracy=(98.5, 98.4), final=(2.0, 2.01), fallbacks=()):
    """A made-up outcome."""
    row = Row("gemm", "layer", "forward", "e4m3 × e4m3", (1, 1, 1), calls=1)
    report = Report((row,), tuple(fallbacks), "e4m3", "small", 100.0)
    results = [Training([loss] * 10, score, 1.0)
               for loss, score in zip(final, accuracy if name == "digits" else final, strict=True)]
    return main.Comparison(SimpleNamespace(name=name, facts={"unigram entropy": 3.08}), *results,
                           report)


@pytest.mark.parametrize(("digits", "prose", "missed"), [
    ({}, {}, []),
    ({"accuracy": (97.3, 96.9)}, {}, ["97 % accuracy"]),
    ({"accuracy": (98.6, 98.0)}, {}, ["0.5 points"]),
    ({"accuracy": (97.4, 98.0)}, {}, ["0.5 points"]),
    ({}, {"final": (2.0, 2.07)}, ["final loss within 3%", "held-out loss within 3%"]),
    ({}, {"final": (2.0, float("nan"))}, ["final loss within", "held-out loss within", "below"]),
    ({}, {"final": (3.0, 3.0)}, ["well below 3.08"]),
    ({"fallbacks": [Fallback("mm", "layer", "why", 1)]}, {}, ["digits: every"]),
])
def test_each_goal_is_missed_when_it_should_be(digits, prose, missed):
    goals = judge([comparison("digits", **digits), comparison("text", **prose)])
    texts = [goal.text for goal in goals if not goal.reached]
    assert len(texts) == len(missed)
    assert all(part in text for part, text in zip(missed, texts, strict=True))


def test_the_digits_that_test_are_never_trained_on():
    task = digits_task(seed=0, steps=0)
    assert task.facts["test images"] == 7 * 128
    assert task.facts["training images"] + task.facts["test images"] == 1797


def test_the_loss_is_cross_entropy():
    logits, target = torch.randn(5, 7, 10), torch.randint(10, (5, 7))
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
    torch.testing.assert_close(CrossEntropy()(logits, target), expected)


def test_training_leaves_the_global_generator_as_it_was():
    before = torch.get_rng_state()
    train(replace(digits_task(seed=0, steps=1), evaluate=lambda model: 0.0), seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_python_without_sources_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(text.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ToolMissing, match="only 0 of the"):
        text_task(seed=0, steps=1)


def test_smoothing_keeps_length_and_level():
    assert np.allclose(smoothed([2.0] * 37), 2.0)
    assert len(smoothed([1.0, 2.0])) == 2


def test_steps_are_numbered_and_timed(capsys):
    steps = Steps(2, Console(highlight=False))
    with steps.step("one") as step:
        step.advance(1, 2, 0.5)
        step.note = "accuracy 98.00 %"
    with pytest.raises(RuntimeError), steps.step("two"):
        raise RuntimeError
    assert capsys.readouterr().out.splitlines() == [
        "[1/2] one ... 0.0 s, accuracy 98.00 %", "[2/2] two ... failed"]


def test_the_default_folder_is_the_one_the_makefile_cleans():
    assert "exactum-demo" in Path(__file__).parents[2].joinpath("Makefile").read_text("utf-8")
