"""Unpacks the values of a row from 64-bit words."""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .bitstream import by_width
from .formats import FormatCode

__all__ = ["ValueUnpacker"]


class ValueUnpacker(wiring.Component):
    """Gives the elements packed in 64-bit words, lowest first; each row begins a new word.

    Members
    -------
    i : In(stream of unsigned(64))
        Words of eight, four or two elements. A row of no elements has no word.
    format : In(FormatCode)
        The elements' format (their width counts). It may change in the cycle after ``row_end``,
        and must hold while a row's elements are taken.
    row_end : In(1)
        Nothing more of the row under way will be taken after this cycle: what is left of a word
        begun is padding and goes.
    o : Out(stream of unsigned(32))
        One element, right-aligned, zeros above. What ``row_end`` drops is withdrawn, though it was
        offered: it was never the row's.

    Timing
    ------
    One element per cycle, from word to word and from row to row. A word's first element is there
    the cycle after the word was accepted; ``i.ready`` follows from ``o.ready`` and ``row_end`` in
    the same cycle.
    """

    i: In(stream.Signature(64))
    format: In(FormatCode)
    row_end: In(1)
    o: Out(stream.Signature(32))

    def elaborate(self, platform):
        m = Module()

        word = Signal(64)
        place = Signal(range(8))  # the first byte of the word that is not gone

        def choose(of_width):
            return by_width(self.format, of_width)

        # An element starts at a byte, two bytes further at an even one, four at a half.
        value, octets = self.o.payload, data.View(data.ArrayLayout(8, 8), word)
        m.d.comb += [
            value[:8].eq(octets[place]),
            value[8:16].eq(Mux(choose(lambda width: width > 8),
                               Array(octets[n] for n in range(1, 8, 2))[place[1:]], 0)),
            value[16:].eq(Mux(choose(lambda width: width > 16),
                              Mux(place[2], word[48:], word[16:32]), 0)),
        ]

        taken = self.o.valid & self.o.ready
        following = Signal(range(16))
        m.d.comb += following.eq(place + choose(lambda width: width // 8))
        begun = self.o.valid & (taken | place.any())
        done = Signal()
        m.d.comb += [
            done.eq((taken & following[3]) | (begun & self.row_end)),
            self.i.ready.eq(~self.o.valid | done),
        ]

        with m.If(self.i.ready):
            m.d.sync += [
                self.o.valid.eq(self.i.valid),
                word.eq(self.i.payload),
                place.eq(0),
            ]
        with m.Elif(taken):
            m.d.sync += place.eq(following)
        return m
