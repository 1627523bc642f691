"""A session with a device: the driver's side of docs/protocol.md (rules H1 to H5)."""

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np

from ...gen.errors import DeviceError, UsageError
from ...hdl.machine_layouts import IDENTITY, REGISTER_BASE, Register
from ...hdl.protocol import MAX_WORDS, VERSION, WINDOW, Status
from .. import trace
from .channel import Channel, Statistics
from .frames import (
    HELLO,
    READ,
    WRITE,
    Reply,
    Words,
    encode_request,
    hello,
    number,
)
from .timing import Timing
from .window import Flight, Window
from .wire import Wire

__all__ = ["Session", "Statistics"]

_OK, _SESSION, _SEQUENCE = number(Status.OK), number(Status.SESSION), number(Status.SEQUENCE)
_REASONS = {number(Status.LENGTH): "its length", number(Status.ADDRESS): "there are no such words",
            number(Status.REQUEST): "it does not know it"}
_AGAIN = "open the device again"
MOST_WORDS = 1 << 17    # more than the largest scratch memory and all registers
_NAMES = {READ: "read", WRITE: "write"}


@dataclass(frozen=True)
class _Peer:
    """Who is at the other end: the session's number, the device's generation, its limits."""

    session: int
    generation: int
    window: int
    most_words: int


