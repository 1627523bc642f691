"""Lets a unit of the machine do its work: writes, starts, waits and reads, over any bus."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...gen.config import Configuration
from ...gen.errors import DeviceError
from ...hdl.machine_layouts import (
    CHANNELS,
    COMMAND_WORDS,
    IDENTITY,
    REGISTER_BASE,
    UNIT_NAMES,
    Fault,
    Register,
    State,
    StatusWord,
)
from .. import trace
from ..bus import Bus, check_generation
from .commands import Words, end, go, halt, number, unit_number, wait
from .memory import WORD_BYTES, Region, Scratch, shares
from .streams import Feed, Results, Work

__all__ = ["Done", "Runner", "Status"]

_STOP, _START = 1, 2                        # bits of CONTROL
_RESULT_MOVES = 16                          # of a list
_LIST_WORDS = COMMAND_WORDS * (CHANNELS + _RESULT_MOVES + 4)
_HASH_WORDS = 4


@dataclass(frozen=True)
class Status:
    """STATUS, taken apart; ``running``, ``busy``: a bit for each unit, and channel."""

    state: Any
    fault: Any
    running: int
    busy: int

    @classmethod
    def of(cls, word: int) -> "Status":
        """Of the register's value."""
        status = StatusWord.from_bits(word)
        return cls(State(status["state"]), Fault(status["fault"]), status["running"],
                   status["busy"])


@dataclass(frozen=True)
class Done:
    """What a unit gave: results, right-aligned; its cycles; and LOST, which is the engine's."""

    results: NDArray[np.uint32]
    cycles: int
    lost: int


