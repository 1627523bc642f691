"""Stall patterns for both ends of a stream: endless iterators, True in the cycles that stall."""

import itertools
import random

__all__ = ["PATTERNS", "alternate", "bursts", "flowing", "sparse"]


def flowing(seed=0):
    """Never stalls."""
    return itertools.repeat(False)


def alternate(seed=0):
    """Stalls every other cycle, beginning with a stall."""
    return itertools.cycle((True, False))


def sparse(seed=0):
    """Stalls three cycles in four, at random."""
    draw = random.Random(seed).random
    return (draw() < 0.75 for _ in itertools.repeat(None))


def bursts(seed=0):
    """Runs of 1 to 16 cycles, flowing and stalled in turn."""
    draw = random.Random(seed).randint
    for stalled in itertools.cycle((False, True)):
        yield from itertools.repeat(stalled, draw(1, 16))


PATTERNS = {f.__name__: f for f in (flowing, alternate, sparse, bursts)}
