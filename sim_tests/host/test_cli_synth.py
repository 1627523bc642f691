"""``exactum synth``: its words, tables, JSON and files, on stand-ins for the tools and on Yosys."""

import json
from pathlib import Path

import pytest

from exactum.gen import synth, synth_cache
from exactum.gen.errors import ToolMissing
from exactum.gen.tools import YOSYS
from exactum.gen.verilog import Verilog
from exactum.host.cli import main
from sim_tests.gen.fake_tools import fake


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the command line in a folder of its own, with a cache there: (code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synth_cache, "_user_cache", lambda: tmp_path / "cache")

    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            main(["synth", *map(str, arguments)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return left.value.code, captured.out, captured.err
    return call


@pytest.fixture
def tools(monkeypatch):
    """Stand-ins for both tools and for the gateware; returns the designs' names as asked for."""
    asked = []

    def emit(unit, component, config):
        asked.append((unit.name, config.name, config.target))
        return Verilog(f"// header\n\nmodule {unit.top}; endmodule", "")

    monkeypatch.setattr(synth, "find",
                        lambda kind: fake("yosys" if kind is YOSYS else "nextpnr-ecp5"))
    monkeypatch.setattr(synth, "build", lambda unit, config: None)
    monkeypatch.setattr(synth, "emit", emit)
    return asked


def test_units_and_configuration_are_words_and_the_tables_have_them(run, tools):
    code, out, err = run("small", "skipper", "engine")
    assert code == 0
    assert tools == [("engine", "small", "ecp5"), ("skipper", "small", "ecp5")]
    lines = [line.split("  ") for line in out.splitlines()]
    found = {line[0]: line[-1].strip() for line in lines}
    assert found["engine of small"] == "0.408"  # fp32, the last line of the engine's rates
    assert "skipper of small" in out
    assert "102.0 (101.0 to 103.0)" in out
    assert "LFE5U-85F" in out
    assert [line.rpartition(",")[0] for line in err.splitlines() if "seed 3" in line][-1] == (
        "skipper: seed 3: done")


def test_all_units_without_words(run, tools):
    assert run("--estimate", "-q")[0] == 0
    assert [unit for unit, *_ in tools] == ["engine", "vpcu", "skipper", "compressor",
                                            "decompressor", "softmax", "elementwise"]
    assert {name for _, name, _ in tools} == {"default"}


def test_results_file_says_how_it_was_made(run, tools):
    code, out, _ = run("tiny", "vpcu", "--seeds", 2, "--clock", 150, "-o", "r.json",
                       "-s", "vpcu.lanes=2")
    assert code == 0
    assert "written to r.json" in out
    content = json.loads(Path("r.json").read_text())
    assert content["command"] == (
        "exactum synth tiny vpcu --clock 150.0 -s vpcu.lanes=2 --seeds 2")
    assert set(content["versions"]) == {"exactum", "yosys", "nextpnr-ecp5"}
    row, = content["rows"]
    assert (row["lanes"], row["multipliers"], row["formats"]) == (2, 8, ["e4m3"])
    assert row["fmax_mhz"] == [151.0, 152.0]
    assert row["macs_per_second"] == {"e4m3": 8 * 151_500_000}


def test_estimate_places_nothing_and_modules_are_shown(run, tools):
    code, out, err = run("tiny", "skipper", "--estimate", "--by-module")
    assert code == 0
    assert "not placed" in out
    assert "  part " in out
    assert "seed" not in err
    code, out, err = run("tiny", "skipper", "--estimate", "--by-module", "--json")
    assert (code, err) == (0, "")
    row, = json.loads(out)["rows"]
    assert row["fmax_mhz"] == []
    assert [module["path"] for module in row["modules"]] == [
        "exactum_skipper", "exactum_skipper/part"]


def test_verbose_shows_what_limits_the_clock(run, tools):
    assert "logic, ns" in run("tiny", "skipper", "-v", "--seeds", "1")[1]
    assert "logic, ns" not in run("tiny", "skipper", "--seeds", "1")[1]


@pytest.mark.parametrize(("arguments", "words"), [
    (["skiper"], "X213: no unit is called 'skiper' (did you mean `skipper`?)"),
    (["--seeds", "0"], "Invalid value for '--seeds'"),
    (["--clock", "0"], "Invalid value for '--clock'"),
    (["--clock", "nan"], "nan is not a number of MHz; 1 to 1000 are allowed"),
    (["skipper", "-o", "no/such/r.json"], "X114: 'no/such/r.json' cannot be used: No such folder"),
])
def test_bad_input_is_a_sentence_before_anything_runs(run, tools, arguments, words):
    code, _, err = run(*arguments)
    assert code == 2
    assert words in err
    assert tools == []


def test_missing_tool_leaves_with_3(run, tools, monkeypatch):
    def missing(kind):
        raise ToolMissing("X304", f"{kind.program} is not there", "install it")

    monkeypatch.setattr(synth, "find", missing)
    assert run("tiny", "skipper", "-q") == (
        3, "", "X304: yosys is not there\n  next: install it\n")


def test_failing_tool_leaves_with_1_and_names_its_log(run, tools):
    code, _, err = run("tiny", "skipper", "--seeds", 13)
    assert code == 1
    assert "X305: nextpnr-ecp5 left with 255:\n  ERROR: Unable to place" in err
    assert "next: read exactum-synth/tiny/skipper/seed-13.log" in err


def test_yosys_estimates_a_unit_and_the_cache_answers_the_second_time(run):
    code, out, _ = run("tiny", "skipper", "--estimate", "--json")
    assert code == 0
    row, = json.loads(out)["rows"]
    assert row["lut"] == row["lut4"] + 2 * row["ccu2c"]
    assert 5 * 2 * 64 < row["ff"] < 1300  # five windows of 64 elements
    assert 200 < row["lut"] < 2000
    assert (row["dsp"], row["bram"]) == (0, 0)
    Path("exactum-synth/tiny/skipper/netlist.log").unlink()
    assert run("tiny", "skipper", "--estimate", "--json")[:2] == (0, out)
    assert not Path("exactum-synth/tiny/skipper/netlist.log").exists()
