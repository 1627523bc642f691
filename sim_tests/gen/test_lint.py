"""Verilator finds nothing that matters in the Verilog of the preset ``default``.

What it may say, kind by kind, is in ALLOWED; a width may be extended, never cut.
"""

import re
import subprocess

import pytest

from exactum.gen.config import preset
from exactum.gen.units import SYSTEMS, UNITS
from exactum.gen.writing import write_unit

ALLOWED = {
    "DECLFILENAME": "one file holds all modules of a unit",
    "UNUSEDSIGNAL": "Yosys names every intermediate value, also those of which it takes a slice",
    "CASEINCOMPLETE": "Yosys gives the default before the casez, not in it",
    "VARHIDDEN": "a submodule may hold a signal of its own name",
    "WIDTH": "Yosys leaves extension to Verilog's rules; see WIDTHS",
}
WIDTHS = (
    # ! of a vector: whether it is zero.
    re.compile(r"Logical operator LOGNOT expects 1 bit "),
    # An element of an array: the array shifted right, the lowest bits of that.
    re.compile(r"Operator ASSIGNW expects \d+ bits on the Assign RHS, but .*'s SHIFTR generates"),
)
WARNING = re.compile(r"^%(?:Warning|Error)(?:-(\w+))?: (.*)$", re.MULTILINE)
SIZES = re.compile(r"expects (\d+) bits? .*generates (\d+) bits?")


def findings(unit, folder, change=lambda text: text, name="default"):
    """What Verilator says and ALLOWED does not cover: (kind, words) of each."""
    chosen = {**UNITS, **SYSTEMS}[unit]
    file = folder / f"{chosen.top}.v"
    if not file.exists():
        write_unit(chosen, preset(name), folder)
        file.write_text(change(file.read_text("utf-8")), "utf-8")
    done = subprocess.run(["verilator", "--lint-only", "-Wall", "-Wno-fatal", "--top-module",
                           chosen.top, file.name], cwd=folder, capture_output=True, text=True,
                          check=False, timeout=600)
    found = WARNING.findall(done.stderr)
    assert found, f"Verilator said nothing known: {done.stderr[-1000:]}"
    return [(kind, words) for kind, words in found
            if kind not in ALLOWED or (kind == "WIDTH" and not is_harmless(words))]


def is_harmless(words):
    """Whether a difference of widths cuts nothing off."""
    sizes = SIZES.search(words)
    return bool(sizes and int(sizes[2]) <= int(sizes[1])) or any(
        known.search(words) for known in WIDTHS)


def test_the_header_says_what_it_is_and_how_it_was_made(tmp_path):
    config = preset("tiny")
    write_unit(UNITS["skipper"], config, tmp_path)
    lines = (tmp_path / "exactum_skipper.v").read_text("utf-8").splitlines()
    assert lines[0].startswith("// exactum_skipper: ")
    assert lines[1].endswith(f"configuration {config.name}, {config.hash}")
    assert lines[2].startswith("// Made by `exactum generate`")
    assert lines[3] == ""


@pytest.mark.parametrize("unit", UNITS)
def test_nothing_that_matters(unit, tmp_path):
    assert not findings(unit, tmp_path)


def test_nothing_that_matters_around_the_units(tmp_path):
    """The top level, of fewer lanes: it is the same in all that could be told."""
    assert not findings("device", tmp_path, name="small")


@pytest.mark.parametrize(("added", "kind"), [
    ("wire [3:0] narrow; assign narrow = 8'hff & {8{clk}};", "WIDTH"),
    ("wire open; wire used = open;", "UNDRIVEN"),
    ("reg held; always @* if (clk) held = rst;", "LATCH"),
    ("reg held; always @(posedge clk) held = rst;", "BLKSEQ"),
])
def test_faults_are_told(added, kind, tmp_path):
    def damaged(text):
        return re.sub(r"(module exactum_skipper\(.*?\);\n)", rf"\1  {added}\n", text, count=1,
                      flags=re.DOTALL)

    assert kind in {found for found, _ in findings("skipper", tmp_path, damaged)}
