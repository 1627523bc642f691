"""Requests on their way: which may be sent, which are open, when they are overdue."""

from collections import deque
from dataclasses import dataclass, field

from .frames import Words

__all__ = ["Flight", "Window"]


@dataclass(slots=True, eq=False)
class Flight:
    """A request without its reply yet; ``sent`` and ``refused`` count since the last time-out.

    ``begun``: when it was first sent, on the trace's time line.
    """

    request: int
    sequence: int
    address: int
    count: int
    frame: bytes
    into: Words | None
    begun: float = 0.0
    sent: int = 1
    refused: int = 0
    done: bool = False


@dataclass
class Window:
    """Requests on their way, oldest first, and when their replies are due."""

    flights: deque[Flight] = field(default_factory=deque)
    next_sequence: int = 0
    attempts: int = 0
    due: float = 0.0

    def room(self, window: int) -> bool:
        """Whether one more may be sent: at most so many numbers from the oldest open one on.

        Not fewer open ones than so many: the device keeps its last replies, and that to the oldest
        must be among them.
        """
        flights = self.flights
        return not flights or (self.next_sequence - flights[0].sequence) % 2**16 < window

    def find(self, sequence: int) -> Flight | None:
        for flight in self.flights:
            if flight.sequence == sequence and not flight.done:
                return flight
        return None

    @property
    def open(self) -> list[Flight]:
        return [flight for flight in self.flights if not flight.done]
