"""The whole device behind a pseudo terminal: the emulator's bits, counts and cycles, by wire."""

import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from exactum.gen.errors import DeviceError
from exactum.host import open_device, quantize
from exactum.host.native import NativeUnit
from exactum.host.simulated_port import SimulatedPort
from sim_tests.host.native_machine import CONFIG, FOLDER, check, randn, same
from sim_tests.repository import ROOT

LATENCY = 20.0      # seconds: the device is simulated, on a processor that others use too


@pytest.fixture(scope="module")
def port():
    with SimulatedPort(CONFIG, NativeUnit.of("serial_line", CONFIG, FOLDER)) as opened:
        yield opened


def connect(port, config=CONFIG, **options):
    return open_device(f"serial:{port.path}", config, **({"latency": LATENCY} | options))


@pytest.fixture
def device(port):
    with connect(port) as opened:
        yield opened
        assert opened.runner.bus.statistics.repeated == 0


def product(device):
    return device.gemm(randn(3, 6), randn(6, 2), ("e4m3", "fp16"))


def test_a_product_crosses_the_wire(device):
    assert check(device, product)["cycles"] > 0


def test_softmax_and_its_backward_cross_the_wire(device):
    check(device, lambda d: d.softmax(randn(2, 5)))
    check(device, lambda d: d.softmax_backward(torch.softmax(randn(2, 5), -1), randn(2, 5)))


def test_attention_crosses_the_wire(device):
    q, k, v = (randn(1, 1, 3, 4, seed=seed) for seed in range(3))
    check(device, lambda d: d.attention(q, k, v, causal=True, formats=("e4m3", "fp16")))


def test_the_codec_crosses_the_wire(device):
    x = quantize(randn(2, 9).relu(), "e4m3")
    check(device, lambda d: d.decompress(d.compress(x)))
    words = [d.compress(x).words for d in (device, open_device("emulator", CONFIG))]
    assert torch.equal(*words)


def test_a_device_that_lost_its_power_says_so_and_works_when_it_is_opened_anew(port):
    expected = product(open_device("emulator", CONFIG))
    with connect(port) as device:
        assert same(product(device), expected)
        port.power_cycle()
        for _ in range(2):
            with pytest.raises(DeviceError) as caught:
                product(device)
            assert caught.value.code == "X405"
    with connect(port) as device:
        assert same(product(device), expected)


def test_the_emulator_goes_on_if_that_was_asked_for(port):
    with connect(port, fallback="emulator") as device:
        for _ in range(2):
            check(device, product)
            port.power_cycle()
    event, = device.events
    assert "X405: the device was reset" in event


def test_a_second_program_is_refused_and_the_first_one_works_on(port, device):
    with pytest.raises(DeviceError, match=f"X402: another program has {port.path} open"):
        connect(port)
    check(device, product)


def test_a_device_of_another_configuration_is_refused_and_released(port):
    other = CONFIG.replace({"softmax.lanes": 2})
    with pytest.raises(DeviceError) as caught:
        connect(port, other)
    assert caught.value.code == "X408"
    assert other.hash[:16] in str(caught.value)
    assert CONFIG.hash[:16] in str(caught.value)
    connect(port).close()


def test_a_host_that_is_killed_leaves_nothing_behind(port):
    script = ("import sys, numpy as np\n"
              "from exactum.host.link import open_serial\n"
              "session = open_serial(sys.argv[1], baud=25_000_000, latency=20)\n"
              "print('open', flush=True)\n"
              "while True: session.write(0, np.full(300, 7, np.uint64))\n")
    with subprocess.Popen([sys.executable, "-c", script, f"serial:{port.path}"], cwd=ROOT,
                          stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout.readline() == "open\n"
        time.sleep(0.2)
        host.send_signal(signal.SIGKILL)
        host.wait(10)
    with connect(port) as device:
        check(device, product)


def test_a_device_that_goes_away_in_the_middle_of_an_operation_is_noticed():
    with SimulatedPort(CONFIG, NativeUnit.of("serial_line", CONFIG, FOLDER)) as port:
        device = connect(port)
        frames = device.runner.bus.statistics
        stopper = threading.Thread(target=leave_after, args=(port, device, frames.sent))
        stopper.start()
        begin = time.monotonic()
        with pytest.raises(DeviceError) as caught:
            device.gemm(randn(20, 60), randn(60, 20), ("fp32", "fp32"))
        assert time.monotonic() - begin < LATENCY
        assert caught.value.code == "X404"
        stopper.join()
        with pytest.raises(DeviceError, match="X404"):
            product(device)
        device.close()
        device.close()


class Talker:
    """A device that answers whatever it gets without end."""

    description: ClassVar = {"parameters": {"bit_cycles": 4}}
    pending: ClassVar = {"i": 0}

    def __init__(self):
        self.calls = 0

    def advance(self, inputs, room, cycles):
        self.calls += 1
        return SimpleNamespace(outputs={"o": np.ones(room["o"], np.uint64)}, cycles=cycles)

    def close(self):
        pass


def test_what_nobody_takes_is_lost_and_holds_nothing_up():
    talker = Talker()
    with SimulatedPort(CONFIG, talker) as port:
        host = os.open(port.path, os.O_WRONLY | os.O_NOCTTY)
        os.write(host, b"!")
        begin = time.monotonic()
        while talker.calls < 200:       # 800 KiB: more than any terminal keeps
            assert time.monotonic() - begin < 30
            time.sleep(0.01)
        os.close(host)


def leave_after(port, device, sent):
    """Close the port once the device was sent more than that."""
    while device.runner.bus.statistics.sent <= sent + 2:
        time.sleep(0.01)
    port.close()
