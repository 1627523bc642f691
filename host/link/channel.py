"""Frames over a wire that is opened when it is needed, and what was counted."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ...gen.errors import DeviceError
from .frames import FrameReader, Reply, decode_reply
from .timing import Timing
from .wire import Wire

__all__ = ["Channel", "Statistics"]


@dataclass
class Statistics:
    """What a session has counted since it was made.

    Parameters
    ----------
    sent : int
        Frames sent, those sent again included.
    replies : int
        Replies that counted.
    repeated : int
        Frames sent again.
    dropped : int
        Frames received that were damaged, late, doubled, somebody else's, or refused a request
        that came too early.
    lost : int
        Times that the link was lost.
    """

    sent: int = 0
    replies: int = 0
    repeated: int = 0
    dropped: int = 0
    lost: int = 0


class Channel:
    """A wire and its frames; a wire that fails is closed, and may be opened again.

    Parameters
    ----------
    connect : callable
        Opens the wire.
    timing : Timing
        How long sending may take.

    Attributes
    ----------
    counts : Statistics
        All but ``replies``, and of ``dropped`` only what is no reply at all.
    noise : int
        Bytes received since `open`.
    """

    def __init__(self, connect: Callable[[], Wire], timing: Timing) -> None:
        self.counts = Statistics()
        self.noise = 0
        self._connect, self._timing = connect, timing
        self._wire: Wire | None = None
        self._reader = FrameReader()

    @property
    def connected(self) -> bool:
        return self._wire is not None

    @property
    def name(self) -> str:
        """The wire's."""
        return "the device" if self._wire is None else self._wire.name

    def open(self) -> None:
        """Open the wire unless it is open; what has half arrived is forgotten."""
        if self._wire is None:
            self._wire = self._connect()
        self._reader = FrameReader()
        self.noise = 0

    def close(self) -> None:
        """Close the wire, if it is open."""
        wire, self._wire = self._wire, None
        if wire is not None:
            with suppress(OSError):
                wire.close()

    def send(self, content: bytes, *, frames: int, again: int = 0) -> None:
        """Bytes with so many frames, so many of them for another time."""
        self.counts.sent += frames
        self.counts.repeated += again
        try:
            self._open_wire().send(content, self._timing.sending(len(content)))
        except DeviceError:
            self._failed()
            raise

    def receive(self, timeout: float) -> list[Reply]:
        """Replies that have arrived; waits for some bytes, at most so many seconds."""
        try:
            received = self._open_wire().receive(timeout)
        except DeviceError:
            self._failed()
            raise
        self.noise += len(received)
        before = self._reader.dropped
        decoded = [decode_reply(frame) for frame in self._reader.feed(received)]
        self.counts.dropped += self._reader.dropped - before + decoded.count(None)
        return [reply for reply in decoded if reply is not None]

    def _open_wire(self) -> Wire:
        if self._wire is None:
            raise RuntimeError("the wire is closed")
        return self._wire

    def _failed(self) -> None:
        self.counts.lost += 1
        self.close()
