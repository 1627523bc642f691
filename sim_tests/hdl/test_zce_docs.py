"""What docs/zce.md says of the codec in numbers is what benchmarks/results/codec.json has."""

import json
import re

import pytest

from exactum.hdl.formats import FORMATS
from sim_tests.repository import ROOT

PAGE = (ROOT / "docs" / "zce.md").read_text("utf-8")
ROWS = json.loads((ROOT / "benchmarks" / "results" / "codec.json").read_text("utf-8"))["rows"]
DAMAGED = [row for row in ROWS if row["case"].startswith("damaged")]
PAIRS = [row for row in ROWS if row["case"].startswith("every pair")]
BLOCKS = [row for row in ROWS if row not in DAMAGED and row not in PAIRS]


def written(pattern):
    """The numbers at a place of the page, without their commas."""
    found = re.search(pattern, " ".join(PAGE.split()))
    return tuple(int(number.replace(",", "")) for number in found.groups())


def test_storage_is_that_of_the_benchmark():
    text = PAGE.partition("\n| density |")[2].partition("\n\n")[0]
    head, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")]
                       for line in text.splitlines()]
    ratios = {(row["case"], row["format"]): row["ratio"] for row in BLOCKS}
    assert len(lines) == 7
    for density, *cells in lines:
        assert cells == [f"{ratios[f'density {density}', name]:.4g}" for name in head]


def test_counts_are_those_of_the_benchmark():
    assert written(r"Verilog: ([\d,]+) random and") == (sum(row["blocks"] for row in BLOCKS),)
    assert written(r"every other, ([\d,]+) blocks") == (sum(row["blocks"] for row in PAIRS),)
    assert written(r"Then ([\d,]+) damaged streams.* ([\d,]+) gave an `error`") == (
        sum(row["blocks"] for row in DAMAGED), sum(row["errors"] for row in DAMAGED))
    assert not any(row["wrong"] for row in ROWS)


@pytest.mark.parametrize("name", FORMATS)
def test_the_goals_are_met(name):
    rows = {row["case"]: row for row in BLOCKS if row["format"] == name}
    assert rows["density 0.37"]["ratio"] >= 2
    assert round(1 / rows["density 1"]["ratio"] - 1, 4) <= 0.002
    for row in rows.values():
        assert min(row["compressor_words_per_cycle"], row["decompressor_words_per_cycle"]) > 0.996


def test_skipping_is_that_of_the_benchmark():
    rows = json.loads((ROOT / "benchmarks" / "results" / "zce.json").read_text("utf-8"))["rows"]
    text = PAGE.partition("\n| density | goal |")[2].partition("\n\n")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in text.splitlines()[2:]]
    assert {row["format"] for row in rows} == set(FORMATS)
    assert len(rows) == len(lines) * len(FORMATS)
    for row in rows:
        assert [str(row["density"]), f"{row['goal']:.1%}".replace("%", " %"),
                f"{row['fraction']:.2%}".replace("%", " %"),
                f"{row['alone']:.1%}".replace("%", " %")] in lines
        assert row["fraction"] >= row["goal"]
        assert not row["wrong"]
