"""What happened when, on one time line: host calls, frames, units (Chrome's trace event format).

https://ui.perfetto.dev opens the file; so does chrome://tracing. The format is described in
"Trace Event Format" (Google, 2016): complete events, "ph": "X", times in microseconds.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from ..gen.errors import UsageError
from .files import replace_file

__all__ = ["TRACKS", "Trace", "add", "calls_shown", "now", "span", "tracing"]

_Kind = TypeVar("_Kind")

TRACKS = ("host", "lists", "frames", "engine", "softmax", "elementwise", "compressor",
          "decompressor")
"""The lines of the picture, from above."""

_MOST_EVENTS = 1_000_000


class Trace:
    """Events as they come; those beyond a million are counted and left out.

    Attributes
    ----------
    left_out : int
        Events that there was no room for.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._begun = time.perf_counter()
        self._lock = threading.Lock()
        self._events: list[dict[str, Any]] = []

    def now(self) -> float:
        """Seconds since the trace began."""
        return time.perf_counter() - self._begun

    def add(self, track: str, name: str, start: float, end: float, **details: Any) -> None:
        """Something that lasted from ``start`` to ``end``, in seconds since the beginning."""
        with self._lock:
            if len(self._events) == _MOST_EVENTS:
                self.left_out += 1
                return
            self._events.append({
                "name": name, "cat": track, "ph": "X", "pid": 1, "tid": TRACKS.index(track),
                "ts": round(start * 1e6, 3), "dur": round(max(0.0, end - start) * 1e6, 3),
                "args": details})

    def to_dict(self) -> dict[str, Any]:
        """The file's content."""
        names = [{"name": "thread_name", "ph": "M", "pid": 1, "tid": number,
                  "args": {"name": track}} for number, track in enumerate(TRACKS)]
        names += [{"name": "thread_sort_index", "ph": "M", "pid": 1, "tid": number,
                   "args": {"sort_index": number}} for number in range(len(TRACKS))]
        names.append({"name": "process_name", "ph": "M", "pid": 1, "tid": 0,
                      "args": {"name": "exactum"}})
        with self._lock:
            return {"displayTimeUnit": "ms", "traceEvents": names + self._events,
                    "otherData": {"left_out": self.left_out}}

    def save(self, path: str | os.PathLike) -> Path:
        """Write it; an interruption leaves the last good one. UsageError X212 if it cannot be."""
        path = Path(path)
        try:
            replace_file(path, json.dumps(self.to_dict()))
        except OSError as error:
            raise UsageError("X212", f"the trace cannot be written to {str(path)!r}: "
                             f"{error.strerror}", "name a file in a writable folder") from error
        return path


_current: Trace | None = None


def now() -> float:
    """Seconds since the trace that is being made began; 0 if none is."""
    return 0.0 if _current is None else _current.now()


def add(track: str, name: str, start: float, end: float, **details: Any) -> None:
    """`Trace.add` to the trace that is being made, if one is."""
    if _current is not None:
        _current.add(track, name, start, end, **details)


@contextmanager
def span(track: str, name: str, **details: Any) -> Iterator[None]:
    """`add` what is inside, also if it raises."""
    start = now()
    try:
        yield
    finally:
        add(track, name, start, now(), **details)


def calls_shown(*names: str) -> Callable[[type[_Kind]], type[_Kind]]:
    """A decorator of a class: calls of these of its methods are on the track ``host``."""
    def decorate(kind: type[_Kind]) -> type[_Kind]:
        for name in names:
            setattr(kind, name, _shown(name, getattr(kind, name)))
        return kind
    return decorate


def _shown(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        with span("host", name):
            return method(*arguments, **options)
    return call


@contextmanager
def tracing(path: str | os.PathLike) -> Iterator[Trace]:
    """Record everything that devices do inside, and write it, also if it ends in an error.

    The file is written at the beginning, too: a folder that is not there is found out at once.

    Parameters
    ----------
    path : str or path
        A ``.json`` file, to be opened in Perfetto.

    Raises
    ------
    UsageError
        X210 if a trace is being made already, X212 if the file cannot be written.
    """
    global _current
    if _current is not None:
        raise UsageError("X210", "a trace is being made already", "leave the first one")
    trace = Trace()
    trace.save(path)
    _current = trace
    try:
        yield trace
    finally:
        _current = None
        trace.save(path)
