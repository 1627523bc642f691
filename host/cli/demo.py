"""``exactum demo``: the tour."""

from pathlib import Path

import click

from .output import Output, verb

__all__ = ["command"]


@click.command("demo")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FOLDER",
              default="exactum-demo", show_default=True, help="Folder for report and Verilog.")
@click.option("--quick", is_flag=True, help="Fewer steps, to see that everything works.")
@verb
def command(output: Output, *, out: Path, quick: bool) -> int | None:
    """Train a classifier and a small transformer with every product offloaded, forward and back.

    Prints a table, and writes the Verilog of the emulated configuration and one HTML report.
    """
    from ..demo.main import run
    return run(out=out, quick=quick)
