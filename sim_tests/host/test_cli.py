"""The command line: quick help, exit codes, and a sentence for every mistake."""

import json
import sys
import types
from pathlib import Path

import pytest

from exactum.benches import runner
from exactum.gen.config import load, preset
from exactum.gen.doctor import Finding
from exactum.gen.errors import CODES, DeviceError
from exactum.gen.units import UNITS
from exactum.host.cli import VERBS, main
from sim_tests.repository import python

HEAVY = ("torch", "amaranth", "pydantic", "numpy", "rich", "cocotb")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            main(list(map(str, arguments)))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err or "-v" in arguments
        return left.value.code, captured.out, captured.err
    return call


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["sim", "--help"],
                                       ["explain", "--help"], ["demo", "--help"],
                                       ["selftest", "--help"], ["serve", "--help"]], ids=" ".join)
def test_help_is_quick_and_imports_nothing_heavy(arguments):
    script = ("import sys, time\n"
              "from exactum.host.cli import main\n"
              "try: main(sys.argv[1:])\n"
              "except SystemExit as left: assert left.code == 0\n"
              f"print(sorted(set({HEAVY}) & set(sys.modules)), time.process_time() < 0.3,"
              " file=sys.stderr)\n")
    done = python("-c", script, *arguments)
    assert (done.returncode, done.stderr.strip()) == (0, "[] True")


def test_help_lists_every_verb(run):
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"  {verb} " in out and line in out for verb, line in VERBS.items())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_the_common_options(run, verb):
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert all(option in out for option in ("--json", "--verbose", "--quiet"))


