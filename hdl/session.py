"""Whose turn a request is, and what becomes of it (docs/protocol.md, rules D2 to D6)."""

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register
from .frame_receiver import FRAME_LENGTH
from .machine_layouts import REGISTER_BASE, REGISTERS
from .protocol import HEADER_BYTES, MAX_WORDS, REQUEST_HEADER, VERSION, WINDOW, Request, Status

__all__ = ["SESSION_LATENCY", "VERDICT", "Session", "check_memory_words"]

SESSION_LATENCY = 3
"""Cycles from a request to its verdict."""

VERDICT = data.StructLayout({"status": Status, "begins": 1, "executes": 1, "repeats": 1})
"""``begins``: it is a HELLO that begins a session. ``executes``: it is the expected one, executed
or not, and its reply is to be kept. ``repeats``: its kept reply is to be sent; ``status`` means
nothing. Otherwise the reply is not kept."""


CHECKS = data.StructLayout(dict.fromkeys((
    "is_hello", "is_known", "fits_version", "has_session", "is_own", "says_hello", "fits_length",
    "is_in_range", "is_expected", "is_kept"), 1))
"""What is right about a request: it is a HELLO; READ or WRITE; of our version; has a session; has
the device's; a HELLO's length and zeros; another's; its addresses; its sequence number is the
expected one; is that of a kept reply."""


def check_memory_words(memory_words):
    """Raise unless there can be so many words before the registers."""
    if not isinstance(memory_words, int) or isinstance(memory_words, bool):
        raise TypeError(f"memory_words is an int; got {memory_words!r}")
    if not 1 <= memory_words <= REGISTER_BASE:
        raise ValueError(f"memory_words is 1 to {REGISTER_BASE}; got {memory_words}")


class Checks(wiring.Component):
    """Compares a request with what it should be.

    Parameters
    ----------
    memory_words : int
        As in ``Session``.

    Members
    -------
    header, length, session, expected : In
        As in ``Session``.
    kept : In(range(WINDOW + 1))
        Replies that are kept.
    o : Out(CHECKS)
        What is right about it.

    Timing
    ------
    Latency 2 cycles.
    """

    def __init__(self, *, memory_words):
        self.memory_words = memory_words
        super().__init__({
            "header": In(REQUEST_HEADER), "length": In(FRAME_LENGTH), "session": In(32),
            "expected": In(16), "kept": In(range(WINDOW + 1)), "o": Out(CHECKS)})

    def elaborate(self, platform):
        m = Module()
        header, o = self.header, self.o

        # Stage 1: of each field by itself.
        s1_is = {kind: register(name=f"s1_is_{kind.name.lower()}") for kind in Request}
        s1_fits_version = register()
        s1_is_bare = register()      # the fields that are 0 by definition are
        s1_has_count = register()
        s1_has_session = register()
        s1_is_own = register()
        s1_behind = register(16)
        s1_is_register = register()
        s1_end = register(32)
        s1_words = register(range(MAX_WORDS + 2))
        s1_data_bytes = register(FRAME_LENGTH)
        m.d.sync += [
            *(s1_is[kind].eq(header.request == kind) for kind in Request),
            s1_fits_version.eq(header.address == VERSION),
            s1_is_bare.eq((header.zero == 0) & (header.zeros == 0)),
            s1_has_count.eq(header.count != 0),
            s1_words.eq(Mux(header.count > MAX_WORDS, MAX_WORDS + 1, header.count)),
            s1_has_session.eq(header.session != 0),
            s1_is_own.eq(header.session == self.session),
            s1_behind.eq(self.expected - header.sequence),
            s1_is_register.eq(header.address >= REGISTER_BASE),
            # Of a count that is too high, bits are lost; its length does not fit either.
            s1_end.eq(header.address[:31] + header.count[:len(s1_words)]),
            s1_data_bytes.eq(self.length - HEADER_BYTES),
        ]

        # Stage 2: of fields together.
        m.d.sync += [
            o.is_hello.eq(s1_is[Request.HELLO]),
            o.is_known.eq(s1_is[Request.READ] | s1_is[Request.WRITE]),
            o.fits_version.eq(s1_fits_version), o.has_session.eq(s1_has_session),
            o.is_own.eq(s1_is_own),
            o.says_hello.eq(s1_is_bare & ~s1_has_count & (s1_data_bytes == 0)),
            o.fits_length.eq(
                s1_is_bare & s1_has_count & (s1_words <= MAX_WORDS)
                & (s1_data_bytes == Mux(s1_is[Request.WRITE], s1_words << 3, 0))),
            o.is_in_range.eq(s1_end <= Mux(s1_is_register, REGISTERS, self.memory_words)),
            o.is_expected.eq(s1_behind == 0),
            o.is_kept.eq((s1_behind != 0) & (s1_behind <= self.kept)),
        ]
        return m


