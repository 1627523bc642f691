"""Synthesis: the flow on stand-ins for the tools, what is cached, and Yosys on a small module."""

import pytest

from exactum.gen import synth, synth_flow
from exactum.gen.config import preset
from exactum.gen.errors import ExactumError, ToolMissing, UsageError
from exactum.gen.synth import for_device, synthesise
from exactum.gen.synth_area import Area
from exactum.gen.synth_cache import Cache
from exactum.gen.synth_flow import Flow
from exactum.gen.tools import NEXTPNR, YOSYS, find
from exactum.gen.verilog import Verilog
from sim_tests.gen.fake_tools import fake

TINY = preset("tiny")


class Bench:
    """A folder with a cache, stand-ins for tools and Verilog; ``run`` synthesises in it."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.cache = folder, Cache(folder / "cache")
        self.yosys, self.nextpnr = fake("yosys"), fake("nextpnr-ecp5")
        self.body, self.stages = "module x; endmodule\n", []
        monkeypatch.setattr(synth, "find", self._find)
        monkeypatch.setattr(synth, "build", lambda unit, config: None)
        monkeypatch.setattr(synth, "emit", self._emit)

    def _find(self, kind):
        return self.yosys if kind is YOSYS else self.nextpnr

    def _emit(self, unit, component, config):
        return Verilog(f"// {config.name}, {config.hash}\n\n{self.body}", "")

    def run(self, unit="skipper", config=TINY, **options):
        self.stages.clear()
        return synthesise(unit, config, self.folder / "work", cache=self.cache,
                          watch=lambda what, stage: self.stages.append((what, stage)), **options)

    def calls(self):
        """The tools called since the last time, and nextpnr's seeds."""
        found = []
        for path in sorted((self.folder / "work").rglob("calls")):
            for line in path.read_text().splitlines():
                words = line.split()
                found.append(words[0] if words[0] == "yosys"
                             else f"seed {words[words.index('--seed') + 1]}")
            path.unlink()
        return found


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return Bench(tmp_path, monkeypatch)


def test_result_has_the_area_and_a_clock_for_each_seed(bench):
    result = bench.run(seeds=(3, 1), by_module=True)
    assert result.area == Area(lut4=10, ff=4)
    assert result.fmax_mhz == [103.0, 101.0]
    assert result.median_mhz == 102.0
    assert [(node.path[-1], node.area.lut) for node in result.nodes] == [
        ("exactum_skipper", 11), ("part", 9)]
    assert result.versions == {"yosys": "1", "nextpnr-ecp5": "1"}
    assert bench.calls() == ["yosys", "yosys", "seed 3", "seed 1"]
    assert ("Yosys", "proc") in bench.stages
    assert ("seed 3", "packing") in bench.stages
    assert ("seed 3", "placing") in bench.stages
    assert bench.stages[-1] == ("seed 1", "done")


def test_estimate_needs_no_nextpnr(bench):
    bench.nextpnr = None
    result = bench.run()
    assert (result.placements, result.median_mhz, result.area.lut) == ((), None, 10)
    assert list(result.versions) == ["yosys"]
    assert result.row()["fmax_mhz"] == []


def test_second_run_calls_no_tool(bench):
    first = bench.run(seeds=(1, 2), by_module=True)
    assert len(bench.calls()) == 4
    assert bench.run(seeds=(1, 2), by_module=True) == first
    assert bench.calls() == []
    assert {stage for _, stage in bench.stages} == {"writing", "done", "cached"}


def test_another_name_of_the_configuration_is_the_same_hardware(bench):
    bench.run(seeds=(1,))
    bench.calls()
    bench.run(config=TINY.replace({"name": "other"}), seeds=(1,))
    assert bench.calls() == []


@pytest.mark.parametrize(("change", "again"), [
    (lambda bench: setattr(bench, "body", "module y; endmodule\n"), ["yosys", "seed 1"]),
    (lambda bench: setattr(bench, "yosys", fake("yosys", "2")), ["yosys", "seed 1"]),
    (lambda bench: setattr(bench, "nextpnr", fake("nextpnr-ecp5", "2")), ["seed 1"]),
], ids=["verilog", "yosys", "nextpnr"])
def test_what_changed_runs_again(bench, change, again):
    bench.run(seeds=(1,))
    bench.calls()
    change(bench)
    bench.run(seeds=(1,))
    assert bench.calls() == again


def test_another_seed_or_clock_only_places_again(bench):
    bench.run(seeds=(1,))
    bench.calls()
    bench.run(seeds=(1, 2))
    assert bench.calls() == ["seed 2"]
    assert bench.run(seeds=(1,), clock_mhz=150.0).fmax_mhz == [151.0]
    assert bench.calls() == ["seed 1"]


