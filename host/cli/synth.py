"""``exactum synth``: what a unit takes on an LFE5U-85F, and how fast it runs there."""

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .output import Output, configured, verb

if TYPE_CHECKING:
    from ...gen.config import Configuration

__all__ = ["command"]


def _finite(context: click.Context, parameter: click.Parameter, value: float | None
            ) -> float | None:
    """NaN is in every range."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a number of MHz; 1 to 1000 are allowed")
    return value


@click.command("synth")
@click.argument("units", nargs=-1, metavar="[PRESET|FILE] [UNIT]...")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, metavar="N",
              help="Place and route with the seeds 1 to N.")
@click.option("--clock", type=click.FloatRange(1, 1000), metavar="MHZ", callback=_finite,
              help="The clock to work towards  [default: clock_mhz of the configuration]")
@click.option("--estimate", is_flag=True, help="The area only: Yosys, no place and route.")
@click.option("--by-module", is_flag=True, help="Also what each module takes.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N",
              help="Seeds placed side by side.")
@click.option("-o", "--output", "file", metavar="FILE.json",
              type=click.Path(path_type=Path, dir_okay=False), help="Write the results as JSON.")
@click.option("-w", "--work", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
              default="exactum-synth", show_default=True,
              help="Folder for Verilog, netlists, logs and reports.")
@verb
@configured("default")
def command(output: Output, *, config: "Configuration", units: tuple[str, ...], seeds: int,
            clock: float | None, estimate: bool, by_module: bool, jobs: int, file: Path | None,
            work: Path) -> None:
    """Synthesise, place and route units for a Lattice LFE5U-85F, speed grade 6.

    All units unless some are named. What has been computed before, with the same Verilog, tools
    and options, comes from the cache.
    """
    from ...gen.synth import synthesise
    from ...gen.synth_progress import progress
    from ...gen.synth_tables import (
        area_table,
        module_table,
        path_table,
        rate_table,
        write_results,
    )
    from ...gen.units import select
    chosen = [unit.name for unit in select(units or None)]
    if file is not None and not file.absolute().parent.is_dir():
        raise FileNotFoundError(2, "No such folder", str(file))  # before hours, not after
    output.line(f"configuration {config.name}, {config.hash[:16]}")
    results = []
    for unit in chosen:
        with progress(unit, quiet=output.quiet or output.as_json) as watch:
            results.append(synthesise(
                unit, config, work, seeds=() if estimate else range(1, seeds + 1),
                clock_mhz=clock, by_module=by_module, jobs=jobs, watch=watch))
    rows = [result.row() for result in results]
    for result in results:
        if result.nodes:
            output.table(*module_table(result.nodes))
            output.line()
    output.table(*area_table(rows))
    heads, rates = rate_table(rows)
    if rates:
        output.line()
        output.table(heads, rates)
    if output.verbose and not estimate:
        output.line()
        output.table(*path_table(rows))
    versions = {name: text for result in results for name, text in result.versions.items()}
    if file is not None:
        write_results(file, _spelt(), versions, rows)
        output.line(f"written to {file}")
    output.result({"versions": versions, "rows": [
        row | {"modules": [{"path": "/".join(node.path), "times": node.count,
                            **node.area.plain()} for node in result.nodes]}
        for row, result in zip(rows, results, strict=True)]})


def _spelt() -> str:
    """The command line, as far as it bears on the results."""
    given = click.get_current_context().params
    words = ["exactum", "synth", *given["units"]]
    for name, option in (("source", "-c"), ("clock", "--clock")):
        if given[name] is not None:
            words += [option, str(given[name])]
    for override in given["overrides"]:
        words += ["-s", override]
    words += ["--estimate"] if given["estimate"] else ["--seeds", str(given["seeds"])]
    return shlex.join(words)
