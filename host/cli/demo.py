"""``exactum demo``: the tour."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...gen.errors import ToolMissing
from .output import Output, configured, verb

if TYPE_CHECKING:
    from ...gen.config import Configuration

__all__ = ["command"]

_PACKAGES = ("torch", "sklearn", "matplotlib", "jinja2")


@click.command("demo")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FOLDER",
              default="exactum-demo", show_default=True, help="Folder for report and Verilog.")
@click.option("--quick", is_flag=True, help="A few steps only, to see that everything works.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Seed of the initial weights and the batches.")
@verb
@configured("small")
def command(output: Output, *, config: "Configuration", out: Path, quick: bool, seed: int) -> int:
    """Train a classifier and a small transformer with every product offloaded, forward and back.

    Prints a table, and writes the Verilog of the emulated configuration and one HTML report.
    Leaves with 1 if a training misses its goal.
    """
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if missing:  # said now, not after two minutes of training
        raise ToolMissing("X303", f"Python packages are not installed: {', '.join(missing)}",
                          "pip install 'exactum[demo]'")
    from ..demo.main import run
    return run(out, config=config, seed=seed, quick=quick, json=output.as_json,
               quiet=output.quiet)
