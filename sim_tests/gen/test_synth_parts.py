"""The parts of synthesis that need no tool: areas, harness, reports, cache, tables, progress."""

import json

import pytest

from exactum.gen.errors import ExactumError
from exactum.gen.synth_area import Area, Node, check_fits, read_areas, without
from exactum.gen.synth_cache import Cache, digest
from exactum.gen.synth_flow import Placement, read_report
from exactum.gen.synth_harness import CLOCK, SERIAL, enclose
from exactum.gen.synth_progress import progress
from exactum.gen.synth_tables import area_table, module_table, rate_table, write_results


def test_area_counts_carries_as_two_luts_and_keeps_ram_and_wide_multiplexers_apart():
    area = Area.of_cells({"LUT4": 10, "CCU2C": 3, "PFUMX": 5, "L6MUX21": 2, "TRELLIS_DPR16X4": 2,
                          "TRELLIS_FF": 7, "MULT18X18D": 4, "DP16KD": 1, "$scopeinfo": 9})
    assert area.plain() == {"lut": 16, "lut4": 10, "ccu2c": 3, "lut_ram": 12, "ff": 7, "dsp": 4,
                            "bram": 1}


@pytest.fixture
def stat(tmp_path):
    """Yosys' statistics of a top with two alike lanes, eleven in all, and a rounder."""
    lane = {"LUT4": 3, "MULT18X18D": 4}
    modules = {
        "\\top": {"LUT4": 5, "TRELLIS_FF": 2, "top.rounder": 1,
                  **{f"top.lane_{n}": 1 for n in range(11)}},
        "\\top.rounder": {"CCU2C": 8, "top.rounder.packer": 1},
        "\\top.rounder.packer": {"LUT4": 30},
        **{f"\\top.lane_{n}": {**lane, "LUT4": 3 + n, f"top.lane_{n}.sum": 1} for n in range(11)},
        **{f"\\top.lane_{n}.sum": {"CCU2C": 1} for n in range(11)},
    }
    path = tmp_path / "stat.json"
    path.write_text(json.dumps({"modules": {
        name: {"num_cells_by_type": cells} for name, cells in modules.items()}}))
    return path


def test_modules_include_what_is_inside_and_alike_ones_are_one_row(stat):
    nodes = read_areas(stat, "top")
    lanes = Area(lut4=3 * 11 + 55, ccu2c=11, dsp=44)
    assert nodes == [
        Node(("top",), 1, Area(5 + 30, 8, 0, 2) + lanes),
        Node(("top", "lane_*"), 11, lanes),
        Node(("top", "lane_*", "sum"), 11, Area(ccu2c=11)),
        Node(("top", "rounder"), 1, Area(30, 8)),
        Node(("top", "rounder", "packer"), 1, Area(30)),
    ]


def test_a_design_without_some_modules(stat):
    whole, *_ = nodes = read_areas(stat, "top")
    rest = without(whole.area, nodes, ["rounder", "sum"])
    assert rest == whole.area - Area(30, 8) - Area(ccu2c=11)
    assert without(whole.area, nodes, ["rounder", "lane_*"]) == Area(5, 0, 0, 2)
    with pytest.raises(LookupError, match="no module is called drain"):
        without(whole.area, nodes, ["drain", "rounder"])


@pytest.mark.parametrize("text", ["", "{}", '{"modules": {}}', '{"modules": {"top": {}}}', "[1]"])
def test_unreadable_statistics_are_a_sentence(tmp_path, text):
    (tmp_path / "stat.json").write_text(text)
    with pytest.raises(ExactumError, match="X305: Yosys' statistics cannot be read"):
        read_areas(tmp_path / "stat.json", "top")


def test_what_does_not_fit_is_named_with_what_there_is():
    check_fits(Area(lut4=83_640, ff=83_640, dsp=156, bram=208), "it")
    with pytest.raises(ExactumError, match="X503") as caught:
        check_fits(Area(lut4=80_000, ccu2c=2_000, dsp=160), "engine of big")
    assert "engine of big does not fit" in str(caught.value)
    assert "LUT 84,000 of 83,640, DSP 160 of 156" in str(caught.value)


NETLIST = {"creator": "Yosys", "modules": {"LUT4": {"attributes": {"blackbox": 1}}, "top": {
    "attributes": {"top": "1"}, "netnames": {},
    "ports": {"clk": {"direction": "input", "bits": [2]},
              "a": {"direction": "input", "bits": [3, 4]},
              "o": {"direction": "output", "bits": [5, "0", 3]}},
    "cells": {"lut": {"type": "LUT4", "connections": {"A": [3], "B": [4], "Z": [5]}},
              "hidden": {"type": "LUT4", "connections": {"A": [9], "Z": [10]}}}}}}


def test_harness_puts_a_flip_flop_at_every_port_bit_and_leaves_the_cells():
    enclosed = enclose(NETLIST, "top")
    assert list(enclosed["modules"]) == ["top"]
    top = enclosed["modules"]["top"]
    assert {name: port["direction"] for name, port in top["ports"].items()} == {
        CLOCK: "input", SERIAL: "input"}
    before = NETLIST["modules"]["top"]["cells"]
    assert {name: top["cells"][name] for name in before} == before
    added = {name: cell["connections"] for name, cell in top["cells"].items()
             if name not in before}
    serial, = top["ports"][SERIAL]["bits"]
    shift = [(item["DI"][0], item["Q"][0]) for name, item in added.items() if "_i_" in name]
    assert shift == [(serial, 3), (3, 4)]  # a chain from the pin through the input bits
    ends = [(item["DI"][0], item["Q"][0]) for name, item in added.items() if "_o_" in name]
    assert [data for data, _ in ends] == [5, 3]  # the constant needs none
    fresh = [serial, *(out for _, out in ends)]
    assert len(set(fresh)) == 3
    assert not set(fresh) & {2, 3, 4, 5, 9, 10}  # no net is driven twice
    assert all(item["CLK"] == [2] for item in added.values())


