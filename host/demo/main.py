"""The demo: two networks trained in fp32 and offloaded, their hardware, and a report."""

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ...gen.config import Configuration, load
from ...gen.generate import generate
from ..device import open_device
from ..offloading import Report, offload
from .digits import digits_task
from .figures import loss_figure
from .goals import Goal, judge
from .progress import Step, Steps
from .tables import show
from .text import text_task
from .training import Task, Training, train

__all__ = ["Comparison", "run"]

_STEPS = {"digits": 1000, "text": 400}
_QUICK_STEPS = {"digits": 8, "text": 4}
_PRECISION = "e4m3"
_THREADS = 1  # the tensors are small: more would wait for one another, for long on a busy machine


@dataclass(frozen=True)
class Comparison:
    """One task, trained in fp32 and offloaded, and what the device did meanwhile."""

    task: Task
    fp32: Training
    offloaded: Training
    report: Report

    @property
    def loss_ratio(self) -> float:
        """Final loss offloaded over final loss in fp32."""
        return self.offloaded.final_loss / self.fp32.final_loss

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values; only what was measured with a clock differs between runs."""
        return {
            "name": self.task.name, "data": dict(self.task.facts),
            **{name: {"score": result.score, "final_loss": result.final_loss,
                      "seconds": round(result.seconds, 3), "losses": result.losses}
               for name, result in (("fp32", self.fp32), ("offloaded", self.offloaded))},
            "loss_ratio": self.loss_ratio, "device": self.report.to_dict(),
        }


def run(out: str | Path = "exactum-demo", *, config: Configuration | str | Path = "small",
        seed: int = 0, quick: bool = False, json: bool = False, quiet: bool = False) -> int:
    """Run the demo; prints its progress and results.

    Writes ``hardware/`` (the Verilog of the configuration that was emulated), ``report.html`` and
    ``results.json`` into the folder.

    Parameters
    ----------
    out : path
        Made if it is not there; what an earlier demo left in it is replaced.
    config : Configuration, str or path
        What is emulated and generated: a configuration, a preset's name, or a TOML file.
    seed : int
        Of the initial weights and the batches.
    quick : bool
        A few steps only, to see that everything works; what was learnt is not judged.
    json : bool
        Print the results as JSON and nothing else.
    quiet : bool
        Print no progress.

    Returns
    -------
    int
        0 if every goal was reached, else 1.

    Raises
    ------
    UsageError, ConfigurationError
        A folder or a configuration that will not do.
    ToolMissing
        Without Yosys or scikit-learn.
    """
    folder = Path(out)
    config = load(config)
    console = Console(quiet=quiet or json, highlight=False, soft_wrap=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    try:
        comparisons, goals = _work(folder, config, seed, quick, Steps(6, console))
    finally:
        torch.set_num_threads(threads)
    results = _results(config, seed, quick, comparisons, goals)
    _write(folder / "results.json", results)
    if json:
        print(_text(results))
    else:
        show(comparisons, goals, folder, config, quick)
    return 0 if results["passed"] else 1


def _work(folder: Path, config: Configuration, seed: int, quick: bool, steps: Steps
          ) -> tuple[list[Comparison], list[Goal]]:
    """The six steps. The hardware comes first: what could fail early fails before the training."""
    folder.mkdir(parents=True, exist_ok=True)
    with steps.step(f"Verilog of the configuration {config.name}") as step:
        written = generate(config, folder / "hardware", ("engine", "softmax") if quick else None)
        step.note = f"{len(written.manifest['units'])} units"
    counts = _QUICK_STEPS if quick else _STEPS
    comparisons = [
        _compare(digits_task, counts["digits"], config, seed, steps,
                 lambda training: f"accuracy {training.score:.2f} %"),
        _compare(text_task, counts["text"], config, seed, steps,
                 lambda training: f"held-out loss {training.score:.3f}"),
    ]
    goals = judge(comparisons, learnt=not quick)
    with steps.step("report"):
        _report(folder / "report.html", config, comparisons, goals)
    return comparisons, goals


def _compare(make: Callable[..., Task], count: int, config: Configuration, seed: int,
             steps: Steps, note: Callable[[Training], str]) -> Comparison:
    """Train once in fp32 and once offloaded, from the same weights and on the same batches."""
    task = make(seed=seed, steps=count)

    def training(step: Step) -> Training:
        result = train(task, seed=seed, on_step=step.advance)
        step.note = note(result)
        return result

    with steps.step(f"{task.name}, torch fp32") as step:
        fp32 = training(step)
    with (steps.step(f"{task.name}, everything offloaded in FP8") as step,
          open_device("emulator", config) as device,
          offload(device, _PRECISION) as session):
        offloaded = training(step)
    return Comparison(task, fp32, offloaded, session.report())


def _together(comparisons: list[Comparison]) -> Report:
    """One report of trainings one after the other; each layer's name begins with its task's."""
    def named(rows: Any, task: Task) -> list[Any]:
        return [replace(row, layer=f"{task.name}: {_LAYERS.get(row.layer, row.layer)}")
                for row in rows]

    rows, fallbacks, calls = [], [], 0
    for comparison in comparisons:
        rows += [replace(row, history=row.history.behind(calls))
                 for row in named(comparison.report.rows, comparison.task)]
        fallbacks += named(comparison.report.fallbacks, comparison.task)
        calls += comparison.report.total("calls")
    return replace(comparisons[0].report, fallbacks=tuple(fallbacks),
                   rows=tuple(sorted(rows, key=lambda row: -row.cycles)))


_LAYERS = {"CrossEntropy": "loss"}


def _report(path: Path, config: Configuration, comparisons: list[Comparison],
            goals: list[Goal]) -> None:
    digits, text = comparisons
    entropy = text.task.facts["unigram entropy"]
    figures = [
        ("Handwritten digits: loss", loss_figure(digits.fp32.losses, digits.offloaded.losses),
         f"Accuracy on {digits.task.facts['test images']} images never trained on: "
         f"{digits.fp32.score:.2f} % in torch fp32, {digits.offloaded.score:.2f} % with every "
         "matrix product and softmax of the step offloaded. Averaged over neighbouring steps."),
        ("Python's own sources: loss",
         loss_figure(text.fp32.losses, text.offloaded.losses, allowed=0.03,
                     level=("guessing by frequency", float(entropy))),
         f"Loss per character on modules never trained on: {text.fp32.score:.3f} in torch fp32, "
         f"{text.offloaded.score:.3f} offloaded. The band is the 3 % within which the offloaded "
         "loss must end."),
    ]
    missed = [goal for goal in goals if not goal.reached]
    verdict = ("All goals were reached." if not missed else
               "Not reached: " + "; ".join(goal.text for goal in missed) + ".")
    _together(comparisons).save(
        path, figures=figures, title="Exactum demo",
        intro="Two networks were trained twice from the same weights on the same batches: in "
              "torch fp32, and with every matrix product and softmax, forward and backward, "
              f"offloaded to the emulated hardware in {digits.report.policy}. Each FP8 tensor is "
              "scaled by a power of two; every dot product is exact and rounded once. The "
              "Verilog of this very configuration lies beside this page in "
              f"hardware/. {verdict}")


def _results(config: Configuration, seed: int, quick: bool, comparisons: list[Comparison],
             goals: list[Goal]) -> dict[str, Any]:
    return {
        "seed": seed, "quick": quick, "precision": _PRECISION,
        "configuration": {"name": config.name, "hash": config.hash},
        "versions": {"python": platform.python_version(),
                     **{name: version(name) for name in ("exactum", "torch", "amaranth")}},
        "tasks": [comparison.to_dict() for comparison in comparisons],
        "goals": [{"goal": goal.text, "measured": goal.measured, "reached": goal.reached}
                  for goal in goals],
        "passed": all(goal.reached for goal in goals),
    }


def _text(results: Mapping[str, Any]) -> str:
    return json.dumps(results, indent=1)


def _write(path: Path, results: Mapping[str, Any]) -> None:
    """Write beside and rename, so that an interruption leaves the last good file."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(_text(results) + "\n", encoding="utf-8")
    beside.replace(path)
