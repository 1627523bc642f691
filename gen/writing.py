"""Writing units: one in this process, or several side by side, each in a process of its own."""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .config import Configuration, load
from .describe import describe
from .errors import ExactumError, ToolMissing
from .units import Unit, build, select
from .verilog import emit

__all__ = ["Writers", "write_unit"]


def write_unit(unit: Unit, config: Configuration, folder: Path) -> str:
    """Write TOP.v and TOP.json of one unit into an existing folder; returns the Yosys used."""
    with _no_collection():
        component = build(unit, config)
        description = describe(unit, component, config)
        verilog = emit(unit, component, config)
    (folder / f"{unit.top}.v").write_bytes(verilog.text.encode())
    (folder / f"{unit.top}.json").write_bytes((json.dumps(description, indent=2) + "\n").encode())
    return verilog.yosys


@contextmanager
def _no_collection() -> Iterator[None]:
    # A netlist is millions of small objects that all live to the end; collecting them in vain
    # takes a third of the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Writers:
    """Writes units side by side, as many as there are cores; ``wait`` for them one by one.

    Parameters
    ----------
    units : iterable of Unit
        What to write.
    config : path
        A resolved configuration.
    folder : path
        An existing folder.
    """

    def __init__(self, units: Iterable[Unit], config: Path, folder: Path) -> None:
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._futures = {unit.name: self._pool.submit(_write_apart, unit, config, folder)
                         for unit in units}

    def wait(self, unit: Unit) -> str:
        """Wait for a unit and return the Yosys used; its error is raised here."""
        return self._futures[unit.name].result()

    def __enter__(self) -> "Writers":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def _write_apart(unit: Unit, config: Path, folder: Path) -> str:
    """``write_unit`` in another Python, which sees the same packages."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__, unit.name, str(config), str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ExactumError("X305", f"writing the Verilog of {unit.name} failed: {last}",
                           "report this configuration: every legal one should be written")
    answer = json.loads(done.stdout)
    if "missing" in answer:
        raise ToolMissing(*answer["missing"])
    return answer["yosys"]


def _main() -> None:
    name, config, folder = sys.argv[1:]
    unit, = select([name], systems=True)
    answer: dict[str, Any]
    try:
        answer = {"yosys": write_unit(unit, load(Path(config)), Path(folder))}
    except ToolMissing as error:
        answer = {"missing": [error.code, error.message, error.hint]}
    print(json.dumps(answer))


if __name__ == "__main__":
    _main()
