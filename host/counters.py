"""What a device counts."""

import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType

__all__ = ["COUNTERS", "Counters"]

COUNTERS = MappingProxyType({
    "calls": "operations",
    "cycles": "clock cycles that the configured design takes",
    "cycles_dense": "clock cycles that the same operations would take if no element were zero",
    "products": "products of two operands that were performed",
    "products_skipped": "products spared because an element is zero",
    "transposed": "matrix products computed as B^T A^T, B being streamed: those of a batch each",
    "words_a_saved": "mask and value words of the streamed operand that column compression spared",
    "words_b_saved": "words of the loaded operand that column compression spared",
    "bytes_in": "bytes of operands sent into the engine, for each tile and load anew; scales",
    "bytes_out": "bytes of results, but of rows and columns known to be zero",
    "lost": "results that lost bits under the accumulator's window (rule N4)",
    "saturations": "operands and results that overflowed and were clamped",
})


class Counters(Mapping[str, int]):
    """What a device has done since it was opened or its counters were reset; see ``COUNTERS``.

    Reading gives the present numbers; ``dict(counters)`` is a snapshot. Safe between threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(COUNTERS, 0)

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __repr__(self) -> str:
        return f"Counters({dict(self._counts)})"

    def add(self, amounts: Mapping[str, int]) -> None:
        """Add to several counters at once."""
        with self._lock:
            for name, amount in amounts.items():
                self._counts[name] += amount

    def reset(self) -> None:
        """Set all to zero."""
        with self._lock:
            self._counts.update(dict.fromkeys(self._counts, 0))
