"""Generated folders: the same bytes anywhere, complete, checkable, and never half replaced."""

import gc
import hashlib
import json
import re
import shutil
from contextlib import nullcontext

import pytest
from amaranth.back import verilog as amaranth_verilog

from exactum.gen import generate as module
from exactum.gen import verilog, writing
from exactum.gen.config import load, preset
from exactum.gen.errors import ExactumError, ToolMissing, UsageError
from exactum.gen.generate import generate
from exactum.gen.manifest import read_manifest, verify_manifest
from exactum.gen.units import UNITS, build
from sim_tests.repository import ROOT, python

TINY = preset("tiny")
SCRIPT = """
import sys
from exactum.gen.config import preset
from exactum.gen.generate import generate
generate(preset("tiny"), sys.argv[1])
"""


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All units of the tiny preset, generated twice: other hash seed, other folder."""
    folders = []
    for seed in ("1", "2"):
        home = tmp_path_factory.mktemp(f"home-{seed}")
        done = python("-c", SCRIPT, home / "out", cwd=home, PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
        folders.append(home / "out")
    return folders


def test_same_bytes_whatever_hash_seed_and_folder(everything):
    first, second = map(contents, everything)
    assert first == second


def test_output_is_complete(everything):
    names = {f"rtl/{unit.top}.{ending}" for unit in UNITS.values() for ending in ("v", "json")}
    assert set(contents(everything[0])) == names | {"configuration.toml", "manifest.json"}


def test_text_has_header_and_neither_paths_nor_tool_versions(everything):
    for name, data in contents(everything[0]).items():
        text = data.decode()
        for stranger in (str(ROOT), str(everything[0].parent), "site-packages", ".py", ".cc:"):
            assert stranger not in text, f"{stranger} in {name}"
        if name.endswith(".v"):
            assert text.startswith(f"// {name[4:-2]}: ")
            assert TINY.hash in text
            assert "Yosys" not in text


def test_every_register_has_a_name(everything):
    """Amaranth calls signals without one $signal, and copies of others' shape $like."""
    for unit in UNITS:
        text = (everything[0] / "rtl" / f"exactum_{unit}.v").read_text("utf-8")
        registers = re.findall(r"^\s*reg .*$", text, re.M)
        assert registers
        assert not [line for line in registers if "$signal" in line or "$like" in line]


def test_manifest_gives_each_files_hash_and_the_tools(everything):
    manifest = json.loads((everything[0] / "manifest.json").read_text())
    files = contents(everything[0])
    del files["manifest.json"]
    assert manifest["files"] == {n: hashlib.sha256(d).hexdigest() for n, d in files.items()}
    assert manifest["configuration"] == {"name": "tiny", "hash": TINY.hash}
    assert set(manifest["tools"]) == {"amaranth", "yosys"}
    assert "Yosys" in manifest["tools"]["yosys"]


def test_resolved_configuration_reads_back(everything):
    assert load(everything[0] / "configuration.toml") == TINY


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")  # only constructed here
@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS.keys())
@pytest.mark.parametrize("changes", [
    {}, {"vpcu.lanes": 64}, {"vpcu.max_k": 64, "vpcu.accumulator_width": 43},
    {"vpcu.formats": ["fp32"], "vpcu.accumulator_width": 60},
    {"softmax.lanes": 16, "softmax.max_length": 16}, {"softmax.max_length": 16384},
    {"softmax.exp_entries": 2048, "softmax.reciprocal_entries": 16384},
    {"softmax.value_width": 22}, {"elementwise.lanes": 16}],
    ids=lambda changes: ",".join(changes) or "tiny")
def test_units_accept_every_legal_configuration(unit, changes):
    assert build(unit, preset("tiny", changes)) is not None
    gc.collect()  # while the warning about components that are never elaborated is off


def test_verify_finds_changed_missing_and_unlisted_files(tmp_path):
    folder = generate(TINY, tmp_path / "out", ["skipper"]).folder
    assert verify_manifest(folder).intact
    (folder / "configuration.toml").write_text("schema = 1\n")
    (folder / "rtl" / "exactum_skipper.v").unlink()
    (folder / "notes.txt").write_text("mine")
    (folder / "board").symlink_to(tmp_path)
    (folder / "empty").mkdir()
    outcome = verify_manifest(folder)
    assert not outcome.intact
    assert outcome.files == {"configuration.toml": "changed", "rtl/exactum_skipper.v": "missing",
                             "rtl/exactum_skipper.json": "intact", "notes.txt": "unlisted",
                             "board": "unlisted"}


GOOD = {"exactum": "0.1.0", "manifest": 1, "configuration": {"name": "a", "hash": "b"},
        "units": ["skipper"], "tools": {"yosys": "0.1"}, "files": {"a.v": "00"}}


@pytest.mark.parametrize("text", [None, "{", "[]", '{"files": {}}', '{"exactum": "1"}',
                                  '{"files": {}, "exactum": 1}'] + [
    json.dumps(GOOD | change) for change in (
        {"exactum": 1}, {"manifest": 2}, {"configuration": {"name": "a"}}, {"configuration": []},
        {"units": "skipper"}, {"units": [1]}, {"tools": None}, {"files": {"a.v": 7}})] + [
    json.dumps({key: value for key, value in GOOD.items() if key != left}) for left in GOOD])