@pytest.mark.parametrize(("arguments", "code", "words"), [
    ([], 2, "Usage: exactum"),
    (["genrate"], 2, "there is no verb 'genrate' (did you mean `generate`?)"),
    (["check", "--jsn"], 2, "No such option"),
    (["check"], 2, "X101: no configuration is named\n  next: exactum check FILE.toml"),
    (["check", "tinny"], 2, 'X103: presets are tiny, small, default; got "tinny" (did you mean '
     "`tiny`?)"),
    (["check", "missing.toml"], 2, "X101: 'missing.toml' cannot be read: does not exist\n"
     "  next: exactum new missing.toml"),
    (["check", "tiny", "-s", "vpcu.lanez=3"], 2, "X104: -s vpcu.lanez: unknown key `vpcu.lanez` "
     "(did you mean `lanes`?)"),
    (["check", "tiny", "-s", "vpcu.lanes=65"], 2, "X106: -s vpcu.lanes: `vpcu.lanes` is an integer "
     "from 1 to 64; got 65; the nearest is 64\n  next: exactum explain vpcu.lanes"),
    (["generate", "-c", "tiny", "-s", "vpcu.lanes=two"], 2, 'X105: -s vpcu.lanes: `vpcu.lanes` is '
     'an integer from 1 to 64; got "two"'),
    (["generate", "skiper"], 2, "X213: no unit is called 'skiper' (did you mean `skipper`?)"),
    (["sim", "skiper"], 2, "X213: no unit is called 'skiper' (did you mean `skipper`?)"),
    (["generate", "small", "tiny"], 2, "X115: one configuration is wanted; got small, tiny"),
    (["sim", "my.toml", "-c", "tiny"], 2, "X115: one configuration is wanted; got tiny, my.toml"),
    (["sim", "--seed", "-1"], 2, "Invalid value for '--seed'"),
    (["generate", "b.txt"], 2, "X101: 'b.txt' cannot be read: does not exist"),
    (["sim", "no/such"], 2, "X101: 'no/such' cannot be read: does not exist"),
    (["sim", "foo"], 2, "engine, vpcu, skipper, compressor, decompressor, softmax, "
     "elementwise\n"
     "  next: exactum sim --list says what each does"),
    (["sim", "skipper", "-t", "nosuch"], 2, "X206: no bench of skipper has a test 'nosuch'"),
    (["check", "/"], 2, "X101: '/' cannot be read: it is a folder\n  next: name a preset"),
    (["check", ""], 2, 'X103: presets are tiny, small, default; got ""'),
    (["check", "tiny", "-s", "extends=small"], 2, "X104: -s extends: `extends` belongs in a file"),
    (["check", "tiny", "-s", 'name="\U0001d518x"'], 2, "X106: -s name: `name` is a string of at "
     "most 64 characters out of A-Z, a-z, 0-9, space and . _ + -, a letter or digit first"),
    (["verify", "."], 2, "X112: 'manifest.json' cannot be read: No such file"),
    (["explain", "vpcu.lane"], 2, "X214: 'vpcu.lane' is neither an error code nor a key (did you "
     "mean `vpcu.lanes`?)"),
    (["explain", "X999"], 2, "X214: 'X999' is neither"),
    (["new", "no/such/folder/x.toml"], 2, "X114: 'no/such/folder/x.toml' cannot be used: No such"),
    (["new", "-p", "tinny"], 2, "X103"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_input_gets_one_sentence_and_exit_code_2(run, arguments, code, words):
    left, _, err = run(*arguments)
    assert left == code
    assert words in err
    assert not list(Path().iterdir())


def test_missing_icarus_is_one_sentence_and_exit_code_3(run, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert run("sim", "-c", "tiny") == (
        3, "", "X301: Icarus Verilog (iverilog, vvp) is not on the PATH\n"
        "  next: apt install iverilog\n")


def test_missing_package_is_one_sentence_and_exit_code_3(run, monkeypatch):
    def absent():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("exactum.gen.doctor.examine", absent)
    assert run("doctor") == (3, "", "X303: the Python package torch is not installed\n"
                             "  next: pip install 'exactum[host]'\n")


def test_device_errors_leave_with_4(run, monkeypatch):
    def examine():
        raise DeviceError("X401", "no such port", "plug it in")
    monkeypatch.setattr("exactum.gen.doctor.examine", examine)
    assert run("doctor") == (4, "", "X401: no such port\n  next: plug it in\n")


def test_verbose_shows_the_traceback_too(run):
    code, _, err = run("check", "tinny", "-v")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("next: exactum new FILE.toml writes a configuration to start from\n")


def test_errors_as_json_keep_their_parts(run):
    code, out, err = run("check", "tiny", "--json", "-s", "a=1", "-s", "vpcu.lanes=0")
    assert (code, err) == (2, "")
    error = json.loads(out)["error"]
    assert error["code"] == "X100"
    assert [(p["where"], p["code"]) for p in error["problems"]] == [
        ("-s a", "X104"), ("-s vpcu.lanes", "X106")]


def test_new_check_and_generate_follow_each_other(run):
    assert run("new", "mine.toml", "-p", "tiny")[0] == 0
    text = Path("mine.toml").read_text()
    uncommented = "\n".join(line.removeprefix("# ") if " = " in line else line
                            for line in text.splitlines())
    assert load("mine.toml").replace({"name": "tiny"}) == preset("tiny")
    Path("mine.toml").write_text(uncommented)
    assert load("mine.toml").replace({"name": "tiny"}) == preset("tiny")
    code, out, _ = run("check", "mine.toml")
    assert code == 0
    assert 'name = "mine"' in out
    code, out, _ = run("generate", "skipper", "mine.toml")
    assert code == 0
    assert "[1/2] Verilog of skipper ... " in out
    assert "written to exactum-mine; check it with: exactum verify exactum-mine" in out
    assert run("verify", "exactum-mine")[0] == 0
    Path("exactum-mine/configuration.toml").write_text("")
    code, out, _ = run("verify", "exactum-mine")
    assert code == 1
    assert "configuration.toml        changed" in out


def test_new_overwrites_nothing(run):
    Path("exactum.toml").write_text("mine")
    code, _, err = run("new")
    assert (code, err) == (2, "X113: 'exactum.toml' already exists\n  next: exactum new "
                           "OTHER.toml\n")
    assert Path("exactum.toml").read_text() == "mine"


def test_generate_leaves_a_strangers_folder_alone(run):
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("years of work")
    code, _, err = run("generate", "skipper", "-c", "tiny", "--out", "out")
    assert code == 2
    assert "X111: " in err


def test_quiet_and_json_print_only_what_they_should(run):
    code, out, err = run("generate", "skipper", "-c", "tiny", "-q")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["file", "rtl/exactum_skipper.v"]
    code, out, err = run("generate", "skipper", "-c", "tiny", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["manifest"]["units"] == ["skipper"]


def test_explain_knows_codes_and_keys(run):
    for code, entry in CODES.items():
        assert entry.explanation in run("explain", code.lower())[1]
    _, out, _ = run("explain", "vpcu.accumulator_width")
    assert "allowed: an integer from 24 to 256" in out
    assert "presets: tiny 48, small 100, default 100" in out
    assert "rule N4" in out


@pytest.mark.parametrize(("topic", "words"), [
    ("extends", ["extends: Preset that gives", "allowed: tiny, small, default"]),
    ("schema", ["schema: Version of this file's format.", "allowed: 1"]),
    ("vpcu", ["vpcu: The row-product engine.", "vpcu.lanes: Lanes of", "vpcu.max_k: Longest"]),
])
def test_explain_knows_tables_and_the_keys_of_files(run, topic, words):
    code, out, _ = run("explain", topic)
    assert code == 0
    assert all(word in out for word in words)


@pytest.mark.parametrize("name", ["b.txt", "mine", "folder/mine"])
def test_any_file_may_be_the_configuration(run, name):
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("schema = 1\nextends = 'tiny'\nname = 'own'\n")
    Path("skipper").write_text("a file of the user's, which hides no unit")
    code, out, _ = run("generate", name, "skipper", "-q")
    assert (code, out.split()[3]) == (0, "rtl/exactum_skipper.v")
    assert Path("exactum-own/rtl/exactum_skipper.v").is_file()


def test_generate_leaves_files_added_to_its_output_alone(run):
    assert run("generate", "tiny", "skipper", "-o", "o1")[0] == 0
    Path("o1/notes.txt").write_text("mine")
    code, _, err = run("generate", "tiny", "skipper", "-o", "o1")
    assert code == 2
    assert "X111: " in err
    assert "notes.txt" in err
    assert Path("o1/notes.txt").read_text() == "mine"


def test_verify_of_a_damaged_manifest_is_one_sentence(run):
    Path("manifest.json").write_text('{"files": {}, "exactum": 1}')
    code, _, err = run("verify", ".")
    assert (code, err.splitlines()[0]) == (
        2, "X112: 'manifest.json' is not a manifest of Exactum")


def test_check_prints_the_schema(run):
    code, out, _ = run("check", "--schema")
    assert code == 0
    assert json.loads(out)["title"] == "Exactum configuration"


@pytest.mark.parametrize(("status", "required", "code"), [
    ("ok", True, 0), ("missing", True, 3), ("missing", False, 0)])
def test_doctor_shows_the_advice_and_leaves_with_3_if_a_required_tool_is_missing(
        run, monkeypatch, status, required, code):
    finding = Finding("Yosys", status, "", "writes the Verilog", "pip install it", required)
    monkeypatch.setattr("exactum.gen.doctor.examine", lambda: iter([finding]))
    left, out, _ = run("doctor")
    assert left == code
    assert ("Yosys: pip install it" in out) == (status != "ok")


@pytest.fixture
def bench(monkeypatch):
    """Replaces the simulation: set the messages of failing tests; returns the calls."""
    calls, failures = [], []

    def simulate(unit, config, *, build_dir, waves, seed, tests):
        calls.append((unit, config.name, seed, tests))
        cases = [runner.Case("test_good", True, 0.5)]
        cases += [runner.Case("test_bad", False, 0.1, message) for message in failures]
        return runner.Result(unit, tuple(cases), 1.0, Path(build_dir) / "simulation.log",
                             Path(build_dir) / "w.fst" if waves else None)

    monkeypatch.setattr(runner, "run", simulate)
    monkeypatch.setattr(runner, "check_tools", lambda: None)
    return calls, failures


def test_sim_runs_every_bench_and_prints_a_table(run, bench):
    code, out, err = run("sim", "--seed", "7", "--waves")
    assert (code, err) == (0, "")
    assert [call[0] for call in bench[0]] == list(UNITS)
    assert bench[0][0][1:] == ("tiny", 7, None)
    assert "[7/7] bench of elementwise ... " in out
    assert "skipper       pass    1/1    1.0" in out
    assert f"waves of elementwise: {Path('exactum-sim/tiny/elementwise/w.fst')}" in out


def test_failing_bench_is_named_with_its_log_and_leaves_with_1(run, bench):
    bench[1].append("got 3, expected 4")
    code, out, err = run("sim", "skipper", "compressor", "-t", "rows_under_stalls/stalls=x")
    assert code == 1
    assert bench[0] == [("skipper", "tiny", 1, ("rows_under_stalls/stalls=x",))]
    assert "skipper  FAIL    1/2    1.0" in out
    assert err == ("X501: skipper: 1 of 2 tests passed in 1.0 s\n  test_bad: got 3, expected 4\n"
                   "  log: exactum-sim/tiny/skipper/simulation.log\n")


def test_sim_as_json(run, bench):
    bench[1].append("wrong")
    code, out, err = run("sim", "skipper", "--json")
    assert (code, err) == (1, "")
    unit, = json.loads(out)["benches"]
    assert unit["passed"] is False
    assert [t["name"] for t in unit["tests"]] == ["test_good", "test_bad"]


def test_demo_is_called_with_its_options(run, monkeypatch):
    calls = []
    module = types.ModuleType("exactum.host.demo.main")
    module.run = lambda out, **options: calls.append((out, options)) or 1
    monkeypatch.setitem(sys.modules, "exactum.host.demo.main", module)
    assert run("demo", "--quick", "--out", "x", "-c", "tiny", "--seed", "3")[0] == 1
    assert calls == [(Path("x"), {"config": preset("tiny"), "seed": 3, "quick": True,
                                  "json": False, "quiet": False})]


def test_demo_names_missing_packages_before_it_starts(run, monkeypatch):
    from exactum.host.cli import demo
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "jinja2" else name)
    assert run("demo") == (3, "", "X303: Python packages are not installed: jinja2\n"
                           "  next: pip install 'exactum[demo]'\n")
