"""The device's side of the link: requests from a line to a bus (docs/protocol.md).

     i ---> frames ---+---> session: whose turn it is, and what becomes of it
                      |
                      +---> words ---> o_request
                              ^------- i_reply
     o <--- frames <--- replies, the last ones kept
"""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register
from .frame_receiver import FRAME_LENGTH, FrameReceiver
from .frame_sender import FrameSender
from .protocol import (
    BUS_REPLY,
    HEADER_BYTES,
    HELLO_WORDS,
    REQUEST_HEADER,
    BusRequest,
    Request,
    Status,
)
from .replies import Replies
from .session import SESSION_LATENCY, VERDICT, Session, check_memory_words
from .word_mover import WordMover

__all__ = ["Link"]


def words_of_reply(header, verdict):
    """How many words follow the header of a reply."""
    is_ok = verdict.status == Status.OK
    read = Mux(header.request == Request.READ, header.count, 0)
    return Mux(is_ok, Mux(header.request == Request.HELLO, HELLO_WORDS, read), 0)


class Link(wiring.Component):
    """Executes each request exactly once and answers it, whatever comes over the line.

    Parameters
    ----------
    memory_words : int
        1..2^31: words of the scratch memory.
    target : str
        Primitives, see ``Ram``.

    Members
    -------
    i : In(stream of 8 bits), o : Out(stream of 8 bits)
        Bytes from and to the line. ``i.ready`` is always 1.
    o_request : Out(stream of BusRequest), i_reply : In(stream of BUS_REPLY)
        The bus: each request in range. It is to take requests and to answer reads in bounded time;
        writes are not answered.
    taken : Out(32), dropped : Out(16), repeated : Out(16)
        Frames taken, each of which is answered; dropped, for they were wrong or had no room; and
        answered by a kept reply. They begin anew after their highest values.

    Timing
    ------
    One byte per cycle in and out. Frames may come while others are executed or sent: as many as
    there are bytes of room (4095), and 14 of any size. From the last byte of a request to the last
    one of its reply, if nothing is before it and nothing stalls: 62 cycles if there are no words,
    else at most 1150 (READ of 64); never more than 9 for each word that is moved over the bus, 9
    for each that is sent, 8 for each that is skipped, and 62. The next request is taken as soon as
    a reply has left for the sender's memory (1024 bytes).

    Raises
    ------
    TypeError, ValueError
        If ``memory_words`` is not an int, or out of its range.
    """

    def __init__(self, *, memory_words, target="generic"):
        check_memory_words(memory_words)
        self.memory_words, self.target = memory_words, target
        super().__init__({
            "i": In(stream.Signature(8)),
            "o": Out(stream.Signature(8)),
            "o_request": Out(stream.Signature(BusRequest)),
            "i_reply": In(stream.Signature(BUS_REPLY)),
            "taken": Out(32), "dropped": Out(16), "repeated": Out(16),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = FrameReceiver(target=self.target)
        m.submodules.session = session = Session(memory_words=self.memory_words)
        m.submodules.words = words = WordMover()
        m.submodules.replies = replies = Replies(target=self.target)
        m.submodules.sender = sender = FrameSender(target=self.target)
        wiring.connect(m, replies.o, sender.i)
        wiring.connect(m, words.o, replies.i)
        wiring.connect(m, sender.o, wiring.flipped(self.o))
        wiring.connect(m, words.o_request, wiring.flipped(self.o_request))
        wiring.connect(m, wiring.flipped(self.i_reply), words.i_reply)

        header = register(REQUEST_HEADER)
        length = register(FRAME_LENGTH)
        verdict = register(VERDICT)
        m.d.comb += [
            receiver.i.valid.eq(self.i.valid), receiver.i.payload.eq(self.i.payload),
            self.i.ready.eq(1),
            session.header.eq(header), session.length.eq(length),
            words.address.eq(header.address), words.count.eq(header.count),
            words.i.payload.eq(receiver.o.payload),
            replies.place.number.eq(header.sequence),
            replies.place.scratch.eq(~(verdict.executes | verdict.repeats)),
            replies.sequence.eq(header.sequence), replies.session.eq(session.session),
            replies.generation.eq(session.generation),
            replies.record.request.eq(header.request), replies.record.status.eq(verdict.status),
            replies.record.expected.eq(session.expected),
            # More than MAX_WORDS are never OK.
            replies.record.count.eq(words_of_reply(header, verdict)),
        ]
        m.d.sync += [
            self.taken.eq(self.taken + session.applies),
            self.dropped.eq(self.dropped + receiver.drops),
            self.repeated.eq(self.repeated + (session.applies & session.verdict.repeats)),
        ]
        with m.If(session.applies):
            m.d.sync += verdict.eq(session.verdict)
        self._steps(m, header, length, verdict)
        return m

    def _steps(self, m, header, length, verdict):
        """What is done with a frame, from its first byte to its reply's last one."""
        receiver, session = m.submodules.receiver, m.submodules.session
        words, replies = m.submodules.words, m.submodules.replies
        left = register(FRAME_LENGTH)                # bytes of the frame
        count = Signal(range(HEADER_BYTES))
        does = verdict.executes & (verdict.status == Status.OK)
        m.d.sync += left.eq(left - (receiver.o.valid & receiver.o.ready))
        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += receiver.o_length.ready.eq(1)
                m.d.sync += [length.eq(receiver.o_length.payload),
                             left.eq(receiver.o_length.payload)]
                with m.If(receiver.o_length.valid):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += receiver.o.ready.eq(1)
                with m.If(receiver.o.valid):
                    m.d.sync += [header.eq(Cat(header.as_value()[8:], receiver.o.payload)),
                                 count.eq(count + 1)]
                    with m.If(count == HEADER_BYTES - 1):
                        m.next = "JUDGE"
            with m.State("JUDGE"):
                m.d.sync += count.eq(count + 1)
                with m.If(count == SESSION_LATENCY):
                    m.d.sync += count.eq(0)
                    m.d.comb += session.applies.eq(1)
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.comb += [
                    words.stops.eq(verdict.begins),
                    words.reads.eq(does & (header.request == Request.READ)),
                    words.writes.eq(does & (header.request == Request.WRITE)),
                    replies.records.eq(~verdict.repeats),
                ]
                m.next = "MOVE"
            with m.State("MOVE"):
                m.d.comb += [words.i.valid.eq(receiver.o.valid),
                             receiver.o.ready.eq(words.i.ready)]
                with m.If(~words.busy):
                    m.next = "SKIP"
            with m.State("SKIP"):
                m.d.comb += receiver.o.ready.eq(left != 0)
                with m.If(left == 0):
                    m.d.comb += replies.begins.eq(1)
                    m.next = "REPLY"
            with m.State("REPLY"), m.If(~replies.busy):
                m.next = "TAKE"
