"""Each fault against each operation of a link, and whether what came of it is lawful.

A run: a session is opened, one operation is done while one fault happens, then the link is well
again, and the device must be reachable within a second. All in virtual time.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from exactum.gen.errors import DeviceError
from exactum.hdl.protocol import MAX_WORDS, Request
from exactum.host.link import Session, Timing
from exactum.host.link.frames import READ, WRITE, Words
from sim_tests.faults import FAULTS, HASH, Injector, configure
from sim_tests.link_reference import Executed, ReferenceDevice
from sim_tests.virtual_line import Direction, Hang, HostWire, Killed, Line

__all__ = ["ERRORS", "OPERATIONS", "RECOVERY", "Cell", "run_cell"]

OPERATIONS = {"read": (READ, 1, 200), "write": (WRITE, 1, 200), "stream in": (WRITE, 300, 900),
              "stream out": (READ, 300, 900), "open": (0, 0, 0)}
"""Each operation: request, and words at least and at most; ``open`` is a session's beginning."""

ERRORS = {"X401", "X404", "X405", "X406", "X408", "X410"}
"""What a call may raise when the link is at fault."""

RECOVERY = 1.0
MEMORY = 1024
OPEN_FRAMES = 3     # HELLO, IDENTITY and HASH
SLOWNESS = 0.05     # seconds that a slow host is late by itself


class _Sink(list):
    """A record that nobody reads."""

    def append(self, _: object) -> None:
        pass


@dataclass
class Cell:
    """A fault's runs against an operation.

    Parameters
    ----------
    returned, raised : int
        Runs whose operation returned; raised a typed error.
    retried : int
        Of those that returned, the ones in which frames were sent again.
    errors : Counter
        Runs by code.
    silent, doubled, hung, unlawful : int
        Runs with wrong words read or written, with a request executed twice, longer than a call's
        deadline, with another error. All 0.
    worst_recovery : float
        Virtual seconds from when the link was well to when words were read rightly.
    """

    fault: str
    operation: str
    injections: int = 0
    returned: int = 0
    retried: int = 0
    raised: int = 0
    errors: Counter = field(default_factory=Counter)
    silent: int = 0
    doubled: int = 0
    hung: int = 0
    unlawful: int = 0
    worst_recovery: float = 0.0
    notes: list[str] = field(default_factory=list)

    def row(self) -> dict[str, object]:
        """As benchmarks/results/faults.json has it."""
        return {"fault": self.fault, "operation": self.operation, "injections": self.injections,
                "returned": self.returned, "retried": self.retried, "raised": self.raised,
                "errors": dict(sorted(self.errors.items())), "silent_corruptions": self.silent,
                "double_executions": self.doubled, "hangs": self.hung, "unlawful": self.unlawful,
                "worst_recovery_seconds": round(self.worst_recovery, 4)}

    @property
    def clean(self) -> bool:
        return not (self.silent or self.doubled or self.hung or self.unlawful
                    or self.worst_recovery > RECOVERY)


def run_cell(fault: str, operation: str, injections: int, make: Callable[..., Session] = Session
             ) -> Cell:
    """So many runs with a fault that happened, each by its own seed."""
    cell, seed = Cell(fault, operation), 0
    while cell.injections < injections:
        run = _Run(cell, seed, make)
        run.go()
        cell.injections += run.injector.fired
        seed += 1
        if seed > 2 * injections + 10:
            raise AssertionError(f"{fault} against {operation} seldom happens")
    return cell


