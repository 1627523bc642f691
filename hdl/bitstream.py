"""Streams of bits in 64-bit words, lowest bit first: pack pieces of any length, take them apart."""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .formats import FORMATS
from .layouts import CodecWord

__all__ = ["BitPacker", "BitUnpacker", "Piece", "by_width", "check_block", "count_ones",
           "per_byte"]

Piece = data.StructLayout({"data": 64, "length": 7, "last": 1})
"""Up to 64 bits: the low ``length`` bits of ``data``, whose other bits must be zero."""


def check_block(block):
    """``block`` if it is a legal number of elements of a block; else TypeError or ValueError."""
    if not isinstance(block, int) or isinstance(block, bool):
        raise TypeError(f"block is an int; got {block!r}")
    if block not in (8, 16, 32, 64):
        raise ValueError(f"block is 8, 16, 32 or 64 elements; got {block}")
    return block


def by_width(format, choose):
    """``choose(8)``, ``choose(16)`` or ``choose(32)``: by the width of a run-time format."""
    narrow, medium = (
        Value.cast(format).matches(*(f.code.value for f in FORMATS.values() if f.width == width))
        for width in (8, 16))
    return Mux(narrow, choose(8), Mux(medium, choose(16), choose(32)))


def per_byte(bits, width):
    """One bit for each byte of a word, from one bit for each of its elements of ``width`` bits."""
    return Cat(bits[i].replicate(width // 8) for i in range(64 // width))


def count_ones(bits):
    """How many bits are set: a tree, as wide as it must be."""
    if len(bits) < 2:
        return bits
    half = len(bits) // 2
    return (count_ones(bits[:half]) + count_ones(bits[half:]))[:len(bits).bit_length()]


class BitPacker(wiring.Component):
    """Joins pieces of 0 to 64 bits, without gaps, into words of 64; pads the last with zeros.

    Members
    -------
    i : In(stream of Piece)
        The pieces. ``last`` ends the bit stream; at least one bit must have come by then.
    o : Out(stream of CodecWord)
        The words.

    Timing
    ------
    A piece per cycle; a last piece whose bits spill into one more word takes two. A full word
    waits for the next piece, so that the last one can be told; it then leaves the cycle after.
    """

    i: In(stream.Signature(Piece))
    o: Out(stream.Signature(CodecWord))

    def elaborate(self, platform):
        m = Module()

        held = Signal(64)
        held_count = Signal(range(65))
        flushes = Signal()  # the bits held are all there is

        free = ~self.o.valid | self.o.ready
        m.d.comb += self.i.ready.eq(free & ~flushes)

        piece = self.i.payload
        joined = Signal(128)
        total = Signal(range(129))
        spills = Signal()
        m.d.comb += [
            joined.eq(held | (piece.data << held_count)),
            total.eq(held_count + piece.length),
            spills.eq(total > 64),
        ]
        with m.If(free):
            m.d.sync += self.o.valid.eq(0)
            with m.If(flushes):
                m.d.sync += [
                    self.o.valid.eq(1),
                    self.o.payload.data.eq(held),
                    self.o.payload.last.eq(1),
                    held.eq(0),
                    held_count.eq(0),
                    flushes.eq(0),
                ]
            with m.Elif(self.i.valid):
                m.d.sync += [
                    self.o.valid.eq(spills | piece.last),
                    self.o.payload.data.eq(joined[:64]),
                    self.o.payload.last.eq(~spills),
                    flushes.eq(spills & piece.last),
                ]
                with m.If(spills):
                    m.d.sync += [held.eq(joined[64:]), held_count.eq(total - 64)]
                with m.Elif(piece.last):
                    m.d.sync += [held.eq(0), held_count.eq(0)]
                with m.Else():
                    m.d.sync += [held.eq(joined[:64]), held_count.eq(total)]
        return m


class BitUnpacker(wiring.Component):
    """Shows the next 64 bits of a bit stream, and lets 0 to 64 of them be taken per cycle.

    Members
    -------
    i : In(stream of CodecWord)
        The words; after ``last`` no more are accepted until ``clear``.
    bits : Out(64)
        The bits that come next; those that are not there (yet) are zero.
    available : Out(range(129))
        How many bits are there, in words accepted so far (up to 128; ``bits`` shows 64).
    ended : Out(1)
        The last word was accepted.
    take : In(range(65))
        Bits to remove in this cycle: at most ``available``.
    clear : In(1)
        Remove everything and begin a new bit stream.

    Timing
    ------
    A word accepted in one cycle shows in the next. Taking 64 bits per cycle needs a word per cycle
    and no more; ``i.ready`` follows from ``take`` in the same cycle.
    """

    i: In(stream.Signature(CodecWord))
    bits: Out(64)
    available: Out(range(129))
    ended: Out(1)
    take: In(range(65))
    clear: In(1)

    def elaborate(self, platform):
        m = Module()

        # Two words; unused ones are zero. `offset` bits of the lower one are gone.
        lower, upper = Signal(64), Signal(64)
        words = Signal(range(3))
        offset = Signal(range(64))

        reached = Signal(range(129))
        crosses = Signal()
        fill = Signal()
        m.d.comb += [
            self.bits.eq(Cat(lower, upper) >> offset),
            self.available.eq((words << 6) - offset),
            reached.eq(offset + self.take),
            crosses.eq(reached >= 64),
            self.i.ready.eq(~self.ended & ((words != 2) | crosses)),
            fill.eq(self.i.ready & self.i.valid),
        ]

        left = Signal(range(3))
        m.d.comb += left.eq(words - crosses)
        m.d.sync += [offset.eq(reached), words.eq(left + fill)]
        with m.If(crosses):
            m.d.sync += [lower.eq(upper), upper.eq(0)]
        with m.If(fill):
            m.d.sync += self.ended.eq(self.i.payload.last)
            with m.If(left == 0):
                m.d.sync += lower.eq(self.i.payload.data)
            with m.Else():
                m.d.sync += upper.eq(self.i.payload.data)
        with m.If(self.clear):
            m.d.sync += [
                lower.eq(0), upper.eq(0), words.eq(0), offset.eq(0), self.ended.eq(0),
            ]
        return m
