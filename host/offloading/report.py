"""What an offload did: the rows per operation, the totals, and the ways to show or keep them."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...gen.errors import UsageError
from ..files import replace_file
from .history import History, Shares

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Group

    from ...gen.config import Configuration

__all__ = ["COUNTERS", "Fallback", "Report", "Row"]

COUNTERS = ("products", "products_skipped", "cycles", "cycles_dense", "transposed",
            "words_a_saved", "words_b_saved", "bytes_in", "bytes_out", "saturations", "lost")


@dataclass
class Row(Shares):
    """What one operation of one layer did on the device.

    Members
    -------
    op, layer, role, sizes
        As in OpContext: sizes are (M, K, N), (batch, M, K, N), (rows, length) or (batch, heads,
        queries, keys, width), in elements.
    formats : str
        Of a product's left and right operand; of a softmax's probabilities; of an attention's
        operands and probabilities; of its gradients on the way to q, and to k and v.
    calls : int
    products, products_skipped : int
        Scalar products taken, and not taken because a factor is zero.
    cycles, cycles_dense : int
        By the contract, of the device's configuration; and what they would be if nothing were zero.
    transposed : int
        Products (of a batch, each) computed as B^T A^T, their right operand being streamed.
    words_a_saved, words_b_saved : int
        64-bit words of the streamed and of the loaded operand that column compression left out.
    bytes_in, bytes_out : int
        Of operands into the device, for each tile and load anew; of results from it.
    saturations, lost : int
        Values that met a format's largest, and results that are not certified exact (rule N4).
    seconds : float
        Wall time here, of scaling and device together.
    history : History
        Products and cycles, call by call, each with its place in the session.
    """

    op: str
    layer: str
    role: str
    formats: str
    sizes: tuple[int, ...]
    calls: int = 0
    products: int = 0
    products_skipped: int = 0
    cycles: int = 0
    cycles_dense: int = 0
    transposed: int = 0
    words_a_saved: int = 0
    words_b_saved: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    saturations: int = 0
    lost: int = 0
    seconds: float = 0.0
    history: History = field(default_factory=History)

    def copy(self) -> "Row":
        """One that does not go on counting."""
        return replace(self, history=self.history.copy())

    @property
    def cycles_saved_share(self) -> float:
        """Share of the dense cycles that was saved; 0 where there are none."""
        return 1 - self.cycles_share

    @property
    def shape(self) -> str:
        """The sizes, to be read: ``64 × 784 × 128``."""
        return " × ".join(map(str, self.sizes))

    @property
    def title(self) -> str:
        """Operation and role, to be read: ``gemm, weight gradient``."""
        if self.op == "gemm":
            return f"gemm, {self.role.replace('-', ' ')}"
        return self.op.replace("_", " ")


@dataclass
class Fallback:
    """An operation that PyTorch ran: which, in which layer, why, how often.

    ``products`` counts the scalar products it took: 0 for operations that take none, None for
    those of which the number is not known.
    """

    op: str
    layer: str
    reason: str
    calls: int = 0
    products: int | None = 0


@dataclass(frozen=True)
class Report:
    """A snapshot of a session.

    Members
    -------
    rows : tuple of Row
        What ran on the device, most cycles first.
    fallbacks : tuple of Fallback
        What did not, and why; unknown numbers of products first, then most products.
    policy : str
    device : str
        Name of the device's configuration.
    clock_mhz : float
        Clock by which cycles become seconds.
    events : tuple of str
        What happened to the device: that the emulator took over, and when.
    """

    rows: tuple[Row, ...]
    fallbacks: tuple[Fallback, ...]
    policy: str
    device: str
    clock_mhz: float
    events: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Iterable[Row], fallbacks: Iterable[Fallback], *, config: "Configuration",
           policy: str, events: Iterable[str] = ()) -> "Report":
        """A snapshot of rows that go on counting."""
        return cls(
            tuple(sorted((row.copy() for row in rows), key=lambda row: -row.cycles)),
            tuple(sorted(map(replace, fallbacks), key=_fallback_order)),
            policy, config.name, config.clock_mhz, tuple(events))

    def total(self, counter: str) -> int:
        """Sum of one column over the rows."""
        return sum(getattr(row, counter) for row in self.rows)

    def seconds_of(self, cycles: int) -> float:
        """Time that so many cycles take at the configuration's clock."""
        return cycles / (self.clock_mhz * 1e6)

    @property
    def skipped_share(self) -> float:
        """Share of all products that zeros made needless."""
        skipped = self.total("products_skipped")
        return skipped / max(1, skipped + self.total("products"))

    @property
    def cycles_saved_share(self) -> float:
        """Share of the cycles of a device that skips nothing which zeros and orientation spared."""
        dense = self.total("cycles_dense")
        return 1 - self.total("cycles") / dense if dense else 0.0

    @property
    def offloaded_share(self) -> float | None:
        """Share of all products seen that were the device's to take; 1 where there are none.

        None if PyTorch ran an operation of which the number of products is not known.
        """
        offloaded = self.total("products") + self.total("products_skipped")
        missed = 0
        for row in self.fallbacks:
            if row.products is None:
                return None
            missed += row.products
        return offloaded / (offloaded + missed) if offloaded + missed else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "device": self.device, "clock_mhz": self.clock_mhz, "policy": self.policy,
            "events": list(self.events),
            "totals": {name: self.total(name) for name in ("calls", *COUNTERS, "seconds")},
            "rows": [{**asdict(row), "density": row.density, "history": row.history.to_dict()}
                     for row in self.rows],
            "fallbacks": [asdict(row) for row in self.fallbacks],
        }

    def to_json(self) -> str:
        """``to_dict`` as JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    def save(self, path: str | os.PathLike, *,
             figures: "Sequence[tuple[str, Figure, str]]" = (),
             title: str = "Offload report", intro: str = "") -> Path:
        """Write the report: one self-contained HTML page (``.html``), or its data (``.json``).

        Written beside and renamed, so that an interruption leaves the last good one.

        Parameters
        ----------
        path : str or path
            Its ending says which; its folder must exist.
        figures : sequence of (title, matplotlib figure, caption)
            Pictures to be shown before the tables.
        title, intro : str
            Heading of the page, and a paragraph under it. Plain text.

        Raises
        ------
        UsageError
            X212: another ending, or a folder that is not there or not writable.
        """
        path = Path(path)
        if path.suffix == ".json":
            text = self.to_json()
        elif path.suffix in (".html", ".htm"):
            from .page import render
            text = render(self, figures=figures, title=title, intro=intro)
        else:
            raise UsageError("X212", f"a report is saved as .html or .json; got {str(path)!r}",
                             f"name it {path.stem}.html, or {path.stem}.json for its data")
        try:
            replace_file(path, text)
        except OSError as error:
            raise UsageError("X212", f"the report cannot be written to {str(path)!r}: "
                             f"{error.strerror}", "name a file in a writable folder") from error
        return path

    def __rich__(self) -> "Group":
        from .tables import report_tables
        return report_tables(self)

    def __str__(self) -> str:
        from rich.console import Console
        console = Console(width=132, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get()


def _fallback_order(row: Fallback) -> tuple[float, int]:
    return (float("-inf") if row.products is None else -row.products, -row.calls)
