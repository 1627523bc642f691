"""Gives the elements of a row their values, from 64-bit words."""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import any_of, register
from .bitstream import by_width
from .buffer import StreamBuffer
from .formats import FormatCode
from .layouts import WORD_WIDTH, skipper_token
from .queue import Queue

__all__ = ["ValueUnpacker", "element_layout"]

OCTETS = WORD_WIDTH // 8


def element_layout(max_k, scale_block):
    """A token that has not met its value yet; ``takes_value``: it has one, of ``format``."""
    token = skipper_token(max_k, scale_block)
    return data.StructLayout({name: field.shape for name, field in token if name != "value"}
                             | {"takes_value": 1, "format": FormatCode})


class ValueUnpacker(wiring.Component):
    """Joins elements with their values, packed in 64-bit words, lowest first.

    Each row begins a new word. Where in its word a value lies, and whether the word is done with
    it, follows from the elements alone: so that is worked out a step before they meet.

    Parameters
    ----------
    max_k, scale_block : int
        As in ``skipper_token``.

    Members
    -------
    i : In(stream of element_layout(max_k, scale_block), always ready)
        The elements. The format's width may change from row to row.
    has_room : Out(1)
        Elements may set out. Seven that do after it fell have a place, too.
    i_values : In(stream of unsigned(64))
        Words of eight, four or two values. A row of no values has no word; what is left of a
        row's last word is padding.
    o : Out(stream of skipper_token(max_k, scale_block))
        The elements with their values, right-aligned, zeros above; 0 if they have none.

    Timing
    ------
    One element per cycle, from word to word and from row to row; from ``i`` to ``o`` three cycles.
    A word's first value can be given the cycle after the word was accepted; ``i_values.ready``
    follows from registers, ``has_room`` and ``o`` are registers.
    """

    def __init__(self, *, max_k, scale_block):
        self.max_k, self.scale_block = max_k, scale_block
        super().__init__({
            "i": In(stream.Signature(element_layout(max_k, scale_block), always_ready=True)),
            "has_room": Out(1, init=1),
            "i_values": In(stream.Signature(WORD_WIDTH)),
            "o": Out(stream.Signature(skipper_token(max_k, scale_block))),
        })

    def elaborate(self, platform):
        m = Module()
        token = skipper_token(self.max_k, self.scale_block)
        kept = [name for name, _ in token if name != "value"]
        # ``octets``, ``pairs``, ``halves``: which byte of the word is the value's lowest, which
        # pair of bytes if it has two or more, which half if it has four.
        m.submodules.placed = placed = Queue(data.StructLayout(
            {name: token[name].shape for name in kept}
            | {"takes_value": 1, "ends_word": 1,
               "octets": OCTETS, "pairs": OCTETS // 2, "halves": OCTETS // 4}), after=7)
        m.d.comb += self.has_room.eq(placed.roomy)
        self._place(m, placed.i, kept)

        m.submodules.joined = joined = StreamBuffer(token)
        wiring.connect(m, joined.o, wiring.flipped(self.o))
        word = register(WORD_WIDTH)
        has_word = Signal()
        element = placed.o.payload
        joins = Signal()
        m.d.comb += [
            joined.i.valid.eq(placed.o.valid & (~element.takes_value | has_word)),
            joins.eq(joined.i.ready & (~element.takes_value | has_word)),
            placed.o.ready.eq(joins),
            self.i_values.ready.eq(~has_word | (joins & placed.o.valid & element.ends_word)),
            *(joined.i.payload[name].eq(element[name]) for name in kept),
            joined.i.payload.value.eq(self._value(word, element)),
        ]
        with m.If(self.i_values.ready):
            m.d.sync += [has_word.eq(self.i_values.valid), word.eq(self.i_values.payload)]
        return m

    def _place(self, m, o, kept):
        """Say where each element's value lies in its word."""
        element, placed = self.i.payload, o.payload
        place = Signal(range(OCTETS))
        following = Signal(range(2 * OCTETS))
        at = Signal(OCTETS)

        def choose(of_width):
            return by_width(element.format, of_width)

        m.d.comb += [
            o.valid.eq(self.i.valid),
            *(placed[name].eq(element[name]) for name in kept),
            placed.takes_value.eq(element.takes_value),
            following.eq(place + choose(lambda width: width // 8)),
            placed.ends_word.eq((element.takes_value & following[-1])
                                | (element.last & (element.takes_value | place.any()))),
            at.eq(element.takes_value << place),
            placed.octets.eq(at),
            placed.pairs.eq(Mux(choose(lambda width: width > 8), at[::2], 0)),
            placed.halves.eq(Mux(choose(lambda width: width > 16), at[::4], 0)),
        ]
        with m.If(o.valid & element.last):
            m.d.sync += place.eq(0)
        with m.Elif(o.valid & element.takes_value):
            m.d.sync += place.eq(following)

    def _value(self, word, element):
        """The value of an element: one byte, the byte beside it, and the half beside both."""
        def one(selected, parts):
            return any_of(selected[n].replicate(len(part)) & part for n, part in enumerate(parts))

        octets, halves = ([word[low:low + width] for low in range(0, WORD_WIDTH, width)]
                          for width in (8, 16))
        return Cat(one(element.octets, octets), one(element.pairs, octets[1::2]),
                   one(element.halves, halves[1::2]))
