"""What goes into a unit and comes out of it, in chunks that fit the scratch memory."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .commands import MOST_ROWS, Move, Words
from .memory import WORD_BYTES

__all__ = ["Chunk", "Elements", "Feed", "ItemResults", "Items", "Kept", "Resident", "Results",
           "Rows", "Shape", "Work"]

Bytes = NDArray[np.uint8]


class Chunk(NamedTuple):
    """Words to be written, and the command that moves them from ``address`` on."""

    words: Words
    move: Move


class Feed(Protocol):
    """A stream into a unit; what has been taken of it is gone."""

    channel: int

    @property
    def left(self) -> int:
        """How much is still to be sent; 0 at the end."""

    @property
    def wanted(self) -> int:
        """Words of memory that it all takes."""

    @property
    def least(self) -> int:
        """Words of the largest part that must be sent at once."""

    def take(self, address: int, room: int) -> Chunk:
        """The next part that fits ``room`` words, at least ``least``."""


class Items:
    """Items of one word or more each, in consecutive words.

    Parameters
    ----------
    channel : int
    words : array
        uint64 [N] or [N, words of an item].
    """

    def __init__(self, channel: int, words: Words) -> None:
        self.channel = channel
        self.least = words.shape[1] if words.ndim > 1 else 1
        self._words = np.ascontiguousarray(words).reshape(-1)
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._words) - self._at

    @property
    def wanted(self) -> int:
        return self.left

    def take(self, address: int, room: int) -> Chunk:
        items = min(self.left, room) // self.least
        words = self._words[self._at:self._at + items * self.least]
        self._at += len(words)
        return Chunk(words, Move.words(self.channel, address, items, more=self.left > 0))


class Rows(NamedTuple):
    """Rows of elements of 2^size bytes that lie one behind the other: uint8 [rows, bytes]."""

    data: Bytes
    size: int


class Elements:
    """Rows of elements; no row is cut.

    Parameters
    ----------
    channel : int
    parts : sequence of Rows
        One after the other, none of them empty.
    with_q, with_t : bool
        See `Move`.
    """

    def __init__(self, channel: int, parts: Sequence[Rows], *, with_q: bool = False,
                 with_t: bool = False) -> None:
        self.channel = channel
        self.least = max((_words(part.data.shape[1]) for part in parts), default=0)
        self._parts = deque(part for part in parts if part.data.size)
        self._row = 0
        self._flags = {"with_q": with_q, "with_t": with_t}

    @property
    def left(self) -> int:
        return sum(_words(part.data.size) for part in self._parts) - (
            self._row * self._parts[0].data.shape[1] // WORD_BYTES if self._parts else 0)

    @property
    def wanted(self) -> int:
        return self.left

    def take(self, address: int, room: int) -> Chunk:
        (data, size), start = self._parts[0], self._row
        width = data.shape[1]
        rows = min(len(data) - start, room * WORD_BYTES // width, MOST_ROWS)
        self._row += rows
        if self._row == len(data):
            self._parts.popleft()
            self._row = 0
        part = data[start:start + rows].reshape(-1)
        padded = np.zeros(_words(part.size) * WORD_BYTES, np.uint8)
        padded[:part.size] = part
        return Chunk(padded.view("<u8"), Move(
            channel=self.channel, address=address, inner=width >> size, outer=rows, size=size,
            step=1 << size, stride=width, more=bool(self._parts), **self._flags))


class Resident:
    """Elements that are in the scratch memory already.

    Parameters
    ----------
    moves : sequence of Move
        All of one channel, one after the other; ``more`` is set as it must be.
    """

    least = wanted = 0

    def __init__(self, moves: Sequence[Move]) -> None:
        self.channel = moves[0].channel
        self._moves = deque(moves)

    @property
    def left(self) -> int:
        return len(self._moves)

    def take(self, address: int, room: int) -> Chunk:
        move = self._moves.popleft()
        return Chunk(np.zeros(0, np.uint64), replace(move, more=bool(self._moves)))


class Shape(NamedTuple):
    """Results to come: ``rows`` of ``length`` that count, each before ``drop`` that do not."""

    rows: int
    length: int
    drop: int = 0


class Results:
    """The results of a unit, gathered in the order in which they come.

    Parameters
    ----------
    channel : int
    shapes : iterable of Shape
        One after the other.
    size : int
        A result has 2^size bytes.
    """

    least = 1

    def __init__(self, channel: int, shapes: Iterable[Shape], size: int) -> None:
        self.channel, self.size = channel, size
        self._shapes: deque[Shape] = deque()
        for shape in shapes:
            if not shape.rows or not shape.length:
                continue
            if self._shapes and self._shapes[-1][1:] == shape[1:]:
                shape = shape._replace(rows=shape.rows + self._shapes.pop().rows)
            self._shapes.append(shape)
        self._found: list[Bytes] = []

    @property
    def left(self) -> int:
        """Words that they take, those of which nothing is under way."""
        return _words(sum(shape.rows * shape.length for shape in self._shapes) << self.size)

    @property
    def wanted(self) -> int:
        """Words of memory that they all take."""
        return self.left

    def fits(self, room: int) -> bool:
        """Whether some of those to come fit ``room`` bytes."""
        return self.left > 0 and room >> self.size > 0

    def take(self, address: int, room: int) -> tuple[Move, int]:
        """The next part that fits ``room`` bytes, at least one element, and its bytes."""
        shape = self._shapes.popleft()
        fits = room >> self.size
        rows = min(shape.rows, fits // shape.length, MOST_ROWS)
        part = shape._replace(rows=rows)
        if not rows:
            part = Shape(1, min(shape.length, fits, MOST_ROWS))
            self._shapes.appendleft(shape._replace(length=shape.length - part.length, rows=1))
            if shape.rows > 1:
                self._shapes.insert(1, shape._replace(rows=shape.rows - 1))
        elif rows < shape.rows:
            self._shapes.appendleft(shape._replace(rows=shape.rows - rows))
        width = part.length << self.size
        return Move(channel=self.channel, address=address, inner=part.length, outer=part.rows,
                    size=self.size, step=1 << self.size, stride=width, drop=part.drop,
                    more=bool(self._shapes)), part.rows * width

    def put(self, found: Bytes) -> None:
        """Bytes that have come."""
        self._found.append(found)

    def gathered(self) -> NDArray[np.uint32]:
        """All of them, right-aligned."""
        every = np.concatenate(self._found) if self._found else np.zeros(0, np.uint8)
        return every.view(f"<u{1 << self.size}").astype(np.uint32)


class Kept(Results):
    """Results that stay in the scratch memory.

    Parameters
    ----------
    moves : sequence of Move
        All of one channel, one after the other: where they go.
    """

    least = 0

    def __init__(self, moves: Sequence[Move]) -> None:
        super().__init__(moves[0].channel, [], moves[0].size)
        self._moves = deque(moves)

    @property
    def left(self) -> int:
        return len(self._moves)

    @property
    def wanted(self) -> int:
        return 0

    def fits(self, room: int) -> bool:
        return self.left > 0

    def take(self, address: int, room: int) -> tuple[Move, int]:
        return self._moves.popleft(), 0


class ItemResults(Results):
    """Results that are items of one word or more, in consecutive words.

    Parameters
    ----------
    channel : int
    items : int
    width : int
        Words of an item.
    """

    def __init__(self, channel: int, items: int, width: int) -> None:
        super().__init__(channel, [], 0)
        self._items, self._width = items, width
        self.least = width

    @property
    def left(self) -> int:
        return self._items * self._width

    @property
    def wanted(self) -> int:
        return self.left

    def fits(self, room: int) -> bool:
        return self.left > 0 and room >= self._width * WORD_BYTES

    def take(self, address: int, room: int) -> tuple[Move, int]:
        items = min(self._items, room // WORD_BYTES // self._width)
        self._items -= items
        return Move.words(self.channel, address, items, more=self._items > 0), (
            items * self._width * WORD_BYTES)

    def gathered_words(self) -> NDArray[np.uint64]:
        """All of them: uint64 [items, width]."""
        every = np.concatenate(self._found) if self._found else np.zeros(0, np.uint8)
        return every.view("<u8").reshape(-1, self._width)


@dataclass
class Work:
    """What a unit is to do: its feeds, none of them needed that are empty, and its results.

    ``side``: results of another kind that come along.
    """

    unit: str
    feeds: list[Feed]
    results: Results = field(kw_only=True)
    side: ItemResults | None = field(default=None, kw_only=True)

    @property
    def every_result(self) -> list[Results]:
        """Both kinds."""
        return [self.results] if self.side is None else [self.results, self.side]


def _words(size: int) -> int:
    return -(-size // WORD_BYTES)
