"""What docs/vpcu.md says in numbers and names is what the code has."""

import ast
import json
import re
from importlib import import_module
from xml.etree import ElementTree

import pytest

from exactum.gen.config import preset
from exactum.hdl.geometry import Geometry
from sim_tests.repository import ROOT

PAGE = (ROOT / "docs" / "vpcu.md").read_text("utf-8")
RESULTS = ROOT / "benchmarks" / "results" / "vpcu.json"
DEFAULT = preset("default").vpcu
GEOMETRIES = [
    Geometry(lanes=DEFAULT.lanes, formats=DEFAULT.formats, b_depth=DEFAULT.b_depth,
             accumulator_width=DEFAULT.accumulator_width, max_k=DEFAULT.max_k),
    Geometry(lanes=8, formats=("e4m3",), b_depth=1024, accumulator_width=48, max_k=2048)]


def table(heading, text=PAGE):
    """The cells of the table whose header has a cell that begins so, row by row."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.M)
    found = [[[cell.strip() for cell in line.strip("|\n ").split("|")]
              for line in block.splitlines()] for block in blocks]
    one, = (rows for rows in found if any(cell.startswith(heading) for cell in rows[0]))
    return [one[0], *one[2:]]


def value(name):
    """What a name such as ``hdl.geometry.LANE_LATENCY`` is."""
    module, _, member = name.rpartition(".")
    return getattr(import_module(f"exactum.{module}"), member)


def cycles(text):
    """What a cell of constants comes to: ``3``, ``1 of `A` ``, `` `A` `` or `` `A` less `B` ``."""
    if plain := re.match(r"\d+", text):
        return int(plain[0])
    terms = [value(name) if name else int(number)
             for name, number in re.findall(r"`(.+?)`|(\d+)", text)]
    return terms[0] - sum(terms[1:])


def wrong_steps(text):
    """Rows of the pipeline whose cycles are not those of their constants."""
    after, wrong = 0, []
    for step, _, constant, taken, total in table("step", text)[1:]:
        after += cycles(constant)
        if (int(taken), int(total)) != (cycles(constant), after):
            wrong.append(f"{step}: {cycles(constant)} cycles, {after} after the issue")
    return wrong


def test_the_pipeline_is_that_of_the_constants():
    assert not wrong_steps(PAGE)
    assert int(table("step")[-1][4]) == value("hdl.vpcu.ROW_LATENCY")
    of_operand = [row for row in table("step") if "OPERAND_LATENCY" in row[2]]
    assert sum(int(row[3]) for row in of_operand) == value("hdl.geometry.OPERAND_LATENCY")


def test_a_latency_that_has_changed_is_noticed(monkeypatch):
    monkeypatch.setattr("exactum.hdl.geometry.ROUND_LATENCY", value(
        "hdl.geometry.ROUND_LATENCY") + 1)
    assert [wrong.partition(":")[0] for wrong in wrong_steps(PAGE)] == ["round", "buffer"]


def test_constants_in_sentences():
    found = re.findall(r"`(hdl\.\w+\.[A-Z_]+)` = (\d+)", PAGE)
    assert len(found) == 2
    assert all(value(name) == int(number) for name, number in found)
    section = PAGE.partition("## Cycles")[2].partition("\n## ")[0]
    assert all(hasattr(import_module("exactum.host.cycles"), name)
               for name in re.findall(r"`([A-Z_]+_LATENCY)`", section))


@pytest.mark.parametrize("row", table("`Geometry`")[1:], ids=lambda row: row[0].strip("`"))
def test_widths_are_those_of_the_geometry(row):
    name, _, *numbers = row
    assert [getattr(geometry, name.strip("`")) for geometry in GEOMETRIES] == [
        int(number) for number in numbers]


def test_named_tests_exist():
    named = re.findall(r"`(\w+/\w+\.py)::(\w+)`", PAGE)
    assert len(named) > 10
    for path, name in named:
        body = ast.parse((ROOT / "sim_tests" / path).read_text("utf-8")).body
        assert name in {node.name for node in body
                        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}, path


def test_named_files_exist():
    files = re.findall(r"`((?:hdl|host|gen|benchmarks|sim_tests)/[\w/]+\.\w+)`", PAGE)
    links = re.findall(r"\]\(([\w./]+)\)", PAGE)
    assert files
    assert links
    assert all((ROOT / name).is_file() for name in files)
    assert all((ROOT / "docs" / name).is_file() for name in links)


def percent(share):
    return f"{100 * share:.1f} %"


def test_rates_are_those_of_the_benchmark():
    rows = json.loads(RESULTS.read_text("utf-8"))["rows"]
    measured = [[row["formats"], f"{row['cycles']:,}", percent(row["of_peak"]),
                 percent(row["alone_of_peak"])] for row in rows if row["case"] == "dense"]
    assert table("formats")[1:] == measured
    scaled, = (row for row in rows if row["case"] == "dense, block scales")
    assert (scaled["of_peak"], scaled["lost"]) == (1, 0)
    changes, = (row for row in rows if "changes" in row["case"])
    assert f"costs {changes['lost']} cycles" in PAGE
    assert changes["case"].split()[2] in PAGE


@pytest.mark.parametrize(("heading", "key"), [("density", "density"), ("dense, K", "shape")])
def test_cycles_lost_to_the_drain_are_those_of_the_benchmark(heading, key):
    head, written = table(heading)
    rows = [row for row in json.loads(RESULTS.read_text("utf-8"))["rows"]
            if row["case"].startswith("drain") and (row["density"] == 1) == (key == "shape")]
    lost = {}
    for row in rows:
        at = f"{row[key]:.0%}" if key == "density" else row[key].split(" x ")[1]
        lost.setdefault(at, set()).add(
            percent(row["lost"] / row["cycles"]) if row["lost"] else "0")
    assert {at: {share} for at, share in zip(head[1:], written[1:], strict=True)} == lost


def test_the_picture_has_a_title_and_both_colour_schemes():
    text = (ROOT / "docs" / "images" / "vpcu.svg").read_text("utf-8")
    root = ElementTree.fromstring(text)
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert "VPCU" in title.text
    assert root.get("aria-labelledby") == title.get("id")
    assert "prefers-color-scheme: dark" in text
