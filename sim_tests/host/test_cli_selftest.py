"""``exactum selftest`` and ``exactum serve``: what they print, and how they leave."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from exactum.host import device as devices
from exactum.host import open_device
from exactum.host.cli import main
from exactum.host.device import EmulatorDevice
from sim_tests.host.native_machine import CONFIG, FOLDER, check, randn
from sim_tests.repository import ROOT


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """The shared configuration as a file, beside a cache of compiled units that has it."""
    (tmp_path / "exactum").mkdir()
    (tmp_path / "exactum" / "native").symlink_to(FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shared.toml").write_text(CONFIG.to_toml())
    return "shared.toml"


@pytest.fixture
def run(capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            main(list(map(str, arguments)))
        captured = capsys.readouterr()
        return left.value.code, captured.out, captured.err
    return call


class Wrong(EmulatorDevice):
    """Its softmax of 13 elements has one wrong bit."""

    def softmax(self, x, result="bf16"):
        out = super().softmax(x, result)
        if x.shape[-1] == 13:
            out[2, 5] = 448
        return out


@pytest.fixture
def wrong(monkeypatch):
    openers = {**devices._OPENERS, "emulator": lambda place, config, latency: Wrong(config)}
    monkeypatch.setattr(devices, "_OPENERS", openers)


def test_the_emulator_passes(run):
    code, out, err = run("selftest", "emulator", "-c", "tiny")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("emulator, configuration tiny, ")
    assert lines[0].endswith(", seed 1")
    assert "[1/9] opening emulator ... " in lines[1]
    done = int(lines[-1].split()[0])
    assert lines[-1] == f"{done} of {done} passed"
    assert sum(line.endswith("  passed") for line in lines) == done


def test_the_compiled_machine_passes(run, shared):
    code, out, _ = run("selftest", "rtl", "-c", shared, "--json", "--trace", "x.json")
    assert code == 0
    found = json.loads(out)
    assert found["configuration"] == {"name": "tiny", "hash": CONFIG.hash}
    assert (found["device"], found["seed"], found["passed"]) == ("rtl", 1, True)
    assert all(vector["passed"] and vector["cycles"] == vector["expected"] > 0
               for vector in found["findings"])
    with open("x.json") as file:
        events = json.load(file)["traceEvents"]
    shown = {event["name"] for event in events if event.get("cat") == "host"}
    assert {"open_device", "gemm", "softmax", "attention", "compress", "decompress"} <= shown


def test_a_difference_is_a_sentence_and_leaves_with_1(run, wrong):
    code, out, err = run("selftest", "emulator", "-c", "tiny")
    assert (code, err) == (1, "")
    assert "the first difference: softmax, e4m3, rows of 13: element [2, 5] is " in out
    assert " in the emulator\n" in out
    done, _, count, *_ = out.splitlines()[-1].split()
    assert int(count) - int(done) == 1


def test_a_difference_as_json(run, wrong):
    code, out, _ = run("selftest", "emulator", "-c", "tiny", "--json")
    found = json.loads(out)
    assert (code, found["passed"]) == (1, False)
    bad, = (vector for vector in found["findings"] if not vector["passed"])
    assert bad["difference"].startswith("element [2, 5] is ")


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["rtk"], 2, "X211"), ([], 2, "Missing argument 'DEVICE'"),
    (["rtl:tiny"], 2, "exactum selftest rtl -c tiny"),
    (["serial:/dev/nosuch"], 4, "X401: there is no port /dev/nosuch"),
    (["emulator", "--trace", "no/such/x.json"], 2, "X212"),
    (["emulator", "--latency", "0"], 2, "Invalid value for '--latency'")])
def test_mistakes_are_sentences(run, arguments, code, words):
    left, _, err = run("selftest", "-c", "tiny", *arguments)
    assert left == code
    assert words in err


def serve(*arguments):
    """`exactum serve` in a process of its own, whose Ctrl-C works wherever the tests run."""
    script = ("import signal, sys\n"
              "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
              "from exactum.host.cli import main\n"
              "main(['serve', *sys.argv[1:]])\n")
    return subprocess.Popen([sys.executable, "-c", script, *arguments], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=os.environ | {"PYTHONPATH": str(ROOT)})


def wait_for(server, link):
    """Until the device is there."""
    begin = time.monotonic()
    while not link.is_symlink():
        assert server.poll() is None, server.communicate()
        assert time.monotonic() - begin < 120
        time.sleep(0.05)


def test_a_served_device_works_until_ctrl_c(shared, tmp_path):
    link = tmp_path / "board"
    with serve("-c", shared, "--link", str(link)) as server:
        wait_for(server, link)
        with open_device(f"serial:{link}", shared, latency=20) as device:
            check(device, lambda d: d.gemm(randn(2, 3), randn(3, 2)))
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=60)
    assert (server.returncode, err) == (0, "")
    assert "a device of tiny is at serial:/dev/pts/" in out
    assert out.endswith("ended\n")
    assert not link.is_symlink()


def test_a_served_device_ends_when_it_is_told_to(shared, tmp_path):
    link = tmp_path / "board"
    with serve("-c", shared, "--json", "--link", str(link)) as server:
        wait_for(server, link)
        server.terminate()
        out, err = server.communicate(timeout=60)
    assert (server.returncode, err) == (0, "")
    assert json.loads(out)["hash"] == CONFIG.hash
    assert not link.is_symlink()


def test_a_link_that_is_there_already_is_left_alone(run, shared, tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)      # this process keeps its own
    link = tmp_path / "board"
    link.write_text("mine")
    code, _, err = run("serve", "-c", shared, "--link", link)
    assert code == 2
    assert f"X114: '{link}' is there already" in err
    assert link.read_text() == "mine"