def test_netlist_that_is_gone_or_changed_is_made_again(bench):
    bench.run(seeds=(1,))
    netlist = bench.folder / "work" / "tiny" / "skipper" / "netlist.json"
    for seed, spoil in ((2, netlist.unlink), (3, lambda: netlist.write_text("{}"))):
        bench.calls()
        spoil()
        bench.run(seeds=(seed,))
        assert bench.calls() == ["yosys", f"seed {seed}"]


def test_seeds_side_by_side_share_one_netlist(bench, monkeypatch):
    made, enclose_file = [], synth_flow.enclose_file
    monkeypatch.setattr(synth_flow, "enclose_file",
                        lambda *files: made.append(files) or enclose_file(*files))
    assert bench.run(seeds=range(1, 5), jobs=4).fmax_mhz == [101.0, 102.0, 103.0, 104.0]
    assert sorted(bench.calls()) == ["seed 1", "seed 2", "seed 3", "seed 4", "yosys"]
    assert len(made) == 1


def test_design_larger_than_the_device_is_not_placed(bench):
    bench.body = "module large; endmodule\n"
    assert bench.run().area.lut == 100_000  # an estimate says how much too large
    with pytest.raises(ExactumError, match="X503: skipper of tiny does not fit"):
        bench.run(seeds=(1,))
    assert bench.calls() == ["yosys"]


def test_failing_tool_is_named_with_its_words_and_leaves_nothing_in_the_cache(bench):
    with pytest.raises(ExactumError, match="X305") as caught:
        bench.run(seeds=(1, 13))
    assert "nextpnr-ecp5 left with 255:\n  ERROR: Unable to place cell 'x'" in str(caught.value)
    assert "seed-13.log" in str(caught.value)
    bench.calls()
    with pytest.raises(ExactumError, match="X305"):
        bench.run(seeds=(1, 13))
    assert bench.calls() == ["seed 13"]


def test_missing_tools_and_unknown_units_are_found_before_anything_runs(bench, monkeypatch):
    def missing(kind):
        if kind is NEXTPNR:
            raise ToolMissing("X304", "none")
        return bench.yosys

    monkeypatch.setattr(synth, "find", missing)
    with pytest.raises(ToolMissing, match="X304"):
        bench.run(seeds=(1,))
    with pytest.raises(UsageError, match="X213"):
        bench.run("skiper")
    assert bench.calls() == []


@pytest.mark.parametrize(("unit", "lanes", "multipliers", "rates"), [
    ("engine", 4, 16, {"e4m3": 16, "e5m2": 16, "fp16": 16, "bf16": 16, "fp32": 4}),
    ("softmax", 4, 0, {}), ("elementwise", 4, 0, {}), ("skipper", 1, 0, {})])
def test_row_says_what_is_multiplied(bench, unit, lanes, multipliers, rates):
    row = bench.run(unit, preset("small"), seeds=(1,)).row()
    assert (row["design"], row["lanes"], row["multipliers"]) == (
        f"{unit} of small", lanes, multipliers)
    assert row["formats"] == list(rates)
    assert row["macs_per_cycle"] == rates
    assert row["macs_per_second"] == {name: count * 101_000_000 for name, count in rates.items()}


def test_configuration_is_that_of_the_device():
    assert for_device(TINY).target == "ecp5"


COUNTER = """module counter(input clk, input rst, output reg [7:0] o, output any);
  assign any = |o;
  always @(posedge clk) if (rst) o <= 0; else o <= o + 1;
endmodule
"""


def test_yosys_counts_a_counter_and_its_netlist_takes_the_harness(tmp_path):
    (tmp_path / "counter.v").write_text(COUNTER)
    flow = Flow("counter", tmp_path, "0", find(YOSYS), None, Cache(tmp_path / "cache"),
                lambda what, stage: None)
    area = flow.areas()[0].area
    assert (area.ff, area.dsp, area.bram, area.lut_ram) == (8, 0, 0, 0)
    assert area.ccu2c in (4, 5)
    flow._prepare()
    assert (tmp_path / "enclosed.json").read_text().count('"TRELLIS_FF"') == 8 + 1 + 9


def test_yosys_says_what_is_wrong_with_verilog(tmp_path):
    (tmp_path / "counter.v").write_text("module counter(;\n")
    flow = Flow("counter", tmp_path, "0", find(YOSYS), None, Cache(tmp_path / "cache"),
                lambda what, stage: None)
    with pytest.raises(ExactumError, match="X305") as caught:
        flow.areas()
    assert "yosys left with 1:" in str(caught.value)
    assert "ERROR: syntax error" in str(caught.value)
