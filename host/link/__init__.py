"""The driver's side of the link (docs/protocol.md)."""

from ...gen.errors import UsageError
from .session import Session, Statistics
from .timing import Timing
from .wire import DescriptorWire, SerialWire, SocketWire, Wire

__all__ = ["DescriptorWire", "SerialWire", "Session", "SocketWire", "Statistics", "Timing", "Wire",
           "open_serial"]


def open_serial(name: str, *, baud: int, configuration_hash: str | None = None,
                latency: float = 0.1, attempts: int = 5) -> Session:
    """A session with the device at a serial port.

    Parameters
    ----------
    name : str
        ``serial:PATH``, for example ``serial:/dev/ttyUSB0`` or ``serial:/dev/pts/3``.
    baud : int
        Bits per second: ``device.baud`` of the bitstream's configuration.
    configuration_hash : str, optional
        What the device's configuration must be: ``Configuration.hash``.
    latency, attempts : float, int
        See `Timing`.

    Raises
    ------
    UsageError
        X211: no such name.
    DeviceError
        X401, X402, X409: the port cannot be opened; X404, X407, X408, X410: what is there.
    """
    kind, _, path = name.partition(":")
    if kind != "serial" or not path:
        raise UsageError("X211", f"a board is called serial:PATH; got {name!r}",
                         "`exactum devices` lists the ports")
    return Session(lambda: SerialWire(path, baud), configuration_hash=configuration_hash,
                   timing=Timing(baud=baud, latency=latency, attempts=attempts))