class _Run:
    """One run; what it finds it adds to its cell."""

    def __init__(self, cell: Cell, seed: int, make: Callable[..., Session]) -> None:
        self.cell, self.seed, self.make = cell, seed, make
        self.rng = rng = random.Random(f"{cell.fault} {cell.operation} {seed}")
        self.slow = rng if cell.fault == "slow host" else None
        self.device = ReferenceDevice(MEMORY)
        self.device.bus = _Sink()
        configure(self.device)
        self.line = Line(self.device, rng.choice((115_200, 921_600, 2_000_000)))
        self.timing = Timing(baud=self.line.baud)
        self.injector = Injector(self.line, cell.fault, rng)
        self.session = self._session()
        request, least, most = OPERATIONS[cell.operation]
        self.request = request
        count = rng.randint(least, most)
        self.address = rng.randint(16, MEMORY - max(1, count))
        for address in (*range(16), *range(self.address, self.address + count)):
            self.device.memory[address] = rng.getrandbits(64)
        self.words = np.frombuffer(rng.randbytes(8 * count), "<u8").astype(np.uint64)
        self.pieces = [(self.address + at, tuple(self.words[at:at + MAX_WORDS].tolist()))
                       for at in range(0, count, MAX_WORDS)]

    def go(self) -> None:
        """The run."""
        cell, rng = self.cell, self.rng
        self.session.write(0, np.arange(rng.randint(1, 16), dtype=np.uint64))
        self._read_some(self.session)
        frames = len(self.pieces) if self.request else OPEN_FRAMES
        self.injector.arm(dict.fromkeys(Direction, frames))
        before = self._contents(self.address, len(self.words))
        repeated = self.session.statistics.repeated
        try:
            found, error = self._timed(self._operate, self._limit()), None
        except Killed:
            self.injector.end()
            self._next_host()
            return
        except DeviceError as caught:
            found, error = None, caught
        if not self.injector.fired:
            return
        self._judge(before, found, error)
        if error is None:
            cell.returned += 1
            cell.retried += self.session.statistics.repeated > repeated
        self._outage()
        self.injector.end()
        self.line.run(max(self.line.now, self.injector.back))
        self._recover()

    def _operate(self) -> Words | None:
        if self.request == READ:
            return self.session.read(self.address, len(self.words))
        if self.request == WRITE:
            self.session.write(self.address, self.words)
        else:
            self.session.reopen()
        return None

    def _limit(self) -> float:
        """Seconds within which the operation must be over."""
        if self.request:
            return self.timing.call((self.request, len(words)) for _, words in self.pieces)
        return self.timing.opening + 2 * self.timing.call([(READ, 4)])

    def _timed(self, action: Callable[[], Words | None], limit: float) -> Words | None:
        begin = self.line.now
        try:
            return action()
        except Hang:
            self._note("hung", "waits for ever")
            raise DeviceError("X404", "hung") from None
        finally:
            if self.line.now - begin > limit + 1e-9 + (SLOWNESS if self.slow else 0):
                self._note("hung", f"{self.line.now - begin:.3f} of {limit:.3f} seconds")

    def _judge(self, before: list[int], found: Words | None, error: DeviceError | None) -> None:
        """Whether an operation did what it says, and nothing else."""
        if error is not None:
            self.cell.raised += 1
            self.cell.errors[error.code] += 1
            if error.code not in ERRORS or not error.hint:
                self._note("unlawful", str(error))
        if found is not None and found.tolist() != before:
            self._note("silent", "wrong words read")
        written = [(e.address, e.words) for e in self._executed(Request.WRITE) if e.address >= 16]
        if self.request != WRITE:
            lawful = not written
        elif error is None:
            lawful = written == self.pieces
        else:
            lawful = written == self.pieces[:len(written)]
        if not lawful:
            self._note("silent", "wrong words written")
        self._check_doubles()

    def _check_doubles(self) -> None:
        done = Counter((e.session, e.sequence) for e in self.device.executed
                       if e.request is not Request.HELLO)
        if done and max(done.values()) > 1:
            self._note("doubled", str(done.most_common(1)))

    def _outage(self) -> None:
        """While the link is not back, opening again fails in time, and so does what follows."""
        if self.injector.back <= self.line.now:
            return
        try:
            self._timed(self._reopened, self.timing.opening + 2 * self.timing.call([(READ, 4)]))
        except DeviceError as error:
            if error.code not in ERRORS:
                self._note("unlawful", str(error))
        else:
            if self.injector.back == float("inf") and self.cell.fault == "wrong bitstream":
                self._note("silent", "the wrong bitstream was taken for the right one")

    def _reopened(self) -> None:
        self.session.reopen()

    def _next_host(self) -> None:
        """The host was killed: the next one does the operation instead."""
        self.line.hosts.clear()
        begin = self.line.now
        try:
            self.session = self._session()
            self.cell.worst_recovery = max(self.cell.worst_recovery, self.line.now - begin)
            before = self._contents(self.address, len(self.words))
            found = self._timed(self._operate, self._limit())
        except DeviceError as error:
            self.cell.raised += 1
            self.cell.errors[error.code] += 1
            self._note("unlawful", str(error))
            return
        self.cell.returned += 1
        if found is not None and found.tolist() != before:
            self._note("silent", "wrong words read")
        if self.request == WRITE:
            after = self._contents(self.address, len(self.words))
            if after != self.words.tolist():
                self._note("silent", "wrong words written")
        self._check_doubles()

    def _recover(self) -> None:
        begin = self.line.now
        try:
            try:
                self._read_some(self.session)
            except DeviceError:
                self.session.reopen()
                self._read_some(self.session)
        except DeviceError as error:
            self._note("unlawful", f"does not recover: {error}")
        self.cell.worst_recovery = max(self.cell.worst_recovery, self.line.now - begin)
        self._check_doubles()

    def _read_some(self, session: Session) -> None:
        count = self.rng.randint(1, 8)
        expected = self._contents(0, count)
        if session.read(0, count).tolist() != expected:
            self._note("silent", "wrong words read in the end")

    def _contents(self, address: int, count: int) -> list[int]:
        return [self.device.memory.get(place, 0) for place in range(address, address + count)]

    def _executed(self, request: Request) -> Iterator[Executed]:
        return (e for e in self.device.executed if e.request is request)

    def _session(self) -> Session:
        return self.make(self._connect, timing=self.timing, configuration_hash=HASH,
                         clock=lambda: self.line.now, random=self.rng.getrandbits)

    def _connect(self) -> HostWire:
        return self.line.connect(self.slow)

    def _note(self, kind: str, text: str) -> None:
        setattr(self.cell, kind, getattr(self.cell, kind) + 1)
        self.cell.notes.append(f"{kind}: seed {self.seed}: {text}")


def cells() -> Iterable[tuple[str, str]]:
    """Every fault against every operation."""
    return [(fault, operation) for fault in FAULTS for operation in OPERATIONS]
