"""A device that is simulated, at the other end of a pseudo terminal (docs/protocol.md).

What opens the terminal as a serial port talks to the RTL of the whole device, bit by bit on a wire:
the driver cannot tell it from a board, but by its speed.
"""

import os
import select
import threading
import tty
from contextlib import suppress
from types import TracebackType

import numpy as np

from ..gen.config import Configuration
from .native import NativeUnit

__all__ = ["SimulatedPort"]

_CHUNK = 4096       # bytes moved at once
_CYCLES = 2_000     # simulated at once: some hundredths of a second


class SimulatedPort:
    """Runs a configuration's device, compiled, behind a pseudo terminal; a context manager.

    Time stands still in the device while nobody has sent or is being sent anything for as long as a
    long reply takes: else it would keep a processor busy for nothing.

    Parameters
    ----------
    config : Configuration
        The device's.
    unit : NativeUnit, optional
        Its compiled ``serial_line``; None: compile it, or find it compiled.

    Attributes
    ----------
    path : str
        Of the terminal: ``open_device("serial:" + path)``.
    """

    def __init__(self, config: Configuration, unit: NativeUnit | None = None) -> None:
        self.unit = NativeUnit.of("serial_line", config) if unit is None else unit
        byte = 10 * self.unit.description["parameters"]["bit_cycles"]
        self._idle = 2000 * byte        # cycles: longer than any frame
        self._room = {"o": _CHUNK}
        self._master, slave = os.openpty()
        os.set_blocking(self._master, False)
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        self._slave = slave             # open: so that the first to close it does not hang us up
        self._woken, self._wake = os.pipe()
        self._restarts = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"device at {self.path}",
                                        daemon=True)
        self._thread.start()

    def power_cycle(self) -> None:
        """Take the device's power away and give it back: it forgets its session."""
        self._restarts.set()
        os.write(self._wake, b"!")

    def wait(self) -> None:
        """Return when the device is stopped, by another thread."""
        self._thread.join()

    def close(self) -> None:
        """Stop the device and remove the terminal; a second time does nothing."""
        if self._thread.is_alive():
            os.write(self._wake, b".")
            self._thread.join()
            for file in (self._master, self._slave, self._woken, self._wake):
                os.close(file)
            self.unit.close()

    def __enter__(self) -> "SimulatedPort":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _serve(self) -> None:
        idle = self._idle
        while True:
            waits = None if idle >= self._idle else 0
            ready, _, _ = select.select([self._master, self._woken], [], [], waits)
            if self._woken in ready and b"." in os.read(self._woken, _CHUNK):
                return
            if self._restarts.is_set():
                self._restarts.clear()
                self.unit.reset()
            sent = os.read(self._master, _CHUNK) if self._master in ready else b""
            done = self.unit.advance({"i": np.frombuffer(sent, np.uint8).astype(np.uint64)},
                                     self._room, _CYCLES)
            answer = done.outputs["o"].astype(np.uint8).tobytes()
            # What nobody takes is lost, as on a wire; there is room for a window of replies.
            with suppress(BlockingIOError):
                while answer:
                    answer = answer[os.write(self._master, answer):]
            is_idle = not (sent or self.unit.pending["i"] or len(done.outputs["o"]))
            idle = idle + done.cycles if is_idle else 0
