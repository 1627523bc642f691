"""Every example runs and says what its readers are told to expect."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run_example(monkeypatch, capsys):
    """Run an example as a program, in this process; returns what it printed."""
    threads = torch.get_num_threads()

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with torch.random.fork_rng(devices=[]):
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    yield run
    torch.set_num_threads(threads)


def test_the_matrix_product_shows_skipped_zeros_and_identical_bits(run_example):
    printed = run_example("gemm.py")
    assert len([line for line in printed.splitlines() if " x " in line]) == 5
    assert "shuffled along K: the same bits" in printed


def test_the_softmax_names_its_error_in_each_format(run_example):
    printed = run_example("softmax.py")
    assert [line.partition(":")[0] for line in printed.splitlines()] == [
        "fp32", "fp16", "bf16", "shuffled rows"]


def test_the_attention_names_its_error_in_each_precision(run_example):
    printed = run_example("attention.py")
    assert [line.partition(":")[0] for line in printed.splitlines()] == [
        "fp32", "bf16", "e4m3", "later keys changed"]


def test_the_training_loop_learns_and_saves_its_report(run_example, tmp_path):
    report = tmp_path / "report.html"
    printed = run_example("train_digits.py", "6", str(report))
    accuracy = float(printed.partition("test accuracy, offloaded: ")[2].partition("%")[0])
    assert accuracy > 85
    assert "weight gradient" in printed
    assert "log softmax backward" in printed
    assert "Everything that matched was offloaded." in printed
    assert report.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_no_example_is_left_out():
    tested = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{file.name}"' in tested for file in EXAMPLES.glob("*.py"))