def test_folder_without_a_manifest_of_ours(text, tmp_path):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match="X112"):
        read_manifest(tmp_path)


def test_interrupted_run_leaves_the_last_good_one(tmp_path, monkeypatch):
    out = tmp_path / "out"
    before = contents(generate(TINY, out, ["skipper"]).folder)
    wait = module.Writers.wait

    def interrupted(self, unit):
        if unit.name == "decompressor":
            raise KeyboardInterrupt
        return wait(self, unit)

    monkeypatch.setattr(module.Writers, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(preset("small"), out, ["skipper", "decompressor"])
    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_killed_run_leaves_the_last_good_one(tmp_path):
    out = tmp_path / "out"
    before = contents(generate(TINY, out, ["skipper"]).folder)
    script = ("import os, sys\n"
              "from exactum.gen.config import preset\n"
              "from exactum.gen.generate import generate\n"
              "def step(name):\n"
              "    if name == 'manifest': os._exit(9)\n"
              "    from contextlib import nullcontext\n"
              "    return nullcontext()\n"
              "generate(preset('small'), sys.argv[1], ['skipper'], step=step)\n")
    assert python("-c", script, out).returncode == 9
    assert contents(out) == before


def test_failed_exchange_puts_the_old_folder_back(tmp_path):
    out = tmp_path / "out"
    before = contents(generate(TINY, out, ["skipper"]).folder)
    with pytest.raises(FileNotFoundError):
        module._replace(out, tmp_path / "never written", tmp_path / "old")
    assert contents(out) == before


def test_earlier_output_is_replaced_whole(tmp_path):
    generate(TINY, tmp_path / "out", ["skipper", "decompressor"])
    folder = generate(preset("small"), tmp_path / "out", ["skipper"]).folder
    assert verify_manifest(folder).intact
    assert read_manifest(folder)["units"] == ["skipper"]


def test_empty_folder_is_taken(tmp_path):
    assert verify_manifest(generate(TINY, tmp_path, ["skipper"]).folder).intact


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_somebody_elses_work_is_left_alone(kind, tmp_path):
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
    else:
        out.write_text("years of work")
    with pytest.raises(UsageError, match="X111"):
        generate(TINY, out, ["skipper"])
    assert "years of work" in (out / "thesis.tex" if kind == "folder" else out).read_text()


@pytest.mark.parametrize(("added", "named"), [
    (["notes.txt"], ": notes.txt\n"), (["board/top.v", "notes.txt"], ": board/top.v, notes.txt\n"),
    (["rtl/e", "rtl/d", "rtl/c", "rtl/b", "rtl/a"], ": rtl/a, rtl/b, rtl/c and 2 more\n")])
def test_files_added_to_an_earlier_output_are_left_alone(added, named, tmp_path):
    out = generate(TINY, tmp_path / "out", ["skipper"]).folder
    for name in added:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    before = contents(out)
    with pytest.raises(UsageError, match="X111") as caught:
        generate(TINY, out, ["skipper"])
    assert named in str(caught.value)
    assert contents(out) == before


def test_file_added_while_the_output_is_written_is_left_alone(tmp_path):
    out = generate(TINY, tmp_path / "out", ["skipper"]).folder

    def step(name):
        (out / "notes.txt").write_text("mine")
        return nullcontext()

    with pytest.raises(UsageError, match=r"X111.*notes\.txt"):
        generate(TINY, out, ["skipper"], step=step)
    assert (out / "notes.txt").read_text() == "mine"


def test_unknown_unit_is_named_with_the_nearest(tmp_path):
    with pytest.raises(UsageError, match=r"X213.*'skiper' \(did you mean `skipper`\?\)"):
        generate(TINY, tmp_path / "out", ["skiper"])


def test_unit_that_cannot_be_written_is_named_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(writing.sys, "executable", shutil.which("false"))
    with pytest.raises(ExactumError, match="X305: writing the Verilog of skipper failed: no mess"):
        generate(TINY, tmp_path / "out", ["skipper"])
    assert not list(tmp_path.iterdir())


def test_memories_that_start_with_one_value_are_filled_by_a_loop():
    lines = "".join(f"    \\m$1 [{i}] = 8'h00;\n" for i in range(300))
    mixed = "  initial begin\n    m[0] = 8'h01;\n    m[1] = 8'h00;\n  end\n"
    assert verilog._tidy(f"  initial begin\n{lines}  end\n{mixed}") == (
        "  initial begin : \\$fill$1\n    integer i;\n    for (i = 0; i < 300; i = i + 1)\n"
        f"      \\m$1 [i] = 8'h00;\n  end\n{mixed}")


def test_without_yosys_one_sentence(tmp_path, monkeypatch):
    def convert(*arguments, **options):
        raise amaranth_verilog.YosysError("no Yosys here")

    monkeypatch.setattr(amaranth_verilog, "convert", convert)
    with pytest.raises(ToolMissing, match=r"X302: Verilog cannot be written: .*\n  next: pip inst"):
        verilog.emit(UNITS["skipper"], None, TINY)
