"""How a row of the report came about, call by call: coarser the longer it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["History", "Shares", "Stretch"]

MOST = 64           # stretches of a history


class Shares:
    """Of whatever counts products and cycles."""

    products: int
    products_skipped: int
    cycles: int
    cycles_dense: int

    @property
    def density(self) -> float:
        """Share of the products that had to be taken; 1 where there are none."""
        every = self.products + self.products_skipped
        return self.products / every if every else 1.0

    @property
    def cycles_share(self) -> float:
        """Cycles, of those that a dense product takes; 1 where there are none."""
        return self.cycles / self.cycles_dense if self.cycles_dense else 1.0


@dataclass
class Stretch(Shares):
    """Successive calls of one operation, added up: products and cycles as in the report's row.

    ``first`` and ``last`` are the numbers, from 0, of these calls among all calls of the session.
    """

    calls: int = 0
    products: int = 0
    products_skipped: int = 0
    cycles: int = 0
    cycles_dense: int = 0
    first: int = 0
    last: int = 0

    def add(self, counts: Mapping[str, int], calls: int) -> None:
        """Add what some calls have counted."""
        self.calls += calls
        for name in ("products", "products_skipped", "cycles", "cycles_dense"):
            setattr(self, name, getattr(self, name) + counts.get(name, 0))


@dataclass
class History:
    """Stretches of ``each`` calls, the last one maybe shorter; pairs are merged beyond 64."""

    stretches: list[Stretch] = field(default_factory=list)
    each: int = 1

    def add(self, counts: Mapping[str, int], call: int) -> None:
        """Add what one call has counted, the session's call of that number."""
        if not self.stretches or self.stretches[-1].calls == self.each:
            if len(self.stretches) == MOST:
                self._merge()
            self.stretches.append(Stretch(first=call))
        self.stretches[-1].add(counts, 1)
        self.stretches[-1].last = call

    def copy(self) -> "History":
        """One that does not go on counting."""
        return History([Stretch(**vars(stretch)) for stretch in self.stretches], self.each)

    def behind(self, calls: int) -> "History":
        """The same, of a session that follows one of so many calls."""
        found = self.copy()
        for stretch in found.stretches:
            stretch.first += calls
            stretch.last += calls
        return found

    def to_dict(self) -> dict[str, Any]:
        """Calls of a stretch; and of each stretch its first and last call in the session, its
        density and its share of the dense cycles."""
        return {"each": self.each, "first": [x.first for x in self.stretches],
                "last": [x.last for x in self.stretches],
                "density": [round(x.density, 6) for x in self.stretches],
                "cycles_share": [round(x.cycles_share, 6) for x in self.stretches]}

    def _merge(self) -> None:
        for first, second in zip(self.stretches[::2], self.stretches[1::2], strict=True):
            first.add(vars(second), second.calls)
            first.last = second.last
        self.stretches = self.stretches[::2]
        self.each *= 2
