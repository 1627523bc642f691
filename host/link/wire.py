"""What bytes go over: serial ports, pseudo terminals, and any other file descriptor."""

import errno
import os
import select
import socket
import termios
import time
from contextlib import suppress
from typing import Protocol

import serial

from ...gen.errors import DeviceError

__all__ = ["DescriptorWire", "SerialWire", "SocketWire", "Wire"]

_PORTION = 1 << 16          # bytes taken at once


class Wire(Protocol):
    """Bytes to a device and back. Whatever fails raises DeviceError X404: the link is lost."""

    name: str

    def send(self, content: bytes, timeout: float) -> None:
        """Send all of it within so many seconds."""

    def receive(self, timeout: float) -> bytes:
        """What has arrived, at most 64 KiB; waits for the first byte so many seconds, then b""."""

    def close(self) -> None:
        """Release it; may be called again."""


class DescriptorWire:
    """A wire over a file descriptor, which it owns: a pipe's, a socket's, a terminal's.

    Parameters
    ----------
    descriptor : int
        Readable and writable; it is made non-blocking.
    name : str
        For messages.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)

    def send(self, content: bytes, timeout: float) -> None:
        rest, end = memoryview(content), time.monotonic() + timeout
        while rest:
            try:
                left = max(0.0, end - time.monotonic())
                if not _is_ready(self._descriptor, select.POLLOUT, left):
                    raise DeviceError("X404", f"{self.name} takes no bytes",
                                      "check the cable, then open the device again")
                rest = rest[os.write(self._descriptor, rest):]
            except BlockingIOError:
                continue
            except (OSError, ValueError) as error:
                raise self._lost(error) from error

    def receive(self, timeout: float) -> bytes:
        try:
            if not _is_ready(self._descriptor, select.POLLIN, max(0.0, timeout)):
                return b""
            received = os.read(self._descriptor, _PORTION)
        except BlockingIOError:
            return b""
        except (OSError, ValueError) as error:
            raise self._lost(error) from error
        if not received:
            raise self._lost(OSError(errno.EPIPE, "the other side is gone"))
        return received

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _lost(self, error: Exception) -> DeviceError:
        reason = getattr(error, "strerror", None) or error
        return DeviceError("X404", f"{self.name} is gone: {reason}",
                           "plug it in, then open the device again")


class SerialWire(DescriptorWire):
    """A serial port or a pseudo terminal: 8 data bits, no parity, one stop bit, opened exclusively.

    The lock is the process's and ends with it, however it ends.

    Parameters
    ----------
    path : str
        For example ``/dev/ttyUSB0`` or ``/dev/pts/3``.
    baud : int
        Bits per second.

    Raises
    ------
    DeviceError
        X401 if there is no such port, X402 if another program has it open, X409 if you may not
        open it.
    """

    def __init__(self, path: str, baud: int) -> None:
        try:
            self._port = serial.Serial(path, baud, timeout=0, write_timeout=0, exclusive=True)
        except (OSError, ValueError) as error:
            raise _not_opened(path, baud, error) from error
        super().__init__(self._port.fileno(), path)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._descriptor = -1
            # Closing would wait for what a board that is gone will never take.
            with suppress(OSError, termios.error):
                self._port.reset_output_buffer()
            self._port.close()


class SocketWire(DescriptorWire):
    """A connected stream socket, which it owns."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        super().__init__(connection.detach(), name)


def _is_ready(descriptor: int, event: int, timeout: float) -> bool:
    """Whether it can be read, or written, within so many seconds; or has failed.

    By ``poll``: ``select`` knows only descriptors below 1024.
    """
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(timeout * 1000))


def _not_opened(path: str, baud: int, error: Exception) -> DeviceError:
    """The error of a port that cannot be opened, by its errno."""
    number = getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM):
        return DeviceError("X409", f"you may not open {path}",
                           "sudo usermod -aG dialout $USER, then log in again")
    if number in (errno.EAGAIN, errno.EBUSY):
        return DeviceError("X402", f"another program has {path} open",
                           f"close it; `fuser {path}` names it")
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return DeviceError("X401", f"there is no port {path}",
                           "plug the board in; `exactum devices` lists the ports")
    reason = getattr(error, "strerror", None) or error
    return DeviceError("X401", f"{path} cannot be opened at {baud} baud: {reason}",
                       "`exactum devices` lists the ports")
