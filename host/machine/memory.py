"""What of the scratch memory is taken."""

from dataclasses import dataclass

from ...gen.errors import UsageError

__all__ = ["Region", "Scratch", "shares"]

WORD_BYTES = 8


@dataclass(frozen=True)
class Region:
    """Words of the scratch memory: the first one's address, and how many."""

    start: int
    words: int

    @property
    def address(self) -> int:
        """Of its first byte."""
        return self.start * WORD_BYTES


class Scratch:
    """Takes regions of the scratch memory one after the other.

    Parameters
    ----------
    words : int
        Size of the memory.
    """

    def __init__(self, words: int) -> None:
        self.words = words
        self.taken = 0

    @property
    def free(self) -> int:
        """Words that are not taken."""
        return self.words - self.taken

    def take(self, words: int) -> Region:
        """The next ``words`` words; there must be so many."""
        assert words <= self.free, f"{words} words of {self.free} that are free"
        region = Region(self.taken, words)
        self.taken += words
        return region


def shares(free: int, wanted: list[int], least: list[int]) -> list[int]:
    """How many of ``free`` words each gets: what it wants, if that fits, else its part of them.

    Raises
    ------
    UsageError
        X217 if not even the least fits.
    """
    if sum(wanted) <= free:
        return wanted
    if sum(least) > free:
        raise UsageError("X217", f"this operation takes {sum(least)} words of scratch memory at "
                         f"least; {free} are there", "raise device.memory_words")
    rest, more = free - sum(least), [max(0, w - n) for w, n in zip(wanted, least, strict=True)]
    return [n + rest * m // sum(more) for n, m in zip(least, more, strict=True)]
