"""What reaches a device's words: a link to a board, or compiled RTL."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..gen.errors import DeviceError

__all__ = ["Bus", "check_generation"]


class Bus(Protocol):
    """Reads and writes words of 64 bits (docs/machine.md: addresses).

    Calls block until they are done, and return what they promise or raise. Several threads may
    call; one call is served after the other.
    """

    @property
    def generation(self) -> int:
        """Grows whenever the device may have lost what was written: when it is opened anew."""

    def read(self, address: int, count: int) -> NDArray[np.uint64]:
        """``count`` words from a word address on: a new array, uint64 [count]."""

    def write(self, address: int, words: NDArray[np.uint64]) -> None:
        """Write uint64 [count] from a word address on. Only read, not kept."""

    def reopen(self) -> None:
        """Open the device anew: whatever runs is stopped, its memory counts as lost."""

    def close(self) -> None:
        """Release the device; every later call raises DeviceError X403."""


def check_generation(bus: Bus, generation: int) -> None:
    """Raise DeviceError X412 unless the bus is still of this generation."""
    if bus.generation != generation:
        raise DeviceError("X412", f"this belongs to generation {generation} of the device, which "
                          f"was opened anew since: it is now {bus.generation}",
                          "put operands on the device again")
