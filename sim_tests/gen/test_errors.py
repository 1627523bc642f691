"""The table of codes, the exceptions, and that no code is used that the table does not have."""

import copy
import re

import pytest

from exactum.gen import errors
from exactum.gen.errors import (
    CODES,
    ConfigurationError,
    DeviceError,
    ExactumError,
    Problem,
    SimulationError,
    ToolMissing,
    UsageError,
    nearest,
)
from exactum.gen.reference import errors_page
from sim_tests.repository import ROOT


def test_table_rejects_a_code_given_twice():
    with pytest.raises(ValueError, match="X999 is given twice"):
        errors._table([("X999", "a", "b"), ("X999", "c", "d")])


def test_every_code_is_explained():
    for code, entry in CODES.items():
        assert re.fullmatch(r"X[1-5]\d\d", code)
        assert entry.title
        assert entry.title[0].islower() or entry.title.startswith(("Icarus", "Yosys"))
        assert entry.explanation.endswith(".")


def test_every_code_in_the_sources_is_in_the_table():
    table = ROOT / "gen" / "errors.py"
    used = {code for folder in ("gen", "host", "sim_tests/benches")
            for path in (ROOT / folder).rglob("*.py") if path != table
            for code in re.findall(r'"(X\d{3})[":]', path.read_text())}
    assert used | {"X100"} == set(CODES)  # X100 is ConfigurationError's own


def test_unknown_code_is_our_own_mistake():
    with pytest.raises(LookupError, match="X999"):
        ExactumError("X999", "no such code")


def test_text_is_code_sentence_and_next_step():
    assert str(UsageError("X201", "wrong")) == "X201: wrong"
    assert str(UsageError("X201", "wrong", "do this")) == "X201: wrong\n  next: do this"


@pytest.mark.parametrize(("kind", "code"), [
    (SimulationError, 1), (UsageError, 2), (ConfigurationError, 2), (ToolMissing, 3),
    (DeviceError, 4)])
def test_exit_codes(kind, code):
    assert issubclass(kind, ExactumError)
    assert kind.exit_code == code


def test_usage_errors_are_value_errors():
    assert issubclass(UsageError, ValueError)


@pytest.mark.parametrize("error", [
    UsageError("X201", "wrong", "do this"),
    ConfigurationError([Problem("X104", "unknown", "a", "f:1"), Problem("X106", "range", "b")],
                       "look"),
])
def test_errors_can_be_copied(error):
    again = copy.copy(error)
    assert (type(again), str(again)) == (type(error), str(error))


def test_one_problem_is_one_sentence_and_several_are_a_list():
    one = Problem("X104", "unknown", "a", "f:1")
    assert str(ConfigurationError([one])) == "X104: f:1: unknown"
    both = ConfigurationError([one, Problem("X106", "range")])
    assert both.code == "X100"
    assert str(both).splitlines() == ["X100: 2 problems in the configuration",
                                      "  f:1: X104: unknown", "  X106: range"]
    with pytest.raises(ValueError, match="needs a problem"):
        ConfigurationError([])


def test_nearest_spelling():
    assert nearest("lanez", ["lanes", "block"]) == " (did you mean `lanes`?)"
    assert nearest("xyz", ["lanes", "block"]) == ""


def test_documentation_is_current():
    assert (ROOT / "docs" / "errors.md").read_text() == errors_page(), (
        "run: python -m exactum.gen.reference docs")
