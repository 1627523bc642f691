"""The runner of the benches: what it reads, and what it says when something is missing."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from exactum.benches import runner
from exactum.gen.config import preset
from exactum.gen.errors import SimulationError, ToolMissing, UsageError
from exactum.gen.units import UNITS

RESULTS = """<testsuites><testsuite name="exactum.benches.skipper">
<testcase name="test_good" time="0.25"/>
<testcase name="test_bad" time="1"><failure message="got 3&#10;expected 4">at</failure></testcase>
<testcase name="test_odd" time="0"><error>first line
second</error></testcase>
<testcase name="test_left_out"><skipped/></testcase>
</testsuite></testsuites>"""


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_has_a_bench(unit):
    assert find_spec(f"exactum.benches.{unit}")


def test_results_are_read_with_the_first_line_of_what_failed(tmp_path):
    (tmp_path / "results.xml").write_text(RESULTS)
    cases = runner._read(tmp_path / "results.xml")
    assert cases == (runner.Case("test_good", True, 0.25),
                     runner.Case("test_bad", False, 1.0, "got 3"),
                     runner.Case("test_odd", False, 0.0, "first line"))
    result = runner.Result("skipper", cases, 2.0, Path("x.log"))
    assert not result.passed
    assert str(result) == ("skipper: 1 of 3 tests passed in 2.0 s\n  test_bad: got 3\n"
                           "  test_odd: first line")


def test_a_bench_without_tests_has_not_passed():
    assert not runner.Result("skipper", (), 0.0, Path("x.log")).passed


def test_missing_tools(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="X301"):
        runner.run("skipper", preset("tiny"), build_dir=tmp_path)
    monkeypatch.setattr(runner.shutil, "which", lambda program: program)
    monkeypatch.setattr(runner, "find_spec", lambda name: None)
    with pytest.raises(ToolMissing, match=r"X303: the Python package cocotb .*\n.*exactum\[sim\]"):
        runner.run("skipper", preset("tiny"), build_dir=tmp_path)


def test_unknown_unit(tmp_path):
    with pytest.raises(UsageError, match="X213"):
        runner.run("skiper", preset("tiny"), build_dir=tmp_path)


@pytest.mark.parametrize(("fault", "words"), [
    ("module exactum_skipper(;", "build.log"),
    ("module exactum_skipper; initial $fatal(1); endmodule", "simulation.log"),
])
def test_simulation_that_stops_early_names_its_log(fault, words, tmp_path, monkeypatch):
    write_unit = runner.write_unit

    def damaged(unit, config, folder):
        write_unit(unit, config, folder)
        (folder / f"{unit.top}.v").write_text(fault)

    monkeypatch.setattr(runner, "write_unit", damaged)
    with pytest.raises(SimulationError, match="X502") as caught:
        runner.run("skipper", preset("tiny"), build_dir=tmp_path)
    assert words in caught.value.hint


def test_unknown_test_name(tmp_path):
    with pytest.raises(SimulationError, match="X502: the bench of skipper ran no test"):
        runner.run("skipper", preset("tiny"), build_dir=tmp_path, tests=["no_such_test"])
