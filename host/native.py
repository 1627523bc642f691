"""Natively compiled units (gen/native.py): load one, feed its streams, take what comes out."""

import ctypes
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..gen.config import Configuration
from ..gen.errors import DeviceError, SimulationError, UsageError, nearest
from ..gen.native import DESCRIPTION
from ..gen.native_index import find_unit
from ..gen.units import SYSTEMS, UNITS

__all__ = ["NativeRun", "NativeUnit", "pack"]

Words = NDArray[np.uint64]

_NEVER = (1 << 64) - 1
_FINISHED, _STUCK = 0, 1


class _Stream(ctypes.Structure):
    """``struct exactum_stream`` of the harness."""

    _fields_ = (("words", ctypes.c_void_p), ("count", ctypes.c_uint64),
                ("done", ctypes.c_uint64), ("stalls", ctypes.c_void_p),
                ("stall_count", ctypes.c_uint64), ("first", ctypes.c_uint64),
                ("last", ctypes.c_uint64))


@dataclass(frozen=True, kw_only=True)
class NativeRun:
    """What one run did.

    Parameters
    ----------
    outputs : mapping of str to array
        For each stream wanted, the payloads taken: uint64 [count], or [count, words] where a
        payload has more than 64 bits (low word first).
    cycles : int
        Clock cycles of the run, all of them.
    accepted : mapping of str to int
        Items that each input stream took in.
    first, last : mapping of str to int
        The cycles, counted since the reset, of each stream's first and last transfer; a stream
        without one is not in them.
    """

    outputs: Mapping[str, Words]
    cycles: int
    accepted: Mapping[str, int]
    first: Mapping[str, int]
    last: Mapping[str, int]

    def span(self, start: str, end: str) -> int:
        """Cycles from the first transfer of ``start`` to the last of ``end``, both included."""
        return self.last[end] - self.first[start] + 1