class _Arriving:
    """Results under way, one behind the other in a region of the scratch memory."""

    def __init__(self, results: Results, region: Region) -> None:
        self.results, self.region = results, region
        self.size, self.parts = 0, 0

    @property
    def has_room(self) -> bool:
        """Whether more may be expected in the same list."""
        return self.parts < _RESULT_MOVES and self.results.fits(
            self.region.words * WORD_BYTES - self.size)

    def expect(self) -> Words:
        """The command for the next results."""
        move, size = self.results.take(self.region.address + self.size,
                                       self.region.words * WORD_BYTES - self.size)
        self.size += size
        self.parts += 1
        return move.encode()

    def expect_all(self) -> Iterator[Words]:
        """The commands for all results; there must be room for them."""
        while self.results.left:
            yield self.expect()

    def collect(self, bus: Bus) -> None:
        """Read what has come."""
        words = bus.read(self.region.start, -(-self.size // WORD_BYTES)) if self.size else None
        if words is not None:
            self.results.put(words.astype("<u8").view(np.uint8)[:self.size])
        self.size = self.parts = 0


class Runner:
    """A machine behind a bus: one work after the other.

    Work that does not fit the scratch memory goes in chunks: each stream has its part of the
    memory, which is filled again when the last chunk has been taken. The unit is frozen until its
    words come, so its cycles are those of work that fits.

    Parameters
    ----------
    bus : Bus
    config : Configuration
        What the machine was built for.
    timeout : float
        Seconds after which a machine that does not get on is given up.

    ``lock`` is held by a work; who wants several to follow each other undisturbed holds it, too.

    Raises
    ------
    DeviceError
        X414 if what answers is not a machine, X408 if it was built for another configuration.
    """

    def __init__(self, bus: Bus, config: Configuration, *, timeout: float = 60.0) -> None:
        self.bus, self.config, self.timeout = bus, config, timeout
        self.lock = threading.RLock()
        found = bus.read(REGISTER_BASE + number(Register.IDENTITY), 1 + _HASH_WORDS)
        if int(found[0]) != IDENTITY:
            raise DeviceError("X414", f"the device names itself {found[:1].tobytes()!r}; a machine "
                              f"is called {IDENTITY.to_bytes(WORD_BYTES, 'little')!r}")
        built = found[1:].astype("<u8").tobytes().hex()
        if built != config.hash:
            raise DeviceError("X408", f"the device was built for the configuration {built}; "
                              f"{config.name} is {config.hash}",
                              "open it with the configuration that it was built for")
        self._is_idle = False       # nothing of an earlier work is left in the machine
        self.reset()

    def reset(self) -> None:
        """Stop whatever runs."""
        self._write_register(Register.CONTROL, _STOP)
        self._is_idle = True

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Hold the lock; what was interrupted before, however it was, is stopped first."""
        with self.lock:
            if not self._is_idle:
                self.reset()
            generation, self._is_idle = self.bus.generation, False
            try:
                yield
                check_generation(self.bus, generation)
            except DeviceError:
                with suppress(DeviceError):     # the first one says what is wrong
                    self.reset()
                raise
            self._is_idle = True

    def run(self, work: Work, *, resident: int = 0) -> Done:
        """Let a unit do its work to the end.

        The last ``resident`` words of the scratch memory are left alone, but for what the work
        itself says of them.

        Raises
        ------
        UsageError
            X217 if the scratch memory is too small for it.
        DeviceError
            X415 if a list fails, X416 if nothing gets on for ``timeout`` seconds. The machine is
            stopped then.
        """
        feeds = [feed for feed in work.feeds if feed.left]
        scratch = Scratch(self.room(resident))
        streams: list[Feed | Results] = [*feeds, *work.every_result]
        parts = shares(scratch.free, [stream.wanted for stream in streams],
                       [stream.least for stream in streams])
        regions = [scratch.take(part) for part in parts]
        places = {stream.channel: region for stream, region in zip(streams, regions, strict=True)}
        arriving = [_Arriving(results, places[results.channel]) for results in work.every_result]
        start = trace.now()
        with self._working():
            self._drive(work.unit, feeds, places, arriving, scratch.taken)
            stalled, lost, cycles = (
                number(x) for x in (Register.STALLED, Register.LOST, Register.CYCLES))
            counts = self.bus.read(REGISTER_BASE + stalled, cycles + len(UNIT_NAMES) - stalled)
        done = Done(work.results.gathered(), int(counts[cycles - stalled + unit_number(work.unit)]),
                    int(counts[lost - stalled]))
        _show(work.unit, start, done.cycles, int(counts[0]))
        return done

    def run_together(self, works: Sequence[Work], *, resident: int = 0) -> tuple[int, int] | None:
        """Let units work one after the other by a single list, without the host in between.

        What a work needs of those before it stays in the last ``resident`` words of the scratch
        memory, which the moves of the works say (`streams.Resident`, `streams.Kept`).

        Returns
        -------
        tuple of int
            Cycles of all units, and LOST; or None, with nothing done, where not every word of all
            of them fits at once.

        Raises
        ------
        DeviceError
            As `run`.
        """
        scratch = Scratch(self.room(resident))
        wanted = sum(feed.wanted for work in works for feed in work.feeds)
        wanted += sum(one.wanted for work in works for one in work.every_result)
        if wanted > scratch.free:
            return None
        writes: list[tuple[int, Words]] = []
        commands: list[Words] = []
        arriving: list[_Arriving] = []
        begun: set[str] = set()
        for work in works:
            results = [_Arriving(one, scratch.take(one.wanted)) for one in work.every_result]
            moves = [_moves_of(feed, scratch.take(feed.wanted), writes) for feed in work.feeds]
            moves += [[*one.expect_all()] for one in results]
            # A second MOVE of a channel waits for its first, and so for the unit.
            rounds = [[move for move in found if move is not None]
                      for found in zip_longest(*moves)]
            commands += [*rounds[0], go(work.unit, keep=work.unit in begun),
                         *chain.from_iterable(rounds[1:]),
                         wait(one.results.channel for one in results), halt(work.unit)]
            begun.add(work.unit)
            arriving += results
        if sum(map(len, commands)) + COMMAND_WORDS > _LIST_WORDS + scratch.free:
            return None
        start = trace.now()
        with self._working():
            self._list(writes, commands, scratch.taken)
            self._wait(lambda status: status.state is State.IDLE)
            for one in arriving:
                one.collect(self.bus)
            lost, cycles = (number(x) for x in (Register.LOST, Register.CYCLES))
            counts = self.bus.read(REGISTER_BASE + lost, cycles + len(UNIT_NAMES) - lost)
        spent = {unit: int(counts[cycles - lost + unit_number(unit)]) for unit in sorted(begun)}
        for unit, busy in spent.items():
            _show(unit, start, busy, 0)
        return sum(spent.values()), int(counts[0])

    def room(self, resident: int = 0) -> int:
        """Words for a work's streams, beside a list and what stays in the memory."""
        return max(0, self.config.device.memory_words - _LIST_WORDS - resident)

    def _drive(self, unit: str, feeds: list[Feed], places: dict[int, Region],
               arriving: list[_Arriving], list_at: int) -> None:
        """Give all words and take all results."""
        goes = False
        while any(one.results.left or one.parts for one in arriving):
            busy = self._busy(feeds, arriving) if goes else 0
            for one in arriving:
                if not busy >> one.results.channel & 1:
                    one.collect(self.bus)
            writes: list[tuple[int, Words]] = []
            commands: list[Words] = []
            for feed in feeds:
                if feed.left and not busy >> feed.channel & 1:
                    region = places[feed.channel]
                    words, move = feed.take(region.address, region.words)
                    writes.append((region.start, words))
                    commands.append(move.encode())
            commands += [one.expect() for one in arriving if not one.parts and one.results.left]
            if not goes:
                commands.append(go(unit))
                goes = True
            waited = [one for one in arriving if one.parts]
            more = [one for one in waited if one.results.left]
            if any(feed.left for feed in feeds) or len(more) > 1:
                self._list(writes, commands, list_at)
                continue
            # Every word is given, every result but one's has its place: a command may wait.
            for one in more:
                while one.has_room:
                    commands.append(one.expect())
            commands.append(wait(one.results.channel for one in waited))
            if not any(one.results.left for one in arriving):
                commands.append(halt(unit))
            self._list(writes, commands, list_at)
            self._wait(lambda status: status.state is State.IDLE)
            for one in waited:
                one.collect(self.bus)

    def _list(self, writes: list[tuple[int, Words]], moves: list[Words], at: int) -> None:
        """Write the words and the list, neighbours in one go, and start it."""
        merged: list[tuple[int, list[Words]]] = []
        for start, words in [*writes, (at, np.concatenate([*moves, end()]))]:
            if not len(words):
                continue
            if merged and merged[-1][0] + sum(map(len, merged[-1][1])) == start:
                merged[-1][1].append(words)
            else:
                merged.append((start, [words]))
        with trace.span("lists", "list", commands=len(moves) + 1):
            for start, parts in merged:
                self.bus.write(start, np.concatenate(parts).astype(np.uint64))
            self._write_register(Register.CONTROL, _START | at << 32)

    def _busy(self, feeds: list[Feed], arriving: list[_Arriving]) -> int:
        """The movers that are busy, once no list runs and one that has more to do is not."""
        wanted = [feed.channel for feed in feeds if feed.left]
        wanted += [one.results.channel for one in arriving if one.parts and (
            wanted or one.results.left)]
        mask = sum(1 << channel for channel in wanted)
        return self._wait(lambda status: status.state is State.IDLE and (
            not mask or status.busy & mask != mask)).busy

    def _wait(self, reached: Callable[[Status], bool]) -> Status:
        """The first STATUS for which that is so."""
        word, since = -1, time.monotonic()
        while True:
            now = self._register(Register.STATUS)
            status = Status.of(now)
            if status.state is State.FAILED:
                raise DeviceError("X415", f"the device has failed: fault {status.fault.name}, "
                                  f"units {status.running:#x} running, "
                                  f"movers {status.busy:#x} busy")
            if reached(status):
                return status
            if now != word:
                word, since = now, time.monotonic()
            elif time.monotonic() - since > self.timeout:
                raise DeviceError("X416", f"the device has not got on for {self.timeout:g} "
                                  f"seconds: state {status.state.name}, units "
                                  f"{status.running:#x} running, movers {status.busy:#x} busy")

    def _register(self, register: Any) -> int:
        return int(self.bus.read(REGISTER_BASE + number(register), 1)[0])

    def _write_register(self, register: Any, value: int) -> None:
        self.bus.write(REGISTER_BASE + number(register), np.array([value], np.uint64))


def _moves_of(feed: Feed, region: Region, writes: list[tuple[int, Words]]) -> list[Words]:
    """All of a feed's commands; its words go to ``writes``."""
    moves, at = [], region.start
    while feed.left:
        words, move = feed.take(at * WORD_BYTES, region.start + region.words - at)
        writes.append((at, words))
        moves.append(move.encode())
        at += len(words)
    return moves


def _show(unit: str, start: float, busy: int, stalled: int) -> None:
    """A unit's work on the time line: the share of it in which it moved, and that in which not."""
    end = trace.now()
    moved = start + (end - start) * busy / max(1, busy + stalled)
    trace.add(unit, "busy", start, moved, cycles=busy)
    trace.add(unit, "stalled", moved, end, cycles=stalled)
