"""A training on the compiled machine: the emulator's weights, bit for bit, and its counters."""

from dataclasses import replace

import pytest
import torch

from exactum.host import offload, open_device
from exactum.host.demo.digits import digits_task
from exactum.host.demo.training import fit
from exactum.host.machine_device import MachineDevice
from exactum.host.native_bus import NativeBus
from sim_tests.host.native_machine import CONFIG, FOLDER, same

STEPS, IMAGES = 3, 8


def classifier():
    """The demo's network, narrower."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(),
                               torch.nn.Linear(16, 10))


@pytest.fixture(scope="module")
def task():
    """A few images of the demo's digits, in each of a few steps."""
    whole = digits_task(seed=0, steps=STEPS)
    return replace(whole, batches=[(x[:IMAGES], target[:IMAGES]) for x, target in whole.batches])


def train(task, device):
    """Losses, weights, and the report of a training in e4m3 with e5m2 gradients."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = classifier()
    with offload(device, "e4m3") as session:
        losses = fit(task, model)
    return losses, tuple(p.detach() for p in model.parameters()), session.report()


def test_the_digits_are_learned_as_by_the_emulator(task):
    with MachineDevice(CONFIG, NativeBus(CONFIG, FOLDER)) as machine:
        losses, weights, report = train(task, machine)
    emulator = open_device("emulator", CONFIG)
    expected_losses, expected, expected_report = train(task, emulator)
    assert losses == expected_losses
    assert same(weights, expected)
    assert dict(machine.counters) == dict(emulator.counters)
    assert machine.counters["products_skipped"] > 0
    # Each step: two products forward, the gradients of their weights, that of the hidden layer.
    assert machine.counters["calls"] == STEPS * (2 + 3 + 2)
    assert report.fallbacks == expected_report.fallbacks == ()
    assert {row.formats for row in report.rows if row.op == "gemm"} == {
        "e4m3 × e4m3", "e5m2 × e4m3"}