class Session:
    """Reads and writes a device's words over a wire (`exactum.host.bus.Bus`).

    Each request is executed once however often it is sent; what a call returns is what the device
    has read, else it raises. Calls block, but no longer than ``timing.call`` says. Several threads
    may call: one call is served after the other, and its time counts from its turn. A call that is
    interrupted (Ctrl-C) leaves the session usable; the next call first finishes what was on its
    way.

    After X404, X405 or X406 each call raises the same error until `reopen`.

    Parameters
    ----------
    connect : callable
        Opens the wire; called again by `reopen` where the wire has failed.
    timing : Timing
        Baud rate and time-outs.
    configuration_hash : str, optional
        SHA-256 that the device's configuration must have, as 64 hexadecimal digits; not looked at
        unless given.
    clock : callable
        Seconds, monotonic; the wire's waiting must go by the same clock.
    random : callable
        A random integer of so many bits: session and sequence numbers.

    Attributes
    ----------
    timing : Timing
        As given.

    Raises
    ------
    DeviceError
        X404 no answer, X407 another protocol, X408 another configuration, X410 noise; and what
        ``connect`` raises.
    """

    def __init__(self, connect: Callable[[], Wire], *, timing: Timing,
                 configuration_hash: str | None = None,
                 clock: Callable[[], float] = time.monotonic,
                 random: Callable[[int], int] = secrets.randbits) -> None:
        self.timing = timing
        self._hash = configuration_hash
        self._clock = clock
        self._random = random
        self._lock = threading.RLock()
        self._channel = Channel(connect, timing)
        self._generation = 0
        self._peer: _Peer | None = None
        self._error: DeviceError | None = None
        self._window = Window()
        self._refusal: DeviceError | None = None
        self.reopen()

    @property
    def statistics(self) -> Statistics:
        """What was counted so far: a copy."""
        return replace(self._channel.counts)

    @property
    def generation(self) -> int:
        """How many times this object has opened the device: grows whenever its memory is lost."""
        return self._generation

    def reopen(self) -> None:
        """Open the device, anew if it is open: whatever runs is stopped (H5).

        Takes the device from whoever has it. Returns or raises within ``timing.opening`` and, where
        a hash is compared, twice ``timing.call([(READ, 4)])``; `connect` comes on top.
        """
        with self._lock:
            self._peer = None
            self._error = None
            self._generation += 1
            try:
                self._channel.open()
                self._peer = self._greet()
                if self._hash is not None:
                    self._check_configuration(self._hash)
            except BaseException as error:
                if self._error is None:
                    self._error = error if isinstance(error, DeviceError) else DeviceError(
                        "X404", "opening was interrupted", _AGAIN)
                self._channel.close()
                raise

    def read(self, address: int, count: int) -> Words:
        """``count`` words from a word address on: a new array, uint64 [count].

        Raises
        ------
        UsageError
            X207: not addresses of 32 bits, or more words than any device has.
        DeviceError
            X403 closed, X404 link lost, X405 device reset, X406 taken by another program, X411
            no such words.
        """
        _check_range(address, count)
        if count > MOST_WORDS:
            raise UsageError("X207", f"a device has at most {MOST_WORDS} words; got {count}")
        words = np.empty(count, np.uint64)
        self._transfer(READ, address, words)
        return words

    def write(self, address: int, words: Words) -> None:
        """Write uint64 [count] from a word address on; raises as `read` does.

        Where it raises, any part may have been written.
        """
        given = np.asarray(words)
        if given.size and given.dtype.kind not in "ui":
            raise UsageError("X202", f"words are integers of 64 bits; got {given.dtype}")
        if given.dtype.kind == "i" and given.size and given.min() < 0:
            raise UsageError("X207", f"words are 0 to 2^64 - 1; got {given.min()}")
        if given.ndim != 1:
            raise UsageError("X201", f"words are a vector; got shape {list(given.shape)}")
        words = given.astype(np.uint64, copy=False)
        _check_range(address, len(words))
        self._transfer(WRITE, address, words)

    def close(self) -> None:
        """Release the wire; every later call raises DeviceError X403."""
        with self._lock:
            self._error = DeviceError("X403", "the link was closed", _AGAIN)
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _greet(self) -> _Peer:
        """HELLO until it is answered: the zero byte first, then a new session."""
        session = self._random(32) or 1
        sequence = self._random(16)
        self._window = Window(next_sequence=(sequence + 1) % 2**16)
        frame = hello(sequence=sequence, session=session)
        channel, counts, understood = self._channel, self._channel.counts, 0
        for attempt in range(self.timing.hello_tries):
            channel.send(b"\0" + frame, frames=1, again=attempt > 0)
            due = self._clock() + self.timing.replies_of([(HELLO, 0)])
            while (left := due - self._clock()) > 0:
                for reply in channel.receive(left):
                    understood += 1
                    if (reply.request, reply.sequence) == (HELLO, sequence):
                        found = _peer(reply, session)
                        if found is not None:
                            counts.replies += 1
                            return found
                    counts.dropped += 1
        counts.lost += 1
        if channel.noise and not understood:
            raise DeviceError("X410", f"{channel.name} sends {channel.noise} bytes, but no frame "
                              "of the protocol",
                              f"check that the device runs at {self.timing.baud} baud")
        raise DeviceError("X404", f"{channel.name} does not answer",
                          f"check cable, power and bitstream, and that it runs at "
                          f"{self.timing.baud} baud")

    def _check_configuration(self, wanted: str) -> None:
        """IDENTITY and HASH."""
        words = np.empty(1 + 4, np.uint64)
        self._transfer(READ, REGISTER_BASE + number(Register.IDENTITY), words[:1])
        self._transfer(READ, REGISTER_BASE + number(Register.HASH), words[1:])
        if words[0] != IDENTITY:
            raise DeviceError("X408", f"what answers at {self._channel.name} is not Exactum's "
                              "machine", "load the bitstream")
        found = words[1:].astype("<u8").tobytes().hex()
        if found != wanted:
            raise DeviceError("X408", f"the device's configuration is {found[:16]}, "
                              f"not {wanted[:16]}", "open it with its own configuration, or load "
                              "the bitstream of this one")

    def _transfer(self, request: int, address: int, words: Words) -> None:
        """All of a read or write."""
        with self._lock:
            if self._error is not None:
                raise DeviceError(*self._error.args)
            if self._peer is None:
                raise RuntimeError("no session")
            try:
                self._stream(self._peer, request, address, words)
            except DeviceError as error:
                if not self._channel.connected:
                    self._error = error
                raise

    def _stream(self, peer: _Peer, request: int, address: int, words: Words) -> None:
        """A window at a time."""
        window = self._window
        waiting = deque((offset, min(peer.most_words, len(words) - offset))
                        for offset in range(0, len(words), peer.most_words))
        limit = self._clock() + self.timing.call((request, count) for _, count in waiting)
        window.attempts = 0
        if window.flights:          # an interrupted call's
            self._send_again()
        while window.flights:
            self._await(limit)
        self._refusal = None
        while True:
            burst = bytearray()
            while waiting and window.room(peer.window) and self._refusal is None:
                offset, count = waiting.popleft()
                burst += self._launch(peer, request, address + offset,
                                      words[offset:offset + count])
            if burst:
                self._channel.send(bytes(burst), frames=burst.count(0))
                self._restart_timer()
            if not window.flights:
                break
            self._await(limit)
        if self._refusal is not None:
            raise self._refusal

    def _launch(self, peer: _Peer, request: int, address: int, words: Words) -> bytes:
        """The next request, among those on their way from now on."""
        window = self._window
        frame = encode_request(request, sequence=window.next_sequence, session=peer.session,
                               address=address, count=len(words),
                               words=words if request == WRITE else None)
        window.flights.append(Flight(request, window.next_sequence, address, len(words),
                                     frame, words if request == READ else None,
                                     trace.now()))
        window.next_sequence = (window.next_sequence + 1) % 2**16
        return frame

    def _await(self, limit: float) -> None:
        """Take what arrives; send again what is overdue."""
        window = self._window
        now = self._clock()
        counts = self._channel.counts
        for reply in self._channel.receive(max(0.0, min(window.due, limit) - now)):
            if self._take(reply):
                counts.replies += 1
                window.attempts = 0
                self._restart_timer()
            else:
                counts.dropped += 1
        while window.flights and window.flights[0].done:
            window.flights.popleft()
        now = self._clock()
        if window.flights and now >= limit:
            raise self._ended("X404", f"{self._channel.name} did not finish in time",
                              "check the cable, then open the device again")
        if window.flights and now >= window.due:
            for flight in window.flights:
                flight.sent, flight.refused = 0, 0
            self._send_again()

    def _take(self, reply: Reply) -> bool:
        """Whether a reply counts (H2); what it tells is done."""
        window, peer = self._window, self._peer
        flight = window.find(reply.sequence)
        if peer is None or flight is None or reply.request != flight.request:
            return False
        if reply.status == _SESSION:
            # A reply to another host's request names this session, if it is the device's.
            if reply.session == peer.session:
                return False
            if reply.session == 0:
                raise self._ended("X405", "the device was reset: its memory is lost", _AGAIN)
            raise self._ended("X406", "another program has opened the device",
                              "end it, then open the device again")
        if reply.session != peer.session:
            return False
        if reply.generation != peer.generation:
            raise self._ended("X405", "the device was reset: its memory is lost", _AGAIN)
        if reply.status == _SEQUENCE:
            return self._take_refusal(flight, reply)
        wanted = flight.count if flight.request == READ and reply.status == _OK else 0
        if len(reply.words) != wanted:
            return False
        if reply.status != _OK:
            self._refuse(flight, reply.status)
        elif flight.into is not None:
            flight.into[:] = reply.words
        flight.done = True
        trace.add("frames", _NAMES[flight.request], flight.begun, trace.now(),
                  address=flight.address, words=flight.count, sequence=flight.sequence)
        return True

    def _take_refusal(self, flight: Flight, reply: Reply) -> bool:
        """SEQUENCE: an older request was lost. Never counts as a reply.

        Each time that a request was sent may be refused. Only when the last of them was, sending
        again is called for: else every refusal of a window would send the whole window again.
        """
        flight.refused += 1
        if flight.refused >= flight.sent and self._window.find(reply.expected) is not None:
            self._send_again()
        return False

    def _refuse(self, flight: Flight, status: int) -> None:
        if self._refusal is None:
            reason = _REASONS.get(status, f"status {status}")
            self._refusal = DeviceError(
                "X411", f"the device refuses a request for {flight.count} words from "
                f"{flight.address} on: {reason}", "use addresses of its memory and registers")

    def _send_again(self) -> None:
        """All on their way, oldest first; the link is lost after too many times (H3)."""
        window = self._window
        window.attempts += 1
        if window.attempts >= self.timing.attempts:
            raise self._ended("X404", f"{self._channel.name} did not answer {window.attempts} "
                              "times", "check cable and power, then open the device again")
        again = window.open
        for flight in again:
            flight.sent += 1
        self._channel.send(b"\0" + b"".join(flight.frame for flight in again), frames=len(again),
                           again=len(again))
        self._restart_timer()

    def _restart_timer(self) -> None:
        self._window.due = self._clock() + self.timing.replies_of(
            (flight.request, flight.count) for flight in self._window.open)

    def _ended(self, code: str, message: str, hint: str) -> DeviceError:
        """The error with which the session ends."""
        self._channel.counts.lost += code == "X404"
        self._error = DeviceError(code, message, hint)
        return self._error


def _peer(reply: Reply, session: int) -> _Peer | None:
    """Who has answered HELLO; None if that was another host's. X407 for another protocol."""
    if reply.status == _OK and reply.session != session:
        return None
    if reply.status != _OK or len(reply.words) != 2:
        raise DeviceError("X407", f"the device does not speak version {VERSION} of the protocol",
                          "load a bitstream of this release")
    version, window, most = (int(reply.words[0]) >> shift & 0xFFFF for shift in (0, 16, 32))
    if version != VERSION or not window or not most:
        raise DeviceError("X407", f"the device speaks version {version} of the protocol, "
                          f"not {VERSION}", "load a bitstream of this release")
    return _Peer(session, reply.generation, min(window, WINDOW), min(most, MAX_WORDS))


def _check_range(address: int, count: int) -> None:
    if not (0 <= address <= 2**32 and 0 <= count <= 2**32 - address):
        raise UsageError("X207", f"words have addresses of 32 bits; got {count} words from "
                         f"{address} on")
