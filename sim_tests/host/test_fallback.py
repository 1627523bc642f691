"""A device that is lost: the emulator goes on if that was asked for, else the error is raised."""

import json
import threading

import pytest
import torch

from exactum.gen.errors import DeviceError, UsageError
from exactum.host import offload, open_device
from exactum.host.fallback import LOST, FallbackDevice
from exactum.host.machine_device import MachineDevice
from sim_tests.host import native_engine
from sim_tests.host.machine_model import ModelBus
from sim_tests.host.native_machine import randn, same

CONFIG = native_engine.CONFIG.replace({"device.memory_words": 512})
STEPS = 3


class FailingBus(ModelBus):
    """A machine that raises at each call from the ``healthy``-th list on."""

    def __init__(self, healthy, code="X404"):
        super().__init__(CONFIG, native_engine.engine().unit)
        self.healthy, self.code = healthy, code

    def fail(self):
        if self.lists >= self.healthy:
            raise DeviceError(self.code, "the cable was pulled")

    def read(self, address, count):
        self.fail()
        return super().read(address, count)

    def write(self, address, words):
        self.fail()
        super().write(address, words)


def failing(healthy, code="X404"):
    bus = FailingBus(healthy, code)
    return bus, FallbackDevice(MachineDevice(CONFIG, bus))


def train(device):
    """Three steps of a tiny network: losses, weights and session."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    with offload(device, "e4m3") as session:
        for step in range(STEPS):
            out = torch.softmax(model(randn(4, 6, seed=step)), -1)
            loss = (out - torch.eye(3)[[0, 1, 2, 0]]).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses, [p.detach().clone() for p in model.parameters()], session


@pytest.fixture(scope="module")
def alone():
    """The same training in the emulator only: what it gave, and the counters."""
    device = open_device("emulator", CONFIG)
    return *train(device), dict(device.counters)


@pytest.mark.parametrize("healthy", [0, 1, 5, 9, 16])
def test_a_training_goes_on_in_the_emulator(alone, healthy):
    losses, weights, session, counters = alone
    bus, device = failing(1000)
    bus.healthy = healthy
    found, trained, own = train(device)
    assert found == losses
    assert all(map(same, trained, weights))
    assert dict(device.counters) == counters
    assert bus.closed
    event, = device.events
    assert "(X404: the cable was pulled). The emulator has done the rest." in event
    rows, others = ({(row.op, row.role, row.sizes): (row.calls, row.cycles, row.products)
                     for row in of.report().rows} for of in (own, session))
    assert rows == others


def test_the_report_tells_what_happened(tmp_path):
    _, device = failing(4)
    report = train(device)[2].report()
    assert report.events == device.events
    assert device.events[0] in str(report).replace("\n", " ")
    assert json.loads(report.to_json())["events"] == list(device.events)
    assert device.events[0] in report.save(tmp_path / "x.html").read_text("utf-8")
    assert device.events[0].startswith("After 3 operations ")      # the fourth was lost


def test_a_device_that_stays_tells_nothing(alone, tmp_path):
    bus, device = failing(1000)
    assert train(device)[0] == alone[0]
    assert device.events == ()
    device.close()
    assert bus.closed
    with pytest.raises(DeviceError, match="X403"):
        device.softmax(randn(2, 3))


@pytest.mark.parametrize("healthy", [0, 1, 5])
def test_without_fallback_the_error_reaches_the_loop_and_pytorch_is_as_it_was(healthy):
    a, b = randn(4, 5), randn(5, 3)
    bus = FailingBus(1000)
    device = MachineDevice(CONFIG, bus)
    bus.healthy = healthy
    with pytest.raises(DeviceError, match="X404: the cable was pulled"):
        train(device)
    bus.healthy, before = 1000, dict(device.counters)
    assert (a @ b).allclose(torch.einsum("ij,jk->ik", a, b))
    assert dict(device.counters) == before
    with offload(open_device("emulator", CONFIG)):
        assert not torch.equal(a @ b, (a.double() @ b.double()).float())     # e4m3


@pytest.mark.parametrize("code", LOST)
def test_whatever_loses_the_device_makes_the_emulator_go_on(code):
    bus, device = failing(1000, code)
    bus.healthy = 0
    assert same(device.softmax(randn(2, 3)),
                open_device("emulator", CONFIG).softmax(randn(2, 3)))
    assert f"({code}: " in device.events[0]


@pytest.mark.parametrize("code", ["X415", "X416", "X411", "X412"])
def test_other_errors_are_raised(code):
    bus, device = failing(1000, code)
    bus.healthy = 0
    with pytest.raises(DeviceError, match=code):
        device.softmax(randn(2, 3))
    assert device.events == ()
    bus.healthy = 1000
    assert device.softmax(randn(2, 3)).shape == (2, 3)


def test_mistakes_of_the_caller_are_raised():
    _, device = failing(1000)
    with pytest.raises(UsageError, match="X203"):
        device.gemm(randn(2, 3), randn(3, 2), ("e4m3", "fp9"))
    assert device.events == ()


def test_every_verb_goes_on_and_closing_works():
    emulator = open_device("emulator", CONFIG)
    q, k, v, g = (randn(1, 1, 3, 4, seed=seed) for seed in range(4))
    p = torch.softmax(randn(2, 5), -1)
    x = randn(3, 8).relu().to(torch.float8_e4m3fn)
    for verb in (lambda d: d.gemm(randn(2, 3), randn(3, 2)), lambda d: d.softmax(p),
                 lambda d: d.softmax_backward(p, p), lambda d: d.log_softmax(p),
                 lambda d: d.log_softmax_backward(p.log(), p),
                 lambda d: d.attention(q, k, v, causal=True),
                 lambda d: d.attention_backward(g, q, k, v, causal=True),
                 lambda d: d.decompress(d.compress(x))):
        bus, device = failing(1000)
        bus.healthy = 0
        emulator.reset_counters()
        assert same(verb(device), verb(emulator))
        assert dict(device.counters) == dict(emulator.counters)
        device.close()
        device.close()
        with pytest.raises(DeviceError, match="X403"):
            verb(device)


def test_threads_count_what_they_did():
    bus, device = failing(1000)
    bus.healthy = 6
    emulator = open_device("emulator", CONFIG)
    work = [threading.Thread(target=lambda: [device.softmax(randn(2, 9)) for _ in range(5)])
            for _ in range(3)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    for _ in range(15):
        emulator.softmax(randn(2, 9))
    assert dict(device.counters) == dict(emulator.counters)
    assert len(device.events) == 1


def test_only_the_emulator_falls_in():
    with pytest.raises(UsageError, match="X206: fallback is 'emulator' or None; got 'x'"):
        open_device("emulator", CONFIG, fallback="x")
    with open_device("emulator", CONFIG, fallback="emulator") as device:
        assert device.softmax(randn(2, 3)).shape == (2, 3)
