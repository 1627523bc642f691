"""The bus of a compiled machine: requests straight into its registers, without a link."""

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..gen.config import Configuration
from ..gen.errors import DeviceError, SimulationError
from ..hdl.protocol import BusRequest
from .native import NativeUnit

__all__ = ["NativeBus"]

_LONGEST_REST = 4096    # cycles between two looks at a register that does not change
_OFFSETS = {name: BusRequest[name].offset for name in ("address", "write")}


class NativeBus:
    """A `bus.Bus` to the generated Verilog, compiled natively.

    The machine's clock runs while a request is served, and stands still otherwise. A single word
    that is read again and again is read after a rest, which doubles each time.

    Parameters
    ----------
    config : Configuration
        The machine's.
    folder : path, optional
        Where compiled units are kept (`NativeUnit.of`).

    Raises
    ------
    ToolMissing
        X306: nothing compiles Verilog here.
    """

    def __init__(self, config: Configuration, folder: str | Path | None = None) -> None:
        self.unit = NativeUnit.of("serial_line", config, folder)
        self._lock = threading.Lock()
        self._looked_at, self._rest = -1, 1
        self._is_whole = True       # no run of the unit was cut short
        self.generation = 1

    def read(self, address: int, count: int) -> NDArray[np.uint64]:
        """See `bus.Bus.read`."""
        with self._lock:
            stalls = {}
            if count != 1 or address != self._looked_at:
                self._looked_at, self._rest = address if count == 1 else -1, 1
            else:
                stalls["i_request"] = [True] * self._rest + [False]
                self._rest = min(2 * self._rest, _LONGEST_REST)
            requests = _requests(address, np.zeros(count, np.uint64), write=False)
            return self._run(requests, count, stalls)["o_reply"]

    def write(self, address: int, words: NDArray[np.uint64]) -> None:
        """See `bus.Bus.write`."""
        with self._lock:
            self._looked_at = -1
            self._run(_requests(address, words, write=True), 0, {})

    def reopen(self) -> None:
        """See `bus.Bus.reopen`."""
        with self._lock:
            self._reset()

    def _reset(self) -> None:
        self.unit.reset()
        self._is_whole, self._looked_at = True, -1
        self.generation += 1

    def _run(self, requests: NDArray[np.uint64], replies: int, stalls: dict[str, list[bool]]
             ) -> Mapping[str, NDArray[np.uint64]]:
        """One run of the unit; if it is interrupted, the unit begins anew, now or before the next:
        nobody knows what of it is still to come.
        """
        if not self._is_whole:
            self._reset()
        self._is_whole = False
        try:
            found = self.unit.run({"i_request": requests}, {"o_reply": replies}, stalls=stalls)
        except SimulationError as error:
            self._reset()
            raise DeviceError("X416", f"the compiled machine does not answer: {error.message}",
                              "open the device again") from error
        except BaseException:
            self._reset()
            raise
        self._is_whole = True
        return found.outputs

    def close(self) -> None:
        """See `bus.Bus.close`."""
        with self._lock:
            self.unit.close()


def _requests(address: int, words: NDArray[np.uint64], *, write: bool) -> NDArray[np.uint64]:
    """Items of ``BusRequest``: the data is the first word."""
    found = np.empty((len(words), -(-BusRequest.size // 64)), np.uint64)
    found[:, 0] = words
    found[:, 1] = np.arange(address, address + len(words), dtype=np.uint64)
    found[:, 1] <<= np.uint64(_OFFSETS["address"] - 64)
    found[:, 1] |= np.uint64(write << _OFFSETS["write"] - 64)
    return found
