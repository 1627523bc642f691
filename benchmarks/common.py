"""What every benchmark shares: timing, a table, and benchmarks/results/NAME.json."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

__all__ = ["compare", "report", "row"]

RESULTS = Path(__file__).parent / "results"


def compare(run: Callable[[], object], peer: Callable[[], object],
            repeats: int) -> tuple[float, float]:
    """Median seconds of both, run in turns after one warm-up each."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for function, taken in zip((run, peer), times, strict=True):
            start = time.perf_counter()
            function()
            if repeat:
                taken.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def row(case: str, seconds: float, peer: str, peer_seconds: float) -> dict[str, object]:
    """A row as users of the results read it; ``ratio`` is seconds / peer_seconds."""
    return {"case": case, "seconds": float(f"{seconds:.4g}"), "peer": peer,
            "peer_seconds": float(f"{peer_seconds:.4g}"),
            "ratio": float(f"{seconds / peer_seconds:.4g}")}


def report(name: str, rows: Sequence[Mapping[str, object]],
           packages: Sequence[str] = ("torch",)) -> None:
    """Print the rows as a table, and write them with command, versions and machine."""
    table = Table(*rows[0], title=name)
    for values in rows:
        table.add_row(*map(str, values.values()))
    console = Console()
    console.print(table)
    versions = {"python": platform.python_version(), "exactum": metadata.version("exactum")}
    content = {
        "command": f"python benchmarks/{name}.py",
        "versions": versions | {package: metadata.version(package) for package in packages},
        "machine": {"cpu": _cpu(), "cores": os.cpu_count()},
        "rows": list(rows),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to benchmarks/results/{name}.json")


def _cpu() -> str:
    """The processor's model as its maker calls it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines()
             if line.startswith("model name")]
    return names[0] if names else platform.machine()
