"""What docs/zce.md says that zeros save is what benchmarks/sparsity.py has measured."""

import json
import re

import pytest

from benchmarks.sparsity_tables import PAGE, RESULTS, fill

TEXT, MEASURED = PAGE.read_text("utf-8"), RESULTS.read_text("utf-8")


def test_tables_are_those_of_the_benchmark():
    """If not: ``python benchmarks/sparsity_tables.py``."""
    assert fill(TEXT, MEASURED) == TEXT


def test_every_goal_is_reached():
    goals = [row for row in json.loads(MEASURED)["rows"] if row["goal"]]
    assert len(goals) == 13
    assert all(row["reached"] == "yes" for row in goals)


def test_a_figure_that_has_changed_is_noticed():
    changed = json.loads(MEASURED)
    changed["rows"][0]["value"] += 0.01
    assert fill(TEXT, json.dumps(changed)) != TEXT


def test_a_page_without_its_tables_is_refused():
    with pytest.raises(ValueError, match="has no table that begins with 'padded text'"):
        fill(re.sub(r"\| padded text \|", "| x |", TEXT), MEASURED)


def test_named_files_and_tests_exist():
    root = PAGE.parent.parent
    for name in re.findall(r"`((?:hdl|host|benchmarks|sim_tests)/[\w/]+\.\w+)`", TEXT):
        assert (root / name).is_file(), name
    for name, test in re.findall(r"`(\w+/\w+\.py)::(\w+)`", TEXT):
        assert f"def {test}(" in (root / "sim_tests" / name).read_text("utf-8"), name
