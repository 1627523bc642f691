"""What the demo prints at its end: what was learnt, what the hardware did, the goals, the files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from ...gen.config import Configuration
from ..offloading.tables import duration, short
from .goals import Goal

if TYPE_CHECKING:
    from .main import Comparison

__all__ = ["show"]


def show(comparisons: "Sequence[Comparison]", goals: Sequence[Goal], folder: Path,
         config: Configuration, quick: bool) -> None:
    """Print the tables, one line per goal, where the files are and what to try next."""
    console = Console(highlight=False, soft_wrap=True)
    console.print()
    for table in (_learnt(comparisons), _hardware(comparisons, config)):
        console.print(table)
    for goal in goals:
        word = "[green]PASS[/]" if goal.reached else "[bold red]FAIL[/]"
        console.print(f"{word}  {goal.text}: {goal.measured}")
    if quick:
        console.print("      A quick run: what was learnt in a few steps is not judged.")
    hardware = folder / "hardware"
    console.print(f"\nreport    {folder / 'report.html'}\n"
                  f"Verilog   {hardware / 'rtl'}, the configuration that was emulated\n"
                  f"numbers   {folder / 'results.json'}\n\n"
                  "Next: open the report in a browser; simulate that Verilog with\n"
                  f"  exactum sim engine -c {hardware / 'configuration.toml'}\n"
                  "and offload your own loop with the three lines of examples/train_digits.py.",
                  markup=False)


def _table(title: str, words: int, *columns: str) -> Table:
    """An empty table whose first ``words`` columns are words, the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
                  pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place >= words else "left", no_wrap=True)
    return table


def _learnt(comparisons: "Sequence[Comparison]") -> Table:
    """A row per training."""
    table = _table("What was learnt", 2, "task", "run", "accuracy", "held-out loss", "final loss",
                   "time here")
    for comparison in comparisons:
        percent = comparison.task.name == "digits"
        for run, result in (("torch fp32", comparison.fp32),
                            ("offloaded, FP8", comparison.offloaded)):
            table.add_row(
                comparison.task.name, run, f"{result.score:.2f} %" if percent else "",
                "" if percent else f"{result.score:.4f}", f"{result.final_loss:.4f}",
                f"{result.seconds:.1f} s")
    return table


def _hardware(comparisons: "Sequence[Comparison]", config: Configuration) -> Table:
    """A row per task."""
    table = _table(f"What the hardware did (configuration {config.name})", 1, "task", "ops",
                   "products", "skipped", "cycles", f"at {config.clock_mhz:g} MHz", "saturated",
                   "lost")
    for comparison in comparisons:
        report = comparison.report
        cycles = report.total("cycles")
        table.add_row(
            comparison.task.name, f"{report.total('calls'):,}", short(report.total("products")),
            f"{report.skipped_share:.1%}", short(cycles), duration(report.seconds_of(cycles)),
            f"{report.total('saturations'):,}", f"{report.total('lost'):,}")
    return table
