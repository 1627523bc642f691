"""The wheel: everything is inside, and it works in a folder of its own, away from the checkout."""

import json
import shutil
import sysconfig
import zipfile

import pytest

from sim_tests.repository import ROOT, python

HOMES = {"hdl": "exactum/hdl", "gen": "exactum/gen", "host": "exactum/host",
         "sim_tests/benches": "exactum/benches"}
DATA = (".py", ".typed", ".toml", ".html", ".json", ".c", ".cpp", ".v")

# -I -S: neither the checkout nor the editable install of the development environment is seen.
COMMAND = """
import sys
sys.path[:0] = [{target!r}, {packages!r}]
from exactum.host.cli import main
assert "{target}" in sys.modules["exactum.host.cli"].__file__
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, so that no build folder appears in the checkout."""
    home = tmp_path_factory.mktemp("wheel")
    source = home / "source"
    source.mkdir()
    for folder in HOMES:
        shutil.copytree(ROOT / folder, source / folder,
                        ignore=shutil.ignore_patterns("__pycache__", "sim_build"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    done = python("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index",
                  "--quiet", "--wheel-dir", home, source)
    assert done.returncode == 0, done.stderr
    made, = home.glob("exactum-*.whl")
    return made


@pytest.fixture(scope="module")
def exactum(wheel, tmp_path_factory):
    """The command line of the installed wheel, run in an empty folder: a function."""
    target = tmp_path_factory.mktemp("target")
    done = python("-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", target,
                  wheel)
    assert done.returncode == 0, done.stderr
    script = COMMAND.format(target=str(target), packages=sysconfig.get_path("purelib"))
    folder = tmp_path_factory.mktemp("anywhere")

    def call(*arguments):
        return python("-I", "-S", "-c", script, *arguments, cwd=folder)

    call.folder = folder
    return call


def test_every_module_preset_bench_and_template_is_inside(wheel):
    expected = {f"{home}/{path.relative_to(ROOT / folder).as_posix()}"
                for folder, home in HOMES.items() for path in (ROOT / folder).rglob("*")
                if path.suffix in DATA and "__pycache__" not in path.parts}
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert inside == expected
    assert {f"exactum/gen/presets/{name}.toml" for name in ("tiny", "small", "default")} <= inside


def test_installed_package_checks_and_generates(exactum):
    done = exactum("new", "mine.toml", "--preset", "tiny")
    assert done.returncode == 0, done.stderr
    done = exactum("generate", "skipper", "-c", "mine.toml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["manifest"]["configuration"]["name"] == "mine"
    done = exactum("verify", "exactum-mine")
    assert done.returncode == 0, done.stdout


def test_installed_package_simulates_a_users_own_configuration(exactum):
    (exactum.folder / "own.toml").write_text('schema = 1\nextends = "tiny"\nvpcu.max_k = 256\n')
    done = exactum("sim", "skipper", "-c", "own.toml", "--waves", "--json",
                   "-t", "the_longest_row_reaches_the_highest_index")
    assert done.returncode == 0, done.stdout + done.stderr
    bench, = json.loads(done.stdout)["benches"]
    assert bench["passed"]
    assert len(bench["tests"]) == 1
    waves = exactum.folder / "exactum-sim" / "own" / "skipper" / "exactum_skipper.fst"
    assert bench["waves"] == str(waves)
    assert waves.stat().st_size > 0
