"""How long the driver waits: from the baud rate, and an allowance for everything else."""

from collections.abc import Iterable
from dataclasses import dataclass

from ...hdl.protocol import MAX_WORDS, WINDOW
from .frames import HELLO, READ, line_bytes

__all__ = ["Timing"]

_BITS = 10      # of a byte on the line, with start and stop bit


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Time-outs of a link, in seconds.

    Parameters
    ----------
    baud : int
        Bits per second.
    latency : float
        Seconds allowed from a request's last byte to its reply's first, beside the bytes of other
        requests: of the operating system, of a USB adapter, of the device.
    attempts : int
        How many times requests are sent without any reply before the link is lost.
    """

    baud: int
    latency: float = 0.1
    attempts: int = 5

    def __post_init__(self) -> None:
        for name in ("baud", "latency", "attempts"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"{name} must be positive; got {value!r}")

    def sending(self, length: int) -> float:
        """Within which so many bytes have gone out."""
        return self.latency + _BITS / self.baud * length

    def replies_of(self, requests: Iterable[tuple[int, int]]) -> float:
        """Within which the replies of requests (request, words) that are sent now have come."""
        return self.latency + self._line(requests)

    def call(self, requests: Iterable[tuple[int, int]]) -> float:
        """Within which a call that takes these requests returns or raises.

        As if each window were sent as often as it may be. What an interrupted call has left on its
        way is in it.
        """
        requests = [*requests, *[(READ, MAX_WORDS)] * WINDOW]
        windows = -(-len(requests) // WINDOW)
        return (self.attempts + 1) * (windows * self.latency + self._line(requests))

    @property
    def hello_tries(self) -> int:
        """How many times HELLO is sent: as often as all else, and while old replies arrive."""
        old = self._line([(READ, MAX_WORDS)] * WINDOW)
        return self.attempts + int(old / self.replies_of([(HELLO, 0)]))

    @property
    def opening(self) -> float:
        """Within which the first exchange of a session has succeeded or failed."""
        return self.hello_tries * self.replies_of([(HELLO, 0)])

    def _line(self, requests: Iterable[tuple[int, int]]) -> float:
        return _BITS / self.baud * sum(sum(line_bytes(*request)) for request in requests)
