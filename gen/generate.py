"""One configuration becomes a folder: Verilog, descriptions, resolved configuration, manifest."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .config import Configuration
from .errors import UsageError
from .manifest import MANIFEST, read_manifest, unlisted
from .units import select
from .writing import Writers

__all__ = ["Output", "generate"]

Step = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Output:
    """What was written: the folder, and the manifest's contents."""

    folder: Path
    manifest: dict[str, Any]


def generate(config: Configuration, out_dir: str | Path, units: Iterable[str] | None = None, *,
             step: Step = nullcontext) -> Output:
    """Write the Verilog of some or all units, with everything needed to use and to check it.

    Written into a folder beside ``out_dir`` and renamed, so an interrupted run leaves the last
    good output.

    Parameters
    ----------
    config : Configuration
        What to generate.
    out_dir : path
        New, empty, or an earlier output (which is replaced, unless files were added to it).
    units : iterable of str, optional
        Names of units; all unless given.
    step : callable, optional
        Called with the name of each step; the step runs inside the context that it returns.

    Raises
    ------
    UsageError
        X111 if ``out_dir`` holds something else; X213 for an unknown unit.
    ToolMissing
        X302 without Yosys.
    """
    chosen = select(units, systems=True)
    folder = Path(out_dir).absolute()
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        fresh = Path(beside) / "new"
        (fresh / "rtl").mkdir(parents=True)
        resolved = fresh / "configuration.toml"
        _write(resolved, config.to_toml())
        yosys = ""
        with Writers(chosen, resolved, fresh / "rtl") as writers:
            for unit in chosen:
                with step(f"Verilog of {unit.name}"):
                    yosys = writers.wait(unit)
        with step("manifest"):
            _write(fresh / MANIFEST, json.dumps({
                "exactum": version("exactum"), "manifest": 1,
                "configuration": {"name": config.name, "hash": config.hash},
                "units": [unit.name for unit in chosen],
                "tools": {"amaranth": version("amaranth"), "yosys": yosys},
                "files": _hashes(fresh)}, indent=2) + "\n")
            _check_replaceable(folder)  # again: the writing took its time
            _replace(folder, fresh, Path(beside) / "old")
    return Output(folder, read_manifest(folder))


def _check_replaceable(folder: Path) -> None:
    """UsageError X111 if replacing the folder would delete anything that Exactum did not write."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        strangers = unlisted(folder)
    except UsageError as error:
        raise UsageError("X111", f"{str(folder)!r} holds something that Exactum did not write",
                         "choose another folder with --out, or empty this one") from error
    if strangers:
        named = ", ".join(strangers[:3])
        more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        raise UsageError("X111", f"{str(folder)!r} holds files that Exactum did not write: "
                         f"{named}{more}", "move them away, or choose another folder with --out")


def _replace(folder: Path, fresh: Path, old: Path) -> None:
    """Put ``fresh`` in the place of ``folder``, or leave what was there."""
    if not folder.exists():
        fresh.rename(folder)
        return
    folder.rename(old)
    try:
        fresh.rename(folder)
    except BaseException:
        old.rename(folder)
        raise


def _hashes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode())
