"""The replies: the last ones are kept (docs/protocol.md, rules D4 and D5)."""

from amaranth.hdl import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .cobs import COBS_INPUT
from .protocol import (
    HEADER_BYTES,
    HELLO_WORDS,
    MAX_WORDS,
    REPLY,
    REPLY_HEADER,
    VERSION,
    WINDOW,
    Request,
    Status,
)
from .ram_stream import RamStream
from .word_mover import WORD_BYTES

__all__ = ["RECORD", "REPLY_PLACE", "Replies"]

RECORD = data.StructLayout({
    "request": 8, "status": Status, "expected": 16, "count": range(MAX_WORDS + 1)})
"""What is kept of a reply's header: the fields that are not the request's or the session's."""

REPLY_PLACE = data.StructLayout({"number": range(WINDOW), "scratch": 1})
"""The sequence number modulo the window; or the one place for a reply that is not kept."""

HELLO_DATA = Const(VERSION | WINDOW << 16 | MAX_WORDS << 32, 8 * WORD_BYTES * HELLO_WORDS)
DATA_BYTES = MAX_WORDS * WORD_BYTES


class Replies(wiring.Component):
    """Keeps replies, and sends them.

    Parameters
    ----------
    target : str
        Primitives, see ``Ram``.

    Members
    -------
    place : In(REPLY_PLACE)
        The reply that this is about: not to change from ``records`` or ``begins`` until ``busy``
        is 0.
    record : In(RECORD), records : In(1)
        What to keep of its header.
    i : In(stream of 8 bits, always ready)
        Its data, from the first byte on after ``records``.
    sequence : In(16), session : In(32), generation : In(32)
        See REPLY_HEADER.
    begins : In(1)
        It is sent, with data: those of HELLO, or of READ, as the record has it.
    busy : Out(1)
        It is being sent; from the cycle after ``begins`` until its last byte has been taken.
    o : Out(stream of COBS_INPUT)
        Its bytes.

    Timing
    ------
    ``begins`` comes at least 2 cycles after ``records`` or a change of ``place``. One byte per
    cycle, the first one 2 cycles after ``begins``, and 3 cycles between header and data. ``o``
    comes from registers.
    """

    def __init__(self, *, target="generic"):
        self.target = target
        super().__init__({
            "place": In(REPLY_PLACE), "record": In(RECORD), "records": In(1),
            "i": In(stream.Signature(8, always_ready=True)),
            "sequence": In(16), "session": In(32), "generation": In(32),
            "begins": In(1), "busy": Out(1),
            "o": Out(stream.Signature(COBS_INPUT)),
        })

    def elaborate(self, platform):
        m = Module()
        record = self._record(m)
        total = record.count << 3
        # Of the byte of data that is written, or read next; of the byte that is sent.
        index = Signal(range(DATA_BYTES + 1))
        number = Signal(range(DATA_BYTES))
        m.submodules.data = kept = RamStream(
            width=8, depth=WINDOW * DATA_BYTES, target=self.target)
        where = Cat(index[:-1], self.place.number)
        m.d.comb += [kept.write.eq(self.i.valid), kept.i_data.eq(self.i.payload),
                     kept.i_address.eq(where), kept.i.payload.eq(where)]
        header = Signal(REPLY_HEADER)
        m.d.comb += header.eq(Cat(
            record.request | REPLY, record.status, self.sequence, self.session,
            self.generation, record.expected, record.count))
        is_hello = record.request == Request.HELLO
        moves = Signal()
        m.d.comb += moves.eq(~self.o.valid | self.o.ready)
        with m.If(moves):
            m.d.sync += self.o.valid.eq(0)

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += index.eq(Mux(self.records | self.begins, 0, index + self.i.valid))
                with m.If(self.begins):
                    m.next = "HEADER"
            with m.State("HEADER"), m.If(moves):
                ends = number == HEADER_BYTES - 1
                m.d.sync += [
                    self.o.valid.eq(1), number.eq(Mux(ends, 0, number + 1)),
                    self.o.payload.data.eq(header.as_value().word_select(number[:4], 8)),
                    self.o.payload.last.eq(ends & (total == 0)),
                ]
                with m.If(ends):
                    m.next = "DATA"
                    with m.If(total == 0):
                        m.next = "IDLE"
            with m.State("DATA"):
                m.d.comb += [kept.i.valid.eq(~is_hello & (index != total)),
                             kept.o.ready.eq(moves)]
                m.d.sync += index.eq(index + (kept.i.valid & kept.i.ready))
                with m.If(moves & (is_hello | kept.o.valid)):
                    ends = number == total - 1
                    m.d.sync += [
                        self.o.valid.eq(1), number.eq(Mux(ends, 0, number + 1)),
                        self.o.payload.data.eq(Mux(
                            is_hello, HELLO_DATA.word_select(number[:4], 8), kept.o.payload)),
                        self.o.payload.last.eq(ends),
                    ]
                    with m.If(ends):
                        m.next = "IDLE"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        return m

    def _record(self, m):
        """The record at ``place``, from a register."""
        places = len(Value.cast(self.place))
        m.submodules.records = mem = memory.Memory(shape=RECORD, depth=1 << places, init=[])
        write, read = mem.write_port(), mem.read_port(domain="comb")
        record = Signal(RECORD, reset_less=True)
        m.d.comb += [write.addr.eq(self.place), write.data.eq(self.record),
                     write.en.eq(self.records), read.addr.eq(self.place)]
        m.d.sync += record.eq(read.data)
        return record
