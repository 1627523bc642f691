"""A device for the offload's tests: the emulator, with a list of what it was asked."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from exactum.host.device import Device, open_device

__all__ = ["Asked", "Recorder", "normal", "same_bits", "scaled"]


class Asked(NamedTuple):
    """One product that a device was asked for."""

    a: Tensor
    b: Tensor
    formats: tuple[str, str]
    result: str
    exponent: int


class Recorder:
    """Serves like the emulator and keeps every product in ``asked``."""

    def __init__(self, config: Any = "default") -> None:
        self._device: Device = open_device("emulator", config)
        self.config = self._device.config
        self.counters = self._device.counters
        self.asked: list[Asked] = []

    def gemm(self, a: Tensor, b: Tensor, formats: tuple[str, str], result: str, *,
             exponent: int = 0) -> Tensor:
        self.asked.append(Asked(a.clone(), b.clone(), formats, result, exponent))
        return self._device.gemm(a, b, formats, result, exponent=exponent)

    def softmax(self, x: Tensor, result: str) -> Tensor:
        return self._device.softmax(x, result)

    def softmax_backward(self, p: Tensor, dp: Tensor) -> Tensor:
        return self._device.softmax_backward(p, dp)

    def attention(self, *operands: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        return self._device.attention(*operands, **options)

    def attention_backward(self, *operands: Tensor, **options: Any
                           ) -> tuple[Tensor, Tensor, Tensor]:
        return self._device.attention_backward(*operands, **options)

    def log_softmax(self, x: Tensor, result: str) -> Tensor:
        return self._device.log_softmax(x, result)

    def log_softmax_backward(self, log_p: Tensor, g: Tensor) -> Tensor:
        return self._device.log_softmax_backward(log_p, g)


def scaled(x: Tensor, largest: float) -> tuple[Tensor, int]:
    """x times the largest power of two that keeps it within ``largest``; slowly and plainly."""
    magnitude, shift = float(x.abs().max()), 0
    while magnitude * 2.0 ** (shift + 1) <= largest:
        shift += 1
    while magnitude * 2.0 ** shift > largest:
        shift -= 1
    return x * 2.0 ** shift, shift


def normal(*shape, seed=1):
    """Random normal float32 of a shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same_bits(a, b):
    """Whether two tensors agree in dtype, shape and every bit."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(
        a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
