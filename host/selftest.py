"""Vectors of every unit through a device, against the emulator: pass, or the first difference."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..gen.config import Configuration
from .device import Device, EmulatorDevice
from .numerics import decode, format_of, from_bits, quantize, to_bits

__all__ = ["Finding", "Vector", "check", "first_difference", "vectors"]

_K, _ROWS, _COLUMNS = 70, 5, 9      # more than a mask's window, and than a tile of one lane
_LENGTHS = (1, 13, 40)


@dataclass(frozen=True)
class Vector:
    """Something that a device can be asked: ``run`` gives what it answers.

    Parameters
    ----------
    unit : str
        That does the work.
    name : str
    run : callable
        Of a device; a tensor or several.
    """

    unit: str
    name: str
    run: Callable[[Device], Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class Finding:
    """What came of a vector: ``difference`` is the first one, in a sentence, or None.

    ``cycles``, ``expected``: of the device, and of the emulator.
    """

    unit: str
    name: str
    difference: str | None
    cycles: int
    expected: int

    @property
    def passed(self) -> bool:
        """Whether the bits and the cycles are those of the emulator."""
        return self.difference is None


def check(device: Device, vector: Vector) -> Finding:
    """Ask a device and the emulator the same; compare bits, counters and cycles."""
    counts, answers = [], []
    for asked in (device, EmulatorDevice(device.config)):
        before = dict(asked.counters)
        found = vector.run(asked)
        answers.append(found if isinstance(found, tuple) else (found,))
        counts.append({name: asked.counters[name] - count for name, count in before.items()})
    difference = next(_differences(*answers), None)
    if difference is None:
        difference = next((f"{name} is {count}, and {counts[1][name]} in the emulator"
                           for name, count in counts[0].items() if count != counts[1][name]), None)
    return Finding(vector.unit, vector.name, difference, counts[0]["cycles"], counts[1]["cycles"])


def _differences(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> Iterator[str]:
    """The first difference of each tensor that has one."""
    for number, pair in enumerate(zip(found, expected, strict=True), 1):
        difference = first_difference(*pair)
        if difference is not None:
            yield difference if len(found) == 1 else f"of result {number}, {difference}"


def first_difference(found: Tensor, expected: Tensor) -> str | None:
    """Where two tensors first differ, and both values and their bits; None if nowhere."""
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return (f"{list(found.shape)} of {found.dtype}; the emulator gives "
                f"{list(expected.shape)} of {expected.dtype}")
    is_float = found.is_floating_point()
    bits = tuple(to_bits(x) if is_float else x.view(torch.int64) for x in (found, expected))
    places = (bits[0] != bits[1]).nonzero()
    if not len(places):
        return None
    place = tuple(places[0].tolist())
    if not is_float:
        one, other = (f"0x{int(b[place]) & (1 << 64) - 1:016x}" for b in bits)
        return f"word {list(place)} is {one}, and {other} in the emulator"
    digits = format_of(found.dtype).width // 4
    one, other = (f"{decode(x)[place].item():.9g} (0x{int(b[place]):0{digits}x})"
                  for x, b in zip((found, expected), bits, strict=True))
    return f"element {list(place)} is {one}, and {other} in the emulator"


def vectors(config: Configuration, seed: int = 1) -> Iterator[Vector]:
    """The vectors of a configuration: what all of its units do, in all of its formats."""
    random = torch.Generator().manual_seed(seed)
    formats = config.vpcu.formats
    for pair in dict.fromkeys((name, other) for name in formats for other in (name, formats[-1])):
        yield _product(*pair, random)
    first, block = formats[0], config.vpcu.scale_block
    a, b = _any_bits(first, _ROWS, _K, random), _any_bits(first, _K, _COLUMNS, random)
    yield Vector("engine", f"{first} x {first}, B streamed, all of it", lambda device: device.gemm(
        a, b, (first, first), orientation="b", compress=False))
    if block:
        blocks = -(-_K // block)
        left, right = (torch.randint(120, 135, shape, generator=random, dtype=torch.uint8)
                       for shape in ((_ROWS, blocks), (blocks, _COLUMNS)))
        yield Vector("engine", f"{first} x {first}, block scales", lambda device: device.gemm(
            a, b, (first, first), scales=(left, right)))
    for name in formats:
        for length in _LENGTHS:
            yield _softmax(name, length, random)
    x = torch.randn(3, 21, generator=random)
    yield Vector("softmax, elementwise", "log-softmax", lambda device: device.log_softmax(x))
    if "fp32" in formats:
        log_p = torch.log_softmax(x, -1)
        yield Vector("engine, softmax, elementwise", "log-softmax backward",
                     lambda device: device.log_softmax_backward(log_p, x))
        p = torch.softmax(torch.randn(3, 21, generator=random), -1)
        dp = torch.randn(3, 21, generator=random)
        yield Vector("elementwise", "softmax backward", lambda device: device.softmax_backward(
            p, dp))
    q, k, v = (torch.randn(1, 2, 6, 8, generator=random) for _ in "qkv")
    yield Vector("engine, elementwise, softmax", f"attention, {first}",
                 lambda device: device.attention(q, k, v, causal=True, formats=(first, first)))
    for name in formats:
        yield _codec(name, random)


def _product(left: str, right: str, random: torch.Generator) -> Vector:
    a, b = _any_bits(left, _ROWS, _K, random), _any_bits(right, _K, _COLUMNS, random)
    return Vector("engine", f"{left} x {right}", lambda device: device.gemm(a, b, (left, right)))


def _softmax(name: str, length: int, random: torch.Generator) -> Vector:
    x = quantize(3 * torch.randn(4, length, generator=random), name)
    return Vector("softmax", f"{name}, rows of {length}", lambda device: device.softmax(x, name))


def _codec(name: str, random: torch.Generator) -> Vector:
    x = torch.randn(3, 50, generator=random) * (torch.rand(3, 50, generator=random) < 0.4)
    x = quantize(x, name, "saturate")

    def run(device: Device) -> tuple[Tensor, Tensor]:
        packed = device.compress(x)
        return packed.words, device.decompress(packed)

    return Vector("compressor, decompressor", name, run)


def _any_bits(name: str, rows: int, columns: int, random: torch.Generator) -> Tensor:
    """Of each format every kind of value, and zeros: half of them."""
    width = format_of(quantize(torch.zeros(1), name).dtype).width
    bits = torch.randint(1 << width, (rows, columns), generator=random)
    bits[torch.rand(bits.shape, generator=random) < 0.5] = 0
    return from_bits(bits, name)
