"""Traces of devices: valid for Chrome and Perfetto, each thing on its track and inside its call."""

import json
from collections import defaultdict

import pytest
import torch

from exactum.gen.errors import UsageError
from exactum.host import open_device, trace
from exactum.host.fallback import FallbackDevice
from exactum.host.machine_device import MachineDevice
from exactum.host.native import NativeUnit
from exactum.host.native_bus import NativeBus
from exactum.host.simulated_port import SimulatedPort
from sim_tests.host.native_machine import CONFIG, FOLDER, randn

ROUNDING = 0.01     # microseconds


@pytest.fixture(scope="module")
def machine():
    with MachineDevice(CONFIG, NativeBus(CONFIG, FOLDER)) as opened:
        yield opened


def events(path):
    """The spans of a trace file by track, once it was found valid."""
    content = json.loads(path.read_text("utf-8"))
    names = {event["tid"]: event["args"]["name"] for event in content["traceEvents"]
             if event["name"] == "thread_name"}
    assert tuple(names[number] for number in sorted(names)) == trace.TRACKS
    found = defaultdict(list)
    for event in content["traceEvents"]:
        assert {"name", "ph", "pid", "tid"} <= set(event)
        if event["ph"] == "X":
            assert event["ts"] >= 0
            assert event["dur"] >= 0
            found[names[event["tid"]]].append(event)
        else:
            assert event["ph"] == "M"
    return found


def inside(events, whole):
    begin, end = whole["ts"] - ROUNDING, whole["ts"] + whole["dur"] + ROUNDING
    return all(begin <= event["ts"] and event["ts"] + event["dur"] <= end for event in events)


def test_a_product_of_the_compiled_machine(machine, tmp_path):
    machine.reset_counters()
    with trace.tracing(tmp_path / "x.json"):
        machine.gemm(randn(3, 20), randn(20, 4))
    found = events(tmp_path / "x.json")
    assert set(found) == {"host", "lists", "engine"}
    call, = found["host"]
    assert call["name"] == "gemm"
    busy, stalled = found["engine"]
    assert (busy["name"], stalled["name"]) == ("busy", "stalled")
    assert busy["args"]["cycles"] == machine.counters["cycles"]
    assert stalled["args"]["cycles"] > 0
    assert inside([*found["lists"], *found["engine"]], call)


def test_a_product_over_the_wire(tmp_path):
    with SimulatedPort(CONFIG, NativeUnit.of("serial_line", CONFIG, FOLDER)) as port, \
            trace.tracing(tmp_path / "x.json"), \
            open_device(f"serial:{port.path}", CONFIG, latency=20) as device:
        device.softmax(randn(2, 5))
    found = events(tmp_path / "x.json")
    assert set(found) == {"host", "lists", "frames", "softmax"}
    opening, call = found["host"]
    assert (opening["name"], call["name"]) == ("open_device", "softmax")
    assert opening["args"]["device"] == f"serial:{port.path}"
    assert all(inside([frame], opening) != inside([frame], call) for frame in found["frames"])
    assert {frame["name"] for frame in found["frames"]} == {"read", "write"}
    assert all(1 <= frame["args"]["words"] <= 64 for frame in found["frames"])
    assert inside([*found["lists"], *found["softmax"]], call)


def test_calls_lie_in_the_calls_that_they_are_parts_of(machine, tmp_path):
    q, k, v = (randn(1, 1, 3, 4, seed=seed) for seed in range(3))
    with trace.tracing(tmp_path / "x.json"):
        machine.attention(q, k, v, formats=("fp32", "fp32"))
    *parts, whole = events(tmp_path / "x.json")["host"]
    assert whole["name"] == "attention"
    assert parts
    assert {part["name"] for part in parts} == {"gemm"}
    assert inside(parts, whole)


VERBS = {
    "gemm": lambda d: d.gemm(randn(2, 3), randn(3, 2)),
    "softmax": lambda d: d.softmax(randn(2, 3)),
    "softmax_backward": lambda d: d.softmax_backward(randn(2, 3), randn(2, 3)),
    "log_softmax": lambda d: d.log_softmax(randn(2, 3)),
    "log_softmax_backward": lambda d: d.log_softmax_backward(randn(2, 3), randn(2, 3)),
    "compress": lambda d: d.compress(randn(2, 3)),
    "decompress": lambda d: d.decompress(open_device().compress(randn(2, 3))),
    "attention": lambda d: d.attention(*[torch.ones(1, 1, 2, 4)] * 3),
    "attention_backward": lambda d: d.attention_backward(*[torch.ones(1, 1, 2, 4)] * 4)}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_shown(machine, tmp_path, verb):
    for device in (machine, open_device("emulator", CONFIG), FallbackDevice(machine)):
        with trace.tracing(tmp_path / "x.json"):
            VERBS[verb](device)
        assert verb in {event["name"] for event in events(tmp_path / "x.json")["host"]}


def test_decorated_verbs_keep_their_names_and_words():
    assert MachineDevice.gemm.__name__ == "gemm"
    assert MachineDevice.softmax.__qualname__ == "MachineDevice.softmax"
    assert MachineDevice.attention.__qualname__ == "ComposingDevice.attention"


def test_a_trace_is_written_also_if_the_inside_raises(machine, tmp_path):
    def work():
        with trace.tracing(tmp_path / "x.json"):
            machine.softmax(randn(2, 3))
            machine.gemm(randn(2, 3), randn(3, 2), ("e4m3", "fp9"))

    with pytest.raises(UsageError, match="X203"):
        work()
    assert [event["name"] for event in events(tmp_path / "x.json")["host"]] == ["softmax", "gemm"]


def test_two_traces_at_once_are_refused(tmp_path):
    with trace.tracing(tmp_path / "x.json"):
        with pytest.raises(UsageError, match="X210"), trace.tracing(tmp_path / "y.json"):
            pass
        with trace.span("host", "after"):
            pass
    assert not (tmp_path / "y.json").exists()
    assert len(events(tmp_path / "x.json")["host"]) == 1


def test_a_place_that_cannot_be_written_is_found_out_at_once(tmp_path):
    with pytest.raises(UsageError, match="X212"), trace.tracing(tmp_path / "no" / "x.json"):
        pytest.fail("this is not reached")
    with trace.tracing(tmp_path / "x.json"):
        pass


def test_without_a_trace_nothing_is_kept():
    assert trace.now() == 0.0
    with trace.span("host", "nothing"):
        pass


def test_events_beyond_a_million_are_counted(monkeypatch, tmp_path):
    monkeypatch.setattr(trace, "_MOST_EVENTS", 2)
    with trace.tracing(tmp_path / "x.json") as made:
        for _ in range(5):
            trace.add("host", "one", 0.0, 1.0)
    assert made.left_out == 3
    assert json.loads((tmp_path / "x.json").read_text())["otherData"] == {"left_out": 3}