@pytest.mark.parametrize("top", ["other", "LUT4"])
def test_netlist_without_that_top_is_refused(top):
    with pytest.raises(KeyError):
        enclose(NETLIST, top)


NET = "$glbnet$clk$TRELLIS_IO_IN"
REPORT = {
    "fmax": {NET: {"achieved": 84.37394, "constraint": 100}},
    "critical_paths": [
        {"from": "<async>", "to": f"posedge {NET}", "path": []},
        {"from": f"posedge {NET}", "to": f"posedge {NET}", "path": [
            {"type": "clk-to-q", "delay": 0.525, "from": {"cell": "s1_counts_TRELLIS_FF_Q_61"}},
            {"type": "routing", "delay": 1.394},
            {"type": "logic", "delay": 0.447},
            {"type": "setup", "delay": 0.1, "from": {}, "to": {"cell": "o.x$3_TRELLIS_FF_Q_6"}}]}],
    "utilization": {"TRELLIS_FF": {"available": 83640, "used": 407}},
}


def test_report_gives_the_clock_and_the_longest_path(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(REPORT))
    assert read_report(path, 4) == Placement(4, 84.37, "s1_counts", "o.x$3", 1.07, 1.39)


@pytest.mark.parametrize("change", [
    {"fmax": {}}, {"fmax": {**REPORT["fmax"], "other": {"achieved": 1}}}, {"critical_paths": []},
    {"fmax": {NET: {}}}])
def test_report_of_no_or_two_clocks_is_a_sentence(tmp_path, change):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(REPORT | change))
    with pytest.raises(ExactumError, match="X305: nextpnr's report of seed 4 cannot be read"):
        read_report(path, 4)


def test_cache_keeps_values_and_forgets_damaged_ones(tmp_path):
    cache = Cache(tmp_path / "cache")
    assert cache.get("a") is None
    cache.put("a", {"x": [1, 2.5]})
    assert cache.get("a") == {"x": [1, 2.5]}
    assert [path.name for path in cache.folder.iterdir()] == ["a.json"]
    for text in ("{", "[1]", ""):
        (cache.folder / "a.json").write_text(text)
        assert cache.get("a") is None


def test_cache_lies_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Cache().folder == tmp_path / "exactum" / "synth"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Cache().folder == tmp_path / ".cache" / "exactum" / "synth"


def test_digest_depends_on_every_part():
    parts = {"verilog": "a", "options": ["x", "y"]}
    others = [{"verilog": "b"}, {"options": ["xy"]}, {"options": ["y", "x"]}, {"more": 1}]
    assert len({digest(**parts), *(digest(**parts | other) for other in others)}) == 5


ROW = {"design": "engine", **Area(1000, 200, 6, 30, 4, 1).plain(), "fmax_mhz": [99.0, 80.0, 90.5],
       "macs_per_cycle": {"e4m3": 32, "fp32": 8},
       "macs_per_second": {"e4m3": 2_896_000_000, "fp32": 724_000_000}}


def test_tables_show_median_range_and_rates():
    heads, (row, device) = area_table([ROW])
    assert dict(zip(heads, row, strict=True)) == {
        "design": "engine", "LUT4": "1,000", "CCU2C": "200", "LUT + 2 CCU2C": "1,400",
        "LUT RAM": "6", "FF": "30", "DSP": "4", "block RAM": "1",
        "Fmax, MHz": "90.5 (80.0 to 99.0)"}
    assert device == ("LFE5U-85F", "", "", "83,640", "", "83,640", "156", "208", "")
    assert rate_table([ROW])[1] == [
        ("engine", "e4m3", "32", "2.9"), ("engine", "fp32", "8", "0.724")]


@pytest.mark.parametrize(("fmax", "shown"), [
    ([], "not placed"), ([80.04], "80.0"), ([80.0, 90.0], "85.0 (80.0 to 90.0)")])
def test_clock_of_few_seeds(fmax, shown):
    assert area_table([ROW | {"fmax_mhz": fmax}])[1][0][-1] == shown


def test_module_table_is_indented():
    _, rows = module_table([Node(("top",), 1, Area(5)), Node(("top", "lane_*"), 8, Area(4))])
    assert [row[:3] for row in rows] == [("top", "1", "5"), ("  lane_*", "8", "4")]


def test_results_are_written_whole_with_a_list_on_a_line(tmp_path):
    path = tmp_path / "synth.json"
    path.write_text("old")
    rows = [{"design": "a b", "formats": ["e4m3", "fp32"], "fmax_mhz": [1.5, 2.25], "none": []}]
    content = write_results(path, "exactum synth", {"yosys": "1"}, rows)
    assert json.loads(path.read_text()) == content
    assert content["rows"] == rows
    assert content["versions"]["yosys"] == "1"
    assert '"fmax_mhz": [1.5, 2.25],' in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_progress_elsewhere_than_on_a_terminal_is_a_line_for_each_step(capsys):
    with progress("skipper") as watch:
        for stage in ("starting", "proc", "abc9", "done"):
            watch("Yosys", stage)
        for stage in ("starting", "placing", "placing", "done"):
            watch("seed 1", stage)
    with progress("skipper", quiet=True) as watch:
        watch("Yosys", "starting")
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.rpartition(",")[0] for line in err.splitlines()] == [
        "skipper: Yosys: starting", "skipper: Yosys: done", "skipper: seed 1: starting",
        "skipper: seed 1: placing", "skipper: seed 1: done"]