class Session(wiring.Component):
    """The device's session: its number and the number of the request that is expected.

    Parameters
    ----------
    memory_words : int
        1..2^31: words of the scratch memory.

    Members
    -------
    header : In(REQUEST_HEADER), length : In(FRAME_LENGTH)
        A request, and the length of its frame without CRC.
    verdict : Out(VERDICT)
        What becomes of it.
    applies : In(1)
        The verdict comes into force.
    session, generation, expected : Out
        See REPLY_HEADER; 0 after reset.

    Timing
    ------
    The verdict follows request and state by ``SESSION_LATENCY`` (3) cycles, and comes from
    registers; the state changes in the cycle after ``applies``.

    Raises
    ------
    TypeError, ValueError
        If ``memory_words`` is not an int, or out of its range.
    """

    def __init__(self, *, memory_words):
        check_memory_words(memory_words)
        self.memory_words = memory_words
        super().__init__({
            "header": In(REQUEST_HEADER), "length": In(FRAME_LENGTH), "verdict": Out(VERDICT),
            "applies": In(1), "session": Out(32), "generation": Out(32), "expected": Out(16),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.checks = checks = Checks(memory_words=self.memory_words)
        header, verdict, request = self.header, self.verdict, checks.o
        kept = Signal(range(WINDOW + 1))
        m.d.comb += [
            checks.header.eq(header), checks.length.eq(self.length),
            checks.session.eq(self.session), checks.expected.eq(self.expected),
            checks.kept.eq(kept),
        ]

        # Stage 3: the verdict, by the rules in their order.
        m.d.sync += verdict.eq(0)
        with m.If(request.is_hello):
            with m.If(~request.fits_version):
                m.d.sync += verdict.status.eq(Status.VERSION)
            with m.Elif(~request.says_hello):
                m.d.sync += verdict.status.eq(Status.LENGTH)
            with m.Elif(~request.has_session):
                m.d.sync += verdict.status.eq(Status.SESSION)
            with m.Else():
                m.d.sync += verdict.begins.eq(~request.is_own)
        with m.Elif(~request.has_session | ~request.is_own):
            m.d.sync += verdict.status.eq(Status.SESSION)
        with m.Elif(request.is_kept):
            m.d.sync += verdict.repeats.eq(1)
        with m.Elif(~request.is_expected):
            m.d.sync += verdict.status.eq(Status.SEQUENCE)
        with m.Else():
            m.d.sync += verdict.executes.eq(1)
            with m.If(~request.is_known):
                m.d.sync += verdict.status.eq(Status.REQUEST)
            with m.Elif(~request.fits_length):
                m.d.sync += verdict.status.eq(Status.LENGTH)
            with m.Elif(~request.is_in_range):
                m.d.sync += verdict.status.eq(Status.ADDRESS)

        with m.If(self.applies & verdict.begins):
            m.d.sync += [self.session.eq(header.session), kept.eq(0),
                         self.generation.eq(self.generation + 1)]
        with m.If(self.applies & verdict.executes & (kept != WINDOW)):
            m.d.sync += kept.eq(kept + 1)
        with m.If(self.applies & (verdict.begins | verdict.executes)):
            m.d.sync += self.expected.eq(header.sequence + 1)
        return m
