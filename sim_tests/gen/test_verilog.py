"""Verilog depends on nothing but the configuration, and a plain simulator can start from it."""

import os
import stat

import pytest

from exactum.gen.config import preset
from exactum.gen.units import UNITS, build
from exactum.gen.verilog import emit

TINY = preset("tiny")


def skipper():
    return emit(UNITS["skipper"], build(UNITS["skipper"], TINY), TINY)


@pytest.mark.parametrize("choice", [None, "system"])
def test_a_yosys_on_the_path_is_never_used(choice, tmp_path, monkeypatch):
    foreign = tmp_path / "yosys"
    foreign.write_text("#!/bin/sh\nexit 1\n")
    foreign.chmod(foreign.stat().st_mode | stat.S_IXUSR)
    expected = skipper()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if choice:
        monkeypatch.setenv("AMARANTH_USE_YOSYS", choice)
    else:
        monkeypatch.delenv("AMARANTH_USE_YOSYS", raising=False)
    assert skipper() == expected
    assert os.environ.get("AMARANTH_USE_YOSYS") == choice


def test_the_wake_up_signal_is_set_by_an_event():
    text = skipper().text
    assert "  reg \\$initial$1 ;\n  initial \\$initial$1 = 0;\n" in text
    assert "$initial$1  = 0" not in text.replace("initial \\$initial$1 = 0", "")
