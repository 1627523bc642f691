"""What docs/synthesis.md and docs/vpcu.md say of area and clock is what `make synth` measured."""

import json
from statistics import median

import pytest

from benchmarks.synth import designs
from exactum.gen.synth_tables import area_table, rate_table
from sim_tests.repository import ROOT

MEASURED = json.loads((ROOT / "benchmarks" / "results" / "synth.json").read_text("utf-8"))
ROWS = {row["design"]: row for row in MEASURED["rows"]}
ALL, E4M3 = "engine, 8 lanes, all formats", "engine, 8 lanes, E4M3"
SUMS = f"{E4M3}, without drain and rounder"


def page(name):
    return (ROOT / "docs" / f"{name}.md").read_text("utf-8")


def test_no_design_is_missing():
    assert {name for name, _, _ in designs()} <= set(ROWS)
    assert all(len(ROWS[name]["fmax_mhz"]) == 3 for name, _, _ in designs())


@pytest.mark.parametrize("table", [area_table, rate_table])
def test_the_tables_are_those_of_the_measurement(table):
    text = page("synthesis")
    rows = [row for row in table(MEASURED["rows"])[1] if row[0] in ROWS]
    assert rows
    for row in rows:
        assert f"| {' | '.join(row)} |" in text


def test_the_page_of_zero_compression_has_the_same_figures():
    text = page("zce")
    rows = [row for row in area_table(MEASURED["rows"])[1]
            if row[0] in ("skipper", "compressor", "decompressor")]
    assert len(rows) == 3
    for row in rows:
        assert f"| {' | '.join(row)} |" in text


def per_multiplier(design):
    return ROWS[design]["lut"] / ROWS[design]["multipliers"]


def test_the_anchors_page_has_the_same_figures():
    text = page("vpcu")
    for design, clock in ((ALL, ALL), (SUMS, E4M3)):
        figures = f"| {per_multiplier(design):.0f} | 1 | {median(ROWS[clock]['fmax_mhz']):.0f} |"
        assert figures in text


@pytest.mark.parametrize(("design", "most", "clock", "least"), [
    (ALL, 538, ALL, 150), (SUMS, 120, E4M3, 200)])
def test_the_goals_of_area_and_clock(design, most, clock, least):
    assert per_multiplier(design) <= most
    assert ROWS[clock]["dsp"] == ROWS[clock]["multipliers"]
    assert len(ROWS[clock]["fmax_mhz"]) == 3
    assert median(ROWS[clock]["fmax_mhz"]) >= least


def test_the_skipper_takes_a_twentieth_of_an_engine_and_is_no_slower():
    assert ROWS["skipper"]["lut"] <= 0.05 * ROWS[ALL]["lut"]
    assert median(ROWS["skipper"]["fmax_mhz"]) >= median(ROWS[ALL]["fmax_mhz"])
    alone = ROWS["vpcu, 8 lanes, E4M3"]["fmax_mhz"]
    assert median(ROWS[E4M3]["fmax_mhz"]) >= min(alone)
