"""A serial line in virtual time: hosts, a reference device, and between them whoever interferes.

Nothing sleeps: a host that waits makes time pass. Bytes take their time on the line, by its baud
rate, one after the other in each direction; frames are handed to ``carry`` one by one.
"""

import heapq
import random
import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum

from exactum.gen.errors import DeviceError
from sim_tests.link_reference import ReferenceDevice

__all__ = ["Deliveries", "Direction", "Hang", "HostWire", "Killed", "Line"]

FRAME = re.compile(rb"\0*[^\0]+\0?|\0+")        # with the zeros before it, and the one that ends it
WAITS = 5_000

Deliveries = Iterable[tuple[float, bytes]]
"""What becomes of a frame: (seconds later than it should be, bytes)."""


class Direction(Enum):
    TO_DEVICE = 0
    TO_HOST = 1


class Killed(BaseException):
    """The host's process has ended: nothing in it may catch this."""


class Hang(AssertionError):
    """A host waits again and again, and never gives up."""


class Line:
    """A device and the hosts at its line.

    Parameters
    ----------
    device : ReferenceDevice
        Answers at once.
    baud : int
        Bits per second; a byte takes ten.

    Attributes
    ----------
    carry : callable
        (direction, frame) -> deliveries: what arrives instead of a frame.
    now : float
        Virtual seconds.
    """

    def __init__(self, device: ReferenceDevice, baud: int) -> None:
        self.device = device
        self.baud = baud
        self.now = 0.0
        self.plugged = True
        self.hosts: list[HostWire] = []
        self.carry: Callable[[Direction, bytes], Deliveries] = _unchanged
        self._free = dict.fromkeys(Direction, 0.0)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def transmit(self, direction: Direction, content: bytes, *, honest: bool = False) -> None:
        """Bytes begin their way now, or when the line is free; ``honest``: past ``carry``."""
        for frame in FRAME.findall(content):
            if not self.plugged:
                return
            begin = max(self.now, self._free[direction])
            self._free[direction] = end = begin + 10 * len(frame) / self.baud
            for delay, arriving in (_unchanged if honest else self.carry)(direction, frame):
                self.schedule(end + delay - self.now, self._arrival(direction, bytes(arriving)))

    def schedule(self, delay: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self._number += 1
        heapq.heappush(self._events, (self.now + delay, self._number, action))

    def run(self, until: float, stop: Callable[[], bool] = bool) -> None:
        """Let time pass; ``stop`` is asked after each event."""
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
            if stop():
                return
        self.now = max(self.now, until)

    def unplug(self) -> None:
        """What is on its way is gone, and the hosts' wires with it."""
        self.plugged = False
        self._events.clear()
        for host in self.hosts:
            host.gone = True
        self.hosts.clear()

    def connect(self, slow: random.Random | None = None) -> "HostWire":
        """A host's end; X401 while unplugged."""
        if not self.plugged:
            raise DeviceError("X401", "there is no port", "plug it in")
        self.hosts.append(HostWire(self, slow))
        return self.hosts[-1]

    def _arrival(self, direction: Direction, content: bytes) -> Callable[[], None]:
        def arrive() -> None:
            if direction is Direction.TO_DEVICE:
                self.transmit(Direction.TO_HOST, self.device.feed(content))
            else:
                for host in self.hosts:
                    host.inbox += content
        return arrive


def _unchanged(_: Direction, frame: bytes) -> Iterator[tuple[float, bytes]]:
    yield 0.0, frame


class HostWire:
    """A wire (`exactum.host.link.Wire`) at a line; ``slow`` reads late, and a few bytes at once."""

    name = "the line"

    def __init__(self, line: Line, slow: random.Random | None = None) -> None:
        self.inbox = bytearray()
        self.gone = False
        self.killed = False
        self._line, self._slow = line, slow
        self.waited = 0

    def send(self, content: bytes, timeout: float) -> None:
        self._check()
        self._line.transmit(Direction.TO_DEVICE, content)

    def receive(self, timeout: float) -> bytes:
        self._check()
        self.waited += 1
        if self.waited > WAITS:
            raise Hang
        line, portion = self._line, 1 << 16
        if self._slow is not None:
            line.run(line.now + self._slow.choice((0, 0, 0.001, 0.03)))
            portion = self._slow.choice((1, 7, 64, 1000))
        if not self.inbox:
            line.run(line.now + timeout, lambda: bool(self.inbox) or self.gone or self.killed)
        self._check()
        taken = bytes(self.inbox[:portion])
        del self.inbox[:portion]
        return taken

    def close(self) -> None:
        self.gone = True
        if self in self._line.hosts:
            self._line.hosts.remove(self)

    def _check(self) -> None:
        if self.killed:
            raise Killed
        if self.gone:
            raise DeviceError("X404", "the port is gone", "plug it in")
