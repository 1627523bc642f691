"""Generate a unit's Verilog, build it with Icarus and run its cocotb bench against the model."""

import os
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ..gen.config import Configuration
from ..gen.errors import SimulationError, ToolMissing
from ..gen.primitives import models
from ..gen.units import Unit, select
from ..gen.writing import write_unit

__all__ = ["Case", "Result", "check_tools", "run"]


@dataclass(frozen=True)
class Case:
    """One test of a bench; ``message`` says why it failed."""

    name: str
    passed: bool
    seconds: float
    message: str = ""


@dataclass(frozen=True)
class Result:
    """What a bench found: its cases, the seconds it took, its log and, if asked for, its waves."""

    unit: str
    cases: tuple[Case, ...]
    seconds: float
    log: Path
    waves: Path | None = None

    @property
    def passed(self) -> bool:
        """Whether there were tests and none failed."""
        return bool(self.cases) and all(case.passed for case in self.cases)

    def __str__(self) -> str:
        failed = [f"{case.name}: {case.message}" for case in self.cases if not case.passed]
        return "\n  ".join([f"{self.unit}: {len(self.cases) - len(failed)} of {len(self.cases)} "
                            f"tests passed in {self.seconds:.1f} s", *failed])


def check_tools() -> None:
    """ToolMissing X301 without Icarus Verilog, X303 without cocotb or torch."""
    if not (shutil.which("iverilog") and shutil.which("vvp")):
        raise ToolMissing("X301", "Icarus Verilog (iverilog, vvp) is not on the PATH",
                          "apt install iverilog")
    for package in ("cocotb", "torch"):
        if find_spec(package) is None:
            raise ToolMissing("X303", f"the Python package {package} is not installed",
                              "pip install 'exactum[sim]'")


def run(unit: str, config: Configuration, *, build_dir: str | Path, waves: bool = False,
        seed: int = 1, tests: Iterable[str] | None = None) -> Result:
    """Run the bench of one unit on its Verilog, generated for ``config``.

    Parameters
    ----------
    unit : str
        Name of the unit.
    config : Configuration
        What to generate.
    build_dir : path
        Folder for the Verilog, the compiled simulation, logs, results and waves.
    waves : bool
        Also write every signal, as FST.
    seed : int
        Seed of the bench's random data (and of cocotb).
    tests : iterable of str, optional
        Names of the tests to run; all unless given.

    Raises
    ------
    SimulationError
        X502 if the simulation did not come to its end. (A test that fails is a result.)
    ToolMissing
        X301 to X303.
    UsageError
        X213 for an unknown unit.
    """
    chosen, = select([unit])
    check_tools()
    folder = Path(build_dir).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    tests = None if tests is None else tuple(tests)
    start = time.perf_counter()
    write_unit(chosen, config, folder)
    results = folder / "results.xml"
    sources = [folder / f"{chosen.top}.v", *models(config)]
    _simulate(chosen, sources, folder, results, waves, seed, tests)
    cases = _read(results)
    if not cases:
        raise SimulationError("X502", f"the bench of {unit} ran no test"
                              + (f"; tests asked for: {', '.join(tests)}" if tests else ""),
                              f"exactum sim {unit} -v names its tests")
    return Result(unit, cases, time.perf_counter() - start, folder / "simulation.log",
                  folder / f"{chosen.top}.fst" if waves else None)


def _simulate(unit: Unit, sources: list[Path], folder: Path, results: Path, waves: bool,
              seed: int, tests: tuple[str, ...] | None) -> None:
    from cocotb_tools.runner import get_runner

    log = folder / "build.log"
    runner = get_runner("icarus")
    runner.log.disabled = True  # it would announce every command
    environment = {"EXACTUM_DESCRIPTION": str(folder / f"{unit.top}.json"),
                   "EXACTUM_SEED": str(seed), "COCOTB_ANSI_OUTPUT": "0"}
    options: dict[str, Any] = {"hdl_toplevel": unit.top, "build_dir": folder, "waves": waves,
                               "timescale": ("1ns", "1ps")}
    try:
        runner.build(sources=sources, always=True, log_file=log, **options)
        log = folder / "simulation.log"
        runner.test(test_module=f"{__package__}.{unit.name}", test_dir=folder, seed=seed,
                    results_xml=str(results), extra_env=environment, log_file=log,
                    test_filter=_filter(tests), **options)
    except (SystemExit, RuntimeError) as error:
        # Under pytest cocotb leaves with SystemExit for a failed test too: then there are results.
        if not results.is_file() or log.name == "build.log":
            raise _stopped(unit.name, log) from error
    if not results.is_file():
        raise _stopped(unit.name, log)


def _filter(tests: tuple[str, ...] | None) -> str | None:
    return None if tests is None else rf"\.({'|'.join(map(re.escape, tests))})(/.*)?$"


def _stopped(unit: str, log: Path) -> SimulationError:
    lines = log.read_text("utf-8", "replace").strip().splitlines() if log.is_file() else []
    last = f": {lines[-1].strip()}" if lines else ""
    return SimulationError("X502", f"the bench of {unit} stopped without results{last}",
                           f"read {os.path.relpath(log)}")


def _read(results: Path) -> tuple[Case, ...]:
    """The cases in cocotb's JUnit file."""
    cases = []
    for case in ElementTree.parse(results).getroot().iter("testcase"):
        if case.find("skipped") is None:
            faults = [*case.findall("failure"), *case.findall("error")]
            said = [fault.get("message") or fault.text or "failed" for fault in faults]
            cases.append(Case(case.get("name", ""), not faults, float(case.get("time", 0)),
                              said[0].strip().splitlines()[0] if said else ""))
    return tuple(cases)
