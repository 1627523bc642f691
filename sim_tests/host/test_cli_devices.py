"""``exactum devices`` on a machine of made-up ports and tools."""

import json
from importlib import util
from types import SimpleNamespace

import pytest

from exactum.gen import native_tools
from exactum.gen.errors import ToolMissing
from exactum.host.cli import devices, main


@pytest.fixture
def run(capsys):
    """Run the verb in this process: (exit code, stdout)."""
    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            main(["devices", *arguments])
        captured = capsys.readouterr()
        assert captured.err == ""
        return left.value.code, captured.out
    return call


@pytest.fixture
def ports(monkeypatch, tmp_path):
    """A function that puts ports there, by name and what is known of them."""
    def put(*named):
        monkeypatch.setattr("serial.tools.list_ports.comports", lambda: [
            SimpleNamespace(device=str(tmp_path / name), **{
                "description": "n/a", "manufacturer": None, "serial_number": None} | known)
            for name, known in named])
        for name, _ in named:
            (tmp_path / name).touch()
        return tmp_path

    monkeypatch.setattr(native_tools, "choose", lambda _: SimpleNamespace(name="verilator"))
    monkeypatch.setattr(native_tools, "compiler", lambda: ("/usr/bin/g++", "12"))
    return put


def test_devices_are_listed_with_what_they_are(run, ports):
    folder = ports(("ttyUSB1", {}), ("ttyUSB0", {
        "description": "ULX3S FPGA", "manufacturer": "FER-RADIONA-EMARD", "serial_number": "K001"}))
    code, out = run()
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["device", "status", "what", "it", "is"]
    assert lines[1].startswith("emulator ")
    assert "the Verilog, compiled by verilator and /usr/bin/g++" in lines[2]
    assert lines[3].startswith(f"serial:{folder}/ttyUSB0  ok")
    assert lines[3].endswith("ULX3S FPGA, FER-RADIONA-EMARD, K001")
    assert lines[4].endswith("serial port")


def test_devices_as_json(run, ports):
    folder = ports(("ttyACM0", {"description": "board"}))
    code, out = run("--json")
    assert code == 0
    found = json.loads(out)["devices"]
    assert [device["name"] for device in found] == ["emulator", "rtl", f"serial:{folder}/ttyACM0"]
    assert found[2] == {"name": f"serial:{folder}/ttyACM0", "status": "ok",
                        "description": "board", "advice": ""}


def test_a_port_that_may_not_be_opened_says_what_to_do(run, ports, monkeypatch):
    folder = ports(("ttyUSB0", {}))
    monkeypatch.setattr(devices.os, "access", lambda *_: False)
    _, out = run()
    assert f"serial:{folder}/ttyUSB0: sudo usermod -aG dialout $USER" in out


def test_without_ports_it_says_so(run, ports):
    ports()
    assert run()[1].endswith(
        "no serial port: plug the board in; a pseudo terminal is serial:/dev/pts/N\n")


def test_without_a_compiler_rtl_is_missing(run, ports, monkeypatch):
    def absent():
        raise ToolMissing("X306", "no C++ compiler", "apt install g++")

    ports()
    monkeypatch.setattr(native_tools, "compiler", absent)
    found = json.loads(run("--json")[1])["devices"][1]
    assert (found["status"], found["advice"]) == ("missing", "apt install g++")


def test_without_the_packages_it_names_them(run, ports, monkeypatch):
    ports()
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    found = json.loads(run("--json")[1])["devices"]
    assert [(device["name"], device["status"]) for device in found] == [
        ("emulator", "missing"), ("rtl", "ok"), ("serial", "missing")]
    assert found[2]["advice"] == "pip install 'exactum[host]'"
    assert util.find_spec("serial") is not None
