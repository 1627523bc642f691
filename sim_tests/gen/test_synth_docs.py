"""What docs/synthesis.md and docs/vpcu.md say of area and clock is what `make synth` measured."""

import json
from statistics import median

import pytest

from exactum.gen.synth_tables import area_table, rate_table
from sim_tests.repository import ROOT

MEASURED = json.loads((ROOT / "benchmarks" / "results" / "synth.json").read_text("utf-8"))
ROWS = {row["design"]: row for row in MEASURED["rows"]}
ENGINE = "engine, 8 lanes, all formats"


def page(name):
    return (ROOT / "docs" / f"{name}.md").read_text("utf-8")


@pytest.mark.parametrize("table", [area_table, rate_table])
def test_the_tables_are_those_of_the_measurement(table):
    text = page("synthesis")
    for row in table(MEASURED["rows"])[1]:
        assert row[0] not in ROWS or f"| {' | '.join(row)} |" in text


def test_the_anchors_page_has_the_same_figures():
    per_multiplier = ROWS[ENGINE]["lut"] / ROWS[ENGINE]["multipliers"]
    figures = f"| {per_multiplier:.0f} | 1 | {median(ROWS[ENGINE]['fmax_mhz']):.0f} |"
    assert figures in page("vpcu")


def test_the_goals_of_area_and_clock():
    row = ROWS[ENGINE]
    assert row["lut"] / row["multipliers"] <= 538
    assert row["dsp"] == row["multipliers"]
    assert len(row["fmax_mhz"]) == 3
    assert median(row["fmax_mhz"]) >= 150


def test_the_skipper_takes_a_twentieth_of_an_engine_and_is_no_slower():
    assert ROWS["skipper"]["lut"] <= 0.05 * ROWS[ENGINE]["lut"]
    assert median(ROWS["skipper"]["fmax_mhz"]) >= median(ROWS[ENGINE]["fmax_mhz"])
