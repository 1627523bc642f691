"""``exactum demo``: the tour."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .output import Output, configured, verb

if TYPE_CHECKING:
    from ...gen.config import Configuration

__all__ = ["command"]


@click.command("demo")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FOLDER",
              default="exactum-demo", show_default=True, help="Folder for report and Verilog.")
@click.option("--seed", type=int, default=0, show_default=True,
              help="Of the initial weights and the batches.")
@click.option("--quick", is_flag=True, help="A few steps only, to see that everything works.")
@verb
@configured("small")
def command(output: Output, *, config: "Configuration", out: Path, seed: int, quick: bool) -> int:
    """Train a classifier and a small transformer with every product offloaded, forward and back.

    Prints a table, and writes the Verilog of the emulated configuration and one HTML report.
    """
    from ..demo.main import run
    return run(out, config=config, seed=seed, quick=quick, json=output.as_json,
               quiet=output.quiet)
