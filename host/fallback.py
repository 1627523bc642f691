"""A device that the emulator stands in for once the link is lost, if the user asked for that."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from ..gen.errors import DeviceError
from .codec import Compressed
from .device import Device, EmulatorDevice

__all__ = ["LOST", "FallbackDevice"]

_Result = TypeVar("_Result")

LOST = ("X404", "X405", "X406", "X410")
"""Errors after which the emulator goes on: the device is not there any more, or somebody else's."""


class FallbackDevice(Device):
    """Works on a device until its link is lost, and in the emulator from then on.

    The operation that was interrupted is done again, as a whole: results and counters are those of
    a run without the loss. ``events`` says when it happened and why. Any other error is raised.

    Parameters
    ----------
    device : Device
        The one to begin with; closed with this one, and when it is lost.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device.config)
        self._device = device
        self._has_fallen = False
        self._lock = threading.RLock()      # between reset and sum of the other one's counters

    def gemm(self, *arguments: Any, **options: Any) -> Tensor:
        return self._run(lambda device: device.gemm(*arguments, **options))

    def softmax(self, *arguments: Any, **options: Any) -> Tensor:
        return self._run(lambda device: device.softmax(*arguments, **options))

    def softmax_backward(self, *arguments: Any, **options: Any) -> Tensor:
        return self._run(lambda device: device.softmax_backward(*arguments, **options))

    def log_softmax(self, *arguments: Any, **options: Any) -> Tensor:
        return self._run(lambda device: device.log_softmax(*arguments, **options))

    def log_softmax_backward(self, *arguments: Any, **options: Any) -> Tensor:
        return self._run(lambda device: device.log_softmax_backward(*arguments, **options))

    def attention(self, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        return self._run(lambda device: device.attention(*arguments, **options))

    def attention_backward(self, *arguments: Any, **options: Any
                           ) -> tuple[Tensor, Tensor, Tensor]:
        return self._run(lambda device: device.attention_backward(*arguments, **options))

    def compress(self, x: Tensor) -> Compressed:
        return self._run(lambda device: device.compress(x))

    def decompress(self, compressed: Compressed) -> Tensor:
        return self._run(lambda device: device.decompress(compressed))

    def close(self) -> None:
        super().close()
        self._device.close()

    def _run(self, work: Callable[[Device], _Result]) -> _Result:
        self._check_open()
        with self._lock:
            self._device.reset_counters()
            try:
                found = work(self._device)
            except DeviceError as error:
                if self._has_fallen or error.code not in LOST:
                    raise
                self._fall(error)
                found = work(self._device)
            self._counters.add(self._device.counters)
        return found

    def _fall(self, error: DeviceError) -> None:
        """From here on the emulator works."""
        self._device.close()
        self._device = EmulatorDevice(self.config)
        self._has_fallen = True
        self._events.append(f"After {self._counters['calls']} operations the device was lost "
                            f"({error.code}: {error.message}). The emulator has done the rest.")