class NativeUnit:
    """A compiled unit with a state of its own, reset when opened.

    Inputs that a run did not get rid of stay queued for the next one, in order. ``close`` it, or
    use it as a context manager. Not for several threads at once; a run blocks, and lets other
    threads go on.

    Parameters
    ----------
    library : path
        What `find_unit` or `compile_unit` returned.

    Raises
    ------
    DeviceError
        X401 if it cannot be loaded.
    """

    def __init__(self, library: str | Path) -> None:
        path = Path(library)
        self._handle: int | None = None
        try:
            self.description = json.loads(path.with_name(DESCRIPTION).read_text("utf-8"))
            self._library = ctypes.CDLL(str(path))
            self._bind()
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise DeviceError("X401", f"the compiled unit {path} cannot be loaded: {error}",
                              f"remove {path.parent}; the next run compiles it again") from error
        streams = self.description["streams"]
        self._streams = {name: max(1, -(-stream["width"] // 64))
                         for name, stream in streams.items()}
        self._widths = {name: stream["width"] for name, stream in streams.items()}
        self.inputs = tuple(n for n, stream in streams.items() if stream["direction"] == "in")
        self.outputs = tuple(n for n in streams if n not in self.inputs)
        self._queues: dict[str, Words] = {name: self._room(name, 0) for name in self.inputs}
        self._handle = self._library.exactum_open()

    @classmethod
    def of(cls, unit: str, config: Configuration, folder: str | Path | None = None,
           backend: str | None = None) -> "NativeUnit":
        """The unit called ``unit`` of a configuration, compiled if it was not yet (`find_unit`)."""
        return cls(find_unit({**UNITS, **SYSTEMS}[unit], config, folder, backend))

    def _bind(self) -> None:
        handle, number = ctypes.c_void_p, ctypes.c_uint64
        for name, result, arguments in (
                ("open", handle, []), ("close", None, [handle]), ("reset", None, [handle]),
                ("cycle", number, [handle]), ("streams", number, []),
                ("run", ctypes.c_int, [handle, ctypes.POINTER(_Stream), number, number])):
            function = getattr(self._library, f"exactum_{name}")
            function.restype, function.argtypes = result, arguments
        if self._library.exactum_streams() != len(self.description["streams"]):
            raise ValueError("the library and its description differ in their streams")

    @property
    def backend(self) -> str:
        """The backend that compiled it and the version of its tool: ``verilator 5.006``."""
        made = self.description["native"]
        version = re.search(r"\d+\.\d[\w.]*", made["tools"][0])
        return f"{made['backend']} {version[0] if version else ''}".strip()

    @property
    def cycle(self) -> int:
        """Clock cycles since the last reset."""
        return self._library.exactum_cycle(self._open())

    @property
    def pending(self) -> Mapping[str, int]:
        """Items of each input stream that are queued and not accepted."""
        return MappingProxyType({name: len(queue) for name, queue in self._queues.items()})

    def reset(self) -> None:
        """Reset the unit, forget what is queued, and count cycles from 0."""
        self._library.exactum_reset(self._open())
        self._queues = {name: self._room(name, 0) for name in self.inputs}

    def close(self) -> None:
        """Free the unit; a second time does nothing."""
        if self._handle is not None:
            self._library.exactum_close(self._handle)
            self._handle = None

    def __enter__(self) -> "NativeUnit":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self, inputs: Mapping[str, Iterable[int] | Words],
            outputs: Mapping[str, int] = MappingProxyType({}), *,
            stalls: Mapping[str, Iterable[bool]] = MappingProxyType({}),
            patience: int = 10_000, limit: int = _NEVER) -> NativeRun:
        """Queue inputs and run until all wanted outputs are taken.

        If none is wanted, until all inputs are accepted.

        Parameters
        ----------
        inputs : mapping of str to array or ints
            Payloads to append to each input stream's queue, as ints, or packed by `pack`.
        outputs : mapping of str to int
            Items to take from each output stream; from the others none.
        stalls : mapping of str to iterable of bool
            For each stream when to stall, repeated from its start in every run: a source draws
            before it offers an item, a sink in every cycle. Streams not named never stall.
        patience : int
            Cycles without any transfer after which the run is given up.
        limit : int
            Cycles after which the run is given up.

        Raises
        ------
        SimulationError
            X504 if the run was given up. What was taken so far is lost; reset the unit.
        UsageError
            X206 for an unknown stream, X202 for payloads of wrong shape, X207 for payloads that do
            not fit the stream, a count below 0 or stalls without end. Nothing is queued then.
        DeviceError
            X403 if the unit is closed.
        """
        status, done = self._run(inputs, outputs, stalls, patience, limit)
        if status != _FINISHED:
            why = (f"nothing was transferred in {patience} cycles" if status == _STUCK
                   else f"{limit} cycles are over")
            raise self._given_up(why, {name: (len(done.outputs[name]), count)
                                       for name, count in outputs.items()})
        return done

    def advance(self, inputs: Mapping[str, Iterable[int] | Words], room: Mapping[str, int],
                cycles: int) -> NativeRun:
        """Queue inputs and run for so many cycles, or until all of ``room`` is filled.

        Parameters
        ----------
        inputs : mapping of str to array or ints
            As of `run`.
        room : mapping of str to int
            Items to take from each output stream at most, 1 or more of one of them.
        cycles : int
            Cycles at most.

        Returns
        -------
        NativeRun
            With as many outputs as came.
        """
        return self._run(inputs, room, {}, cycles, cycles)[1]

    def _run(self, inputs: Mapping[str, Iterable[int] | Words], outputs: Mapping[str, int],
             stalls: Mapping[str, Iterable[bool]], patience: int, limit: int
             ) -> tuple[int, NativeRun]:
        """How a run ended, and what it did until then."""
        handle = self._open()
        self._check(inputs, self.inputs, "an input")
        self._check(outputs, self.outputs, "an output")
        self._check(stalls, (*self.inputs, *self.outputs), "a")
        words = {name: self._words(name, items) for name, items in inputs.items()}
        taken = {name: self._room(name, count) for name, count in outputs.items()}
        patterns = {name: _pattern(name, bits) for name, bits in stalls.items()}
        for name, items in words.items():
            queue = self._queues[name]
            self._queues[name] = np.concatenate([queue, items]) if len(queue) else items
        streams = (_Stream * len(self._streams))()
        found = dict(zip(self._streams, streams, strict=True))
        for name, buffer in (self._queues | taken).items():
            found[name].words, found[name].count = buffer.ctypes.data, len(buffer)
        for name, pattern in patterns.items():
            found[name].stalls, found[name].stall_count = pattern.ctypes.data, len(pattern)
        start = self.cycle
        status = self._library.exactum_run(handle, streams, patience, limit)
        accepted = {name: found[name].done for name in self.inputs}
        # A copy: what is left may be the caller's array, and that be changed before the next run.
        self._queues = {name: queue[accepted[name]:].copy()
                        for name, queue in self._queues.items()}
        moved = {name: stream for name, stream in found.items() if stream.done}
        return status, NativeRun(
            outputs={name: items[:found[name].done] for name, items in taken.items()},
            cycles=self.cycle - start, accepted=accepted,
            first={name: stream.first for name, stream in moved.items()},
            last={name: stream.last for name, stream in moved.items()})

    def _given_up(self, why: str, taken: Mapping[str, tuple[int, int]]) -> SimulationError:
        """The error of a run that did not come to its end: how far each stream got."""
        got = [f"{name} gave {done} of {count}" for name, (done, count) in taken.items()]
        got += [f"{name} left {left} waiting" for name, left in self.pending.items() if left]
        return SimulationError("X504", f"{self.description['unit']}: {why}: {', '.join(got)}",
                               "check the counts of the streams, then call reset()")

    def _open(self) -> int:
        if self._handle is None:
            raise DeviceError("X403", "the compiled unit is closed", "open it anew")
        return self._handle

    def _check(self, given: Mapping[str, Any], known: tuple[str, ...], kind: str) -> None:
        for name in given:
            if name not in known:
                raise UsageError("X206", f"{kind} stream of {self.description['unit']} is one of "
                                 f"{', '.join(known)}; got {name!r}{nearest(name, known)}")

    def _room(self, name: str, count: int) -> Words:
        """Zeros for that many payloads of a stream."""
        if count < 0:
            raise UsageError("X207", f"a count of items is 0 or more; got {count} of {name}")
        size = self._streams[name]
        return np.zeros((count, size) if size > 1 else count, np.uint64)

    def _words(self, name: str, items: Iterable[int] | Words) -> Words:
        """Items of an input stream as its words; UsageError if they cannot be."""
        width = self._widths[name]
        words = items if isinstance(items, np.ndarray) else pack(items, width)
        shape = self._queues[name].shape[1:]
        if words.dtype != np.uint64 or words.shape[1:] != shape or not words.ndim:
            raise UsageError("X202", f"items of {name} ({width} bits) are uint64 "
                             f"{['N', *shape]}; got {words.dtype} {list(words.shape)}",
                             "host.native.pack packs ints")
        if width % 64 and (words[..., -1] if shape else words).max(initial=0) >> width % 64:
            raise UsageError("X207", f"an item of {name} has at most {width} bits; "
                             "got one with more")
        return np.ascontiguousarray(words)


def pack(items: Iterable[int], width: int) -> Words:
    """Payloads as a stream's words: uint64 [N], or [N, words] if ``width`` is above 64.

    Parameters
    ----------
    items : iterable of int
        Packed payloads (`Layout.const(...).as_bits()`), 0 to 2^width - 1.
    width : int
        Bits of a payload.

    Raises
    ------
    UsageError
        X207 for an item below 0, or beyond the words that ``width`` takes.
    """
    size = max(1, -(-width // 64))
    try:
        data = b"".join(item.to_bytes(8 * size, "little") for item in items)
    except OverflowError:
        raise UsageError("X207", f"an item of {width} bits is 0 to 2^{width} - 1; "
                         "got one outside") from None
    words = np.frombuffer(data, "<u8").astype(np.uint64)
    return words.reshape(-1, size) if size > 1 else words


def _pattern(name: str, bits: Iterable[bool]) -> NDArray[np.uint8]:
    pattern = np.fromiter(bits, np.uint8)
    if not len(pattern) or pattern.all():
        raise UsageError("X207", f"a stall pattern of {name} that never lets go would run for ever")
    return pattern
