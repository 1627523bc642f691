"""``exactum sim``: the cocotb benches on generated Verilog."""

import ast
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .output import Output, configured, verb

if TYPE_CHECKING:
    from ...benches.runner import Result
    from ...gen.config import Configuration

__all__ = ["command"]


@click.command("sim")
@click.argument("units", nargs=-1, metavar="[PRESET|FILE] [UNIT]...")
@click.option("-t", "--test", "tests", multiple=True, metavar="NAME",
              help="Run only this test of the bench. Repeatable.")
@click.option("--waves", is_flag=True, help="Write every signal as FST, for GTKWave or Surfer.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True,
              help="Seed of the random data.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FOLDER",
              default="exactum-sim", show_default=True, help="Folder for builds, logs and waves.")
@click.option("--list", "only_list", is_flag=True, help="List the units.")
@verb
@configured("tiny")
def command(output: Output, *, config: "Configuration", units: tuple[str, ...],
            tests: tuple[str, ...], waves: bool, seed: int, out: Path, only_list: bool) -> int:
    """Generate each unit's Verilog, simulate it and compare with the golden model bit for bit.

    All benches unless units are named. Leaves with 1 if a test fails.
    """
    from ...benches import runner
    from ...gen.units import UNITS, select
    if only_list:
        output.table(("unit", "what it does"), [(u.name, u.summary) for u in UNITS.values()])
        output.result({"units": list(UNITS)})
        return 0
    chosen = _with_tests([unit.name for unit in select(units or None)], tests)
    runner.check_tools()
    output.line(f"configuration {config.name}, {config.hash[:16]}, seed {seed}")
    step = output.steps(len(chosen))
    results = []
    for unit in chosen:
        with step(f"bench of {unit}"):
            results.append(runner.run(unit, config, build_dir=out / config.name / unit,
                                      waves=waves, seed=seed, tests=tests or None))
    _report(output, results)
    output.result({"configuration": {"name": config.name, "hash": config.hash}, "seed": seed,
                   "benches": [_plain(result) for result in results]})
    return 0 if all(result.passed for result in results) else 1


def _with_tests(units: list[str], tests: Iterable[str]) -> list[str]:
    """The units whose benches have any of the tests, all without tests; UsageError X206."""
    from ...gen.errors import UsageError, nearest
    wanted = {test.partition("/")[0] for test in tests}  # what follows are a test's parameters
    if not wanted:
        return units
    known = {unit: _tests(unit) for unit in units}
    every = list(dict.fromkeys(test for names in known.values() for test in names))
    for test in sorted(wanted - set(every)):
        raise UsageError("X206", f"no bench of {', '.join(units)} has a test {test!r}"
                         f"{nearest(test, every)}; tests: {', '.join(every)}",
                         "exactum sim UNIT -t TEST with one of these")
    return [unit for unit in units if wanted.intersection(known[unit])]


def _tests(unit: str) -> list[str]:
    """The names of a bench's tests, read from its source: importing it takes a simulation."""
    spec = find_spec(f"exactum.benches.{unit}")
    if spec is None or spec.origin is None:
        raise LookupError(f"{unit} has no bench")
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    return [item.name for item in tree.body if isinstance(item, ast.AsyncFunctionDef)
            if any(ast.unparse(mark).startswith("cocotb.test") for mark in item.decorator_list)]


def _report(output: Output, results: "list[Result]") -> None:
    output.table(("unit", "result", "tests", "seconds"), [
        (result.unit, "pass" if result.passed else "FAIL",
         f"{sum(case.passed for case in result.cases)}/{len(result.cases)}",
         f"{result.seconds:.1f}") for result in results])
    for result in results:
        if output.verbose:
            for case in result.cases:
                output.line(f"  {result.unit}: {case.name} {case.seconds:.1f} s")
        if not result.passed and not output.as_json:
            click.echo(f"X501: {result}\n  log: {result.log}", err=True)
        if result.waves:
            output.line(f"waves of {result.unit}: {result.waves}")


def _plain(result: "Result") -> dict:
    return {"unit": result.unit, "passed": result.passed, "seconds": round(result.seconds, 3),
            "log": str(result.log), "waves": str(result.waves) if result.waves else None,
            "tests": [vars(case) for case in result.cases]}
