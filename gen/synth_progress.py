"""What synthesis is at: live lines on a terminal, a line at each step elsewhere (stderr)."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

__all__ = ["FINAL", "progress"]

FINAL = ("done", "cached")
"""The stages after which there is no further one."""


@contextmanager
def progress(title: str, *, quiet: bool = False) -> Iterator[Callable[[str, str], None]]:
    """A function to be told what is worked on and in which stage, from any thread.

    Parameters
    ----------
    title : str
        The design.
    quiet : bool
        Say nothing.
    """
    console = Console(stderr=True)
    if quiet:
        yield lambda what, stage: None
    elif console.is_terminal:
        columns = (SpinnerColumn(finished_text="+"), TextColumn("{task.description}"),
                   TextColumn("{task.fields[stage]}"), TimeElapsedColumn())
        with Progress(*columns, console=console) as live:
            yield _live(live, title)
    else:
        yield _lines(console, title)


def _live(live: Progress, title: str) -> Callable[[str, str], None]:
    tasks: dict[str, TaskID] = {}
    lock = Lock()

    def watch(what: str, stage: str) -> None:
        with lock:
            if what not in tasks:
                tasks[what] = live.add_task(f"{title}: {what}", total=1, stage=stage)
        live.update(tasks[what], stage=stage, completed=int(stage in FINAL))

    return watch


def _lines(console: Console, title: str) -> Callable[[str, str], None]:
    began: dict[str, float] = {}
    last: dict[str, str] = {}

    def watch(what: str, stage: str) -> None:
        now = time.monotonic()
        start = began.setdefault(what, now)
        # Yosys runs through hundreds of passes, which are for a line that changes in place.
        if last.get(what) == stage or ("Yosys" in what and what in last and stage not in FINAL):
            return
        last[what] = stage
        console.print(f"{title}: {what}: {stage}, {now - start:.1f} s", highlight=False,
                      markup=False, soft_wrap=True)

    return watch
