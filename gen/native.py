"""From a unit to a shared library: its Verilog, compiled natively behind a small C interface.

A library is made once: it is kept in the user's cache folder under the SHA-256 of all that it was
made of (Verilog, harness, ports, tools). ``host/native.py`` loads and runs it.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from .config import Configuration
from .errors import ExactumError
from .native_tools import LOG, Backend, choose, compile_library, compiler
from .primitives import models
from .units import Unit
from .writing import write_unit

__all__ = ["DESCRIPTION", "cache_folder", "compile_unit", "ports_header"]

LIBRARY = "unit.so"
DESCRIPTION = "unit.json"
"""Name of the description (gen/describe.py) beside a library; ``"native"`` says how it was made."""

HARNESS = "native_harness.cpp"


def cache_folder() -> Path:
    """Where compiled units are kept: $XDG_CACHE_HOME or ~/.cache, then exactum/native."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "exactum" / "native"


def compile_unit(unit: Unit, config: Configuration, folder: str | Path | None = None,
                 backend: str | None = None) -> Path:
    """Generate a unit's Verilog and compile it, unless that was done before.

    Parameters
    ----------
    unit : Unit
        What to compile.
    config : Configuration
        Its configuration.
    folder : path, optional
        Where libraries are kept; None: the user's cache folder.
    backend : str, optional
        ``"verilator"`` or ``"cxxrtl"``; None: the first of them that is installed.

    Returns
    -------
    Path
        The shared library; its description and build.log are beside it.

    Raises
    ------
    ToolMissing
        X302 without the Yosys that writes the Verilog, X306 without a backend or a C++ compiler.
    ExactumError
        X305 if a tool fails; the log's path is in the hint.  X114 if the folder cannot be written.
    UsageError
        X206 for an unknown backend.
    """
    chosen = choose(backend)
    home = cache_folder() if folder is None else Path(folder).absolute()
    try:
        home.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=home))
        try:
            return _compile(unit, config, chosen, home, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise ExactumError("X114", f"compiled units cannot be kept in {home}: {error}",
                           "set XDG_CACHE_HOME to a folder that you may write to") from error


def _compile(unit: Unit, config: Configuration, backend: Backend, home: Path,
             scratch: Path) -> Path:
    write_unit(unit, config, scratch)
    verilog = scratch / f"{unit.top}.v"
    for model in models(config):
        verilog.write_text(verilog.read_text("utf-8") + model.read_text("utf-8"), "utf-8")
    description = json.loads((scratch / f"{unit.top}.json").read_text("utf-8"))
    ports = ports_header(description, backend)
    harness = resources.files(__package__).joinpath(HARNESS).read_text("utf-8")
    tools = [backend.version() or "", compiler()[1], platform.machine()]
    key = _digest([verilog.read_text("utf-8"), ports, harness, _tools_source(), *tools])
    final = home / f"{unit.name}-{key[:32]}"
    with _only_one(home / f"{unit.name}-{key[:32]}.lock"):
        if (final / LIBRARY).is_file():
            return final / LIBRARY
        (scratch / "ports.h").write_text(ports, "utf-8")
        (scratch / HARNESS).write_text(harness, "utf-8")
        try:
            sources, includes = backend.translate(verilog, unit.top, scratch)
            compile_library([scratch / HARNESS, *sources], includes, scratch, LIBRARY)
        except ExactumError as error:
            raise _with_kept_log(error, scratch / LOG, final.with_suffix(".log")) from error
        description["native"] = {"backend": backend.name, "sha256": key, "tools": tools}
        _keep(scratch, final, description)
    return final / LIBRARY


def ports_header(description: Mapping[str, Any], backend: Backend) -> str:
    """ports.h of the harness: the streams of a description, in its order, as lists of members."""
    rows: dict[str, list[str]] = {"in": [], "out": []}
    for number, stream in enumerate(description["streams"].values()):
        members = [backend.member(stream[port]) for port in ("payload", "valid", "ready")]
        size = max(1, -(-stream["width"] // 64))
        rows[stream["direction"]].append(f"    X({number}, {size}, {', '.join(members)})")
    lists = "".join("".join(f"{line} \\\n" for line in [f"#define {name}(X)", *rows[direction]])
                    + "\n" for name, direction in (("SOURCES", "in"), ("SINKS", "out")))
    return (f"// Generated: the ports of {description['module']}.\n#pragma once\n"
            f"{backend.header(description['module'])}"
            f"#define CLOCK {backend.member(description['clock'])}\n"
            f"#define RESET {backend.member(description['reset'])}\n"
            f"#define STREAMS {len(description['streams'])}\n{lists}")


def _digest(parts: list[str]) -> str:
    """SHA-256 of the texts, told apart."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _tools_source() -> str:
    """The text that holds every flag of every tool."""
    return resources.files(__package__).joinpath("native_tools.py").read_text("utf-8")


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """One process at a time compiles the same thing; the others then find it done."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _keep(scratch: Path, final: Path, description: Mapping[str, Any]) -> None:
    """Make the finished folder appear at once, with what is worth keeping."""
    done = scratch / "done"
    done.mkdir()
    for name in (LIBRARY, LOG):
        (scratch / name).rename(done / name)
    (done / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", "utf-8")
    shutil.rmtree(final, ignore_errors=True)   # one without a library: not ours to trust
    done.rename(final)


def _with_kept_log(error: ExactumError, log: Path, kept: Path) -> ExactumError:
    """The same error, its log moved out of the folder that is about to go."""
    if not log.is_file():
        return error
    log.replace(kept)
    return ExactumError(error.code, error.message, f"read {kept}")
