"""The compiled machine that tests share, and the comparison of a device with the emulator."""

import torch

from exactum.gen.config import preset
from exactum.host import open_device
from exactum.host.numerics import to_bits
from sim_tests.repository import ROOT

__all__ = ["CONFIG", "FOLDER", "FORMATS", "check", "randn", "same"]

FORMATS = ["e4m3", "e5m2", "fp16", "bf16", "fp32"]
CONFIG = preset("tiny").replace({
    "vpcu.formats": FORMATS, "vpcu.accumulator_width": 100, "vpcu.scale_block": 32,
    "softmax.logarithms": True,
    "device.memory_words": 1024, "device.baud": 25_000_000})    # the fastest wire
FOLDER = ROOT / "build" / "native"


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + seed))


def same(found, expected):
    if isinstance(found, tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    return (found.dtype, found.shape) == (expected.dtype, expected.shape) and torch.equal(
        to_bits(found), to_bits(expected)) and found.is_contiguous()


def check(device, call):
    """The emulator gives the same bits and counts the same; what was counted."""
    emulator = open_device("emulator", device.config)
    device.reset_counters()
    found, expected = call(device), call(emulator)
    assert same(found, expected)
    assert dict(device.counters) == dict(emulator.counters)
    return dict(device.counters)
