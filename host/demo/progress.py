"""Numbered steps with their times: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Step", "Steps"]

_PLAIN_EVERY = 15.0  # seconds between plain lines within one step


class Step:
    """One step that is running.

    Members
    -------
    note : str
        What the line says behind the time once the step is done.
    seconds : float
        How long it took; set at its end.
    """

    def __init__(self, name: str, console: Console) -> None:
        self.note = ""
        self.seconds = 0.0
        self._name = name
        self._console = console
        self._start = self._spoken = time.perf_counter()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(TextColumn("{task.description}"), BarColumn(),
                                 TextColumn("{task.fields[loss]}"),
                                 TimeRemainingColumn(), console=console, transient=True)
            self._task = self._bar.add_task(name, total=None, loss="")
            self._bar.start()

    def advance(self, done: int, total: int, loss: float) -> None:
        """Say how far it is and what the loss is now."""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, loss=f"loss {loss:.3f}")
        elif (now := time.perf_counter()) - self._spoken >= _PLAIN_EVERY and done < total:
            self._spoken = now
            self._console.print(f"{self._name}: step {done} of {total}, loss {loss:.3f}")

    def _end(self, finished: bool) -> None:
        self.seconds = time.perf_counter() - self._start
        if self._bar:
            self._bar.stop()
        tail = f"{self.seconds:.1f} s" if finished else "failed"
        note = f", {self.note}" if self.note else ""
        self._console.print(f"{self._name} ... {tail}{note}")


class Steps:
    """A known number of steps, each shown as ``[2/6] name ... 8.1 s``.

    Parameters
    ----------
    total : int
    console : Console
    """

    def __init__(self, total: int, console: Console) -> None:
        self._total = total
        self._console = console
        self._begun = 0

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """The next step; its line ends with the time it took, or with ``failed``."""
        self._begun += 1
        step = Step(f"\\[{self._begun}/{self._total}] {name}", self._console)
        try:
            yield step
        except BaseException:
            step._end(False)
            raise
        step._end(True)
