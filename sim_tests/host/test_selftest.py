"""The self test: what it finds, and how it says where two answers differ."""

import math

import pytest
import torch

from exactum.gen.config import preset
from exactum.host import open_device
from exactum.host.device import EmulatorDevice
from exactum.host.numerics import from_bits
from exactum.host.selftest import Vector, check, first_difference, vectors

CONFIG = preset("default")


def bits(*values, name="fp32"):
    return from_bits(torch.tensor(values), name)


@pytest.mark.parametrize(("found", "expected", "sentence"), [
    (torch.zeros(2, 3), torch.zeros(3, 2),
     "[2, 3] of torch.float32; the emulator gives [3, 2] of torch.float32"),
    (torch.zeros(2), torch.zeros(2).half(),
     "[2] of torch.float32; the emulator gives [2] of torch.float16"),
    (torch.tensor([[1.0, 2.0], [3.0, 4.5]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
     "element [1, 1] is 4.5 (0x40900000), and 4 (0x40800000) in the emulator"),
    (torch.tensor([0.0, 7, 8]), torch.tensor([0.0, 9, 9]),
     "element [1] is 7 (0x40e00000), and 9 (0x41100000) in the emulator"),
    (torch.tensor([-0.0]), torch.tensor([0.0]),
     "element [0] is -0 (0x80000000), and 0 (0x00000000) in the emulator"),
    (bits(0x7FC00001), bits(0x7FC00000),
     "element [0] is nan (0x7fc00001), and nan (0x7fc00000) in the emulator"),
    (bits(0xFC00, name="fp16"), bits(0x7C00, name="fp16"),
     "element [0] is -inf (0xfc00), and inf (0x7c00) in the emulator"),
    (bits(0xFF, name="e4m3"), bits(0x7F, name="e4m3"),
     "element [0] is nan (0xff), and nan (0x7f) in the emulator"),
    (bits(1, name="bf16"), bits(0, name="bf16"),
     "element [0] is 9.18354962e-41 (0x0001), and 0 (0x0000) in the emulator"),
    (torch.tensor(1.0), torch.tensor(2.0),
     "element [] is 1 (0x3f800000), and 2 (0x40000000) in the emulator"),
    (torch.tensor([1, -1]), torch.tensor([1, 15]),
     "word [1] is 0xffffffffffffffff, and 0x000000000000000f in the emulator"),
    (torch.tensor([1]), torch.tensor([1, 2]),
     "[1] of torch.int64; the emulator gives [2] of torch.int64"),
])
def test_the_first_difference_is_a_sentence(found, expected, sentence):
    assert first_difference(found, expected) == sentence


@pytest.mark.parametrize("same", [
    torch.tensor([1.0, -0.0, math.inf, math.nan]), torch.zeros(0, 3), torch.zeros(()),
    torch.tensor([-1, 1 << 62]), bits(0x7F, 0xFF, name="e4m3")])
def test_equal_tensors_do_not_differ(same):
    assert first_difference(same.clone(), same) is None


class Wrong(EmulatorDevice):
    """An emulator with a difference of its own."""

    def attention(self, *operands, **options):
        out, sums = super().attention(*operands, **options)
        sums[0, 1, 2] += 1
        return out, sums

    def gemm(self, *operands, **options):
        self._counters.add({"cycles": 1})
        return super().gemm(*operands, **options)


def test_a_difference_of_one_of_several_results_says_of_which():
    q = torch.ones(1, 2, 3, 4)
    found = check(Wrong(CONFIG), Vector("engine", "x", lambda d: d.attention(q, q, q)))
    assert not found.passed
    assert found.difference == ("of result 2, element [0, 1, 2] is 4.09860754 (0x408327cb), and "
                                "3.09860754 (0x40464f96) in the emulator")


def test_a_difference_of_cycles_is_one():
    a = torch.ones(2, 2)
    found = check(Wrong(CONFIG), Vector("engine", "x", lambda d: d.gemm(a, a)))
    assert (found.passed, found.cycles - found.expected) == (False, 1)
    assert found.difference == f"cycles is {found.cycles}, and {found.expected} in the emulator"


@pytest.mark.parametrize("config", [CONFIG, preset("tiny")], ids=["default", "tiny"])
def test_every_unit_and_format_has_vectors_that_the_emulator_passes(config):
    asked = list(vectors(config))
    assert {unit for vector in asked for unit in vector.unit.split(", ")} == {
        "engine", "softmax", "elementwise", "compressor", "decompressor"}
    for unit in ("engine", "softmax", "compressor, decompressor"):
        named = {vector.name.replace(",", "").split()[0] for vector in asked if vector.unit == unit}
        assert named == set(config.vpcu.formats)
    device = open_device("emulator", config)
    assert all(check(device, vector).passed for vector in asked)


def test_vectors_are_those_of_the_seed():
    emulator = open_device("emulator", CONFIG)
    first, again, other = (next(vectors(CONFIG, seed)).run(emulator) for seed in (1, 1, 2))
    assert first_difference(first, again) is None
    assert first_difference(first, other) is not None
