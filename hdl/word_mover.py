"""Words between a frame's bytes and the bus."""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register
from .machine_layouts import REGISTER_BASE, Register
from .protocol import BUS_REPLY, MAX_WORDS, BusRequest

__all__ = ["STOP", "WORD_BYTES", "WordMover"]

STOP = 1
"""Bit 0 of CONTROL: stop everything."""

WORD_BYTES = 8


class WordMover(wiring.Component):
    """Writes a request's words to the bus, or reads them.

    Members
    -------
    writes, reads, stops : In(1)
        One of them begins: ``count`` words from ``address`` on are written or read, or the machine
        is stopped. Not while ``busy``.
    address : In(32), count : In(range(MAX_WORDS + 1))
        Of the first word, and how many: at least 1.
    busy : Out(1)
        Words are missing; from the cycle after it has begun until all requests have been taken and
        all that was read has come out.
    i : In(stream of 8 bits)
        Bytes of the words that are written, the lowest first.
    o : Out(stream of 8 bits, always ready)
        Bytes of the words that are read.
    o_request : Out(stream of BusRequest), i_reply : In(stream of BUS_REPLY)
        The bus. A read's reply may come as soon as it has been taken.

    Timing
    ------
    8 cycles for a word and 1 or 2 more, and what the bus waits. The next word is asked for while
    the bytes of one come out. ``o_request`` comes from registers.
    """

    writes: In(1)
    reads: In(1)
    stops: In(1)
    address: In(32)
    count: In(range(MAX_WORDS + 1))
    busy: Out(1)
    i: In(stream.Signature(8))
    o: Out(stream.Signature(8, always_ready=True))
    o_request: Out(stream.Signature(BusRequest))
    i_reply: In(stream.Signature(BUS_REPLY))

    def elaborate(self, platform):
        m = Module()
        request = self.o_request.payload
        # Two, for a request may wait while the word before it comes out.
        written = register(8 * WORD_BYTES)
        word = register(8 * WORD_BYTES)
        place = Signal(range(WORD_BYTES))
        left = Signal.like(self.count)
        m.d.comb += [request.data.eq(written), self.o.payload.eq(word[:8])]
        with m.If(self.o_request.valid & self.o_request.ready):
            m.d.sync += [self.o_request.valid.eq(0), request.address.eq(request.address + 1)]

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += [request.address.eq(self.address), left.eq(self.count),
                             request.write.eq(~self.reads)]
                with m.If(self.writes):
                    m.next = "GATHER"
                with m.Elif(self.reads):
                    m.d.sync += self.o_request.valid.eq(1)
                    m.next = "AWAIT"
                with m.Elif(self.stops):
                    m.d.sync += [
                        request.address.eq(REGISTER_BASE + Register.CONTROL.value),
                        written.eq(STOP), left.eq(1), self.o_request.valid.eq(1),
                    ]
                    m.next = "SEND"
            with m.State("GATHER"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += [written.eq(Cat(written[8:], self.i.payload)),
                                 place.eq(place + 1)]
                    with m.If(place == WORD_BYTES - 1):
                        m.d.sync += self.o_request.valid.eq(1)
                        m.next = "SEND"
            with m.State("SEND"), m.If(self.o_request.ready):
                m.d.sync += left.eq(left - 1)
                m.next = "GATHER"
                with m.If(left == 1):
                    m.next = "IDLE"
            with m.State("AWAIT"):
                m.d.comb += self.i_reply.ready.eq(1)
                with m.If(self.i_reply.valid):
                    m.d.sync += [word.eq(self.i_reply.payload), left.eq(left - 1),
                                 self.o_request.valid.eq(left != 1)]
                    m.next = "SPREAD"
            with m.State("SPREAD"):
                m.d.comb += self.o.valid.eq(1)
                m.d.sync += [word.eq(word[8:]), place.eq(place + 1)]
                with m.If(place == WORD_BYTES - 1):
                    m.next = "AWAIT"
                    with m.If(left == 0):
                        m.next = "IDLE"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        return m
