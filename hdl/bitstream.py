"""Parts of the codec: streams of bits in 64-bit words, lowest bit first, and moves of bytes."""

from functools import reduce
from itertools import combinations
from operator import and_, or_, xor

from amaranth.hdl import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import delayed, register, register_like
from .formats import FORMATS
from .layouts import CodecWord
from .queue import Queue

__all__ = ["BitPacker", "FromBit", "Piece", "ToBit", "WidthCode", "by_code", "by_width",
           "check_block", "code_of", "count_octet", "count_ones", "crossings", "exchange", "later",
           "next_operation", "ranks", "reached", "rotated_left", "rotated_right"]


class WidthCode(enum.Enum, shape=2):
    """The width of an element."""

    BITS8 = 0
    BITS16 = 1
    BITS32 = 2


Piece = data.StructLayout({"data": 64, "bytes": range(9), "first": 1, "flag": 1, "last": 1})
"""Some bytes of a bit stream: the low ``bytes`` of ``data``; the others must be zero.

``first``: the bit ``flag`` comes before them. ``last`` ends the bit stream.
"""


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


def code_of(format):
    """The ``WidthCode`` of a run-time format."""
    return by_width(format, lambda width: {
        8: WidthCode.BITS8, 16: WidthCode.BITS16, 32: WidthCode.BITS32}[width])


def by_code(code, narrow, medium, wide):
    """One of three values: by a ``WidthCode``."""
    return Mux(code == WidthCode.BITS8, narrow, Mux(code == WidthCode.BITS16, medium, wide))


def later(m, value, name):
    """A struct with a bit ``valid``, a cycle later; reset clears that bit and leaves the rest."""
    rest = register_like(value, name=name)
    valid = Signal(name=f"{name}_valid")
    o = Signal.like(value, name=f"{name}_o")
    m.d.sync += [rest.eq(value), valid.eq(value.valid)]
    m.d.comb += [o.eq(rest), o.valid.eq(valid)]
    return o


def next_operation(m, port, taken):
    """One operation waits while another is at work: (it, whether it is there), until ``taken``.

    An operation of no blocks is none.
    """
    waiting = register_like(port.payload, name="waiting")
    waits = Signal(name="waits")
    m.d.comb += port.ready.eq(~waits)
    with m.If(~waits):
        m.d.sync += [waiting.eq(port.payload), waits.eq(port.valid & (port.payload.blocks != 0))]
    with m.If(taken):
        m.d.sync += waits.eq(0)
    return waiting, waits


def reached(value):
    """For each of the numbers 0 to 7, whether the value is at most that."""
    return Cat(value <= i if i < (1 << len(value)) - 1 else Const(1, 1) for i in range(8))


def count_ones(bits):
    """How many bits are set: a tree, as wide as it must be."""
    if len(bits) < 2:
        return bits
    half = len(bits) // 2
    return (count_ones(bits[:half]) + count_ones(bits[half:]))[:len(bits).bit_length()]


def count_octet(bits):
    """How many of eight bits are set: full adders, three look-up tables deep."""
    def full_adder(a, b, c):
        return a ^ b ^ c, (a & b) | (a & c) | (b & c)

    sums, carries = zip(full_adder(*bits[:3]), full_adder(*bits[3:6]), full_adder(*bits[6:], 0),
                        strict=True)
    one, carry = full_adder(*sums)
    twos = [*carries, carry]
    return Cat(one, reduce(xor, twos),
               reduce(or_, (a & b for a, b in combinations(twos, 2))) & ~reduce(and_, twos),
               reduce(and_, twos))


def ranks(keep):
    """For each of the eight bytes of a word the count, 0 to 7, of those kept below it."""
    low = [count_ones(keep[:i]) for i in range(1, 5)]
    high = [count_ones(keep[4:i]) for i in range(5, 8)]
    return [Const(0, 1), *low, *((low[-1] + count)[:3] for count in high)]


def crossings(active, targets, bit):
    """The settings of one stage of a butterfly over eight lanes: which of its four pairs cross.

    Stages in the order of ``bit`` = 0, 1, 2 bring every active lane to its target without
    a conflict, if the targets of the active lanes, in their order, are consecutive modulo 8: two
    that want the same lane after a stage have targets equal in its low bits, hence are 2^(bit + 1)
    lanes apart, and so differ in the high bits of the lane, which are still those they came from.
    """
    return [Mux(active[low], targets[low][bit], ~targets[low | 1 << bit][bit])
            for low in range(8) if not low >> bit & 1]


def exchange(lanes, crosses, bit):
    """The eight lanes after a stage of a butterfly with these ``crossings``."""
    pairs = [low for low in range(8) if not low >> bit & 1]
    moved = list(lanes)
    for low, cross in zip(pairs, crosses, strict=True):
        high = low | 1 << bit
        moved[low] = Mux(cross, lanes[high], lanes[low])
        moved[high] = Mux(cross, lanes[low], lanes[high])
    return moved


def rotated_left(word, amount):
    """The word rotated by ``amount``, a list of pairs (bit, places)."""
    for bit, places in amount:
        word = Mux(bit, word.rotate_left(places), word)
    return word


def rotated_right(word, amount):
    """The word rotated by ``amount``, a list of pairs (bit, places)."""
    return rotated_left(word, [(bit, len(word) - places) for bit, places in amount])


class FromBit:
    """64 bits that are set from bit ``position`` (0 to 64) on; in two steps.

    ``parts`` is to be put into a register of that shape; ``mask`` makes the bits of it.
    """

    shape = data.StructLayout({"above": 8, "within": 8, "tail": 8})

    @staticmethod
    def parts(position):
        low, high = position[:3], position[3:]
        return Cat(C(0, 1), reached(high)[:7], *(high == i for i in range(8)), reached(low))

    @staticmethod
    def mask(parts):
        return Cat(parts.above[i] | (parts.within[i] & parts.tail[j])
                   for i in range(8) for j in range(8))


class ToBit(FromBit):
    """64 bits that are set up to bit ``position`` (0 to 64), that not included."""

    @staticmethod
    def parts(position):
        low, high = position[:3], position[3:]
        return Cat(~reached(high), *(high == i for i in range(8)), ~reached(low))


class BitPacker(wiring.Component):
    """Joins pieces, without gaps, into words of 64 bits; pads the last with zeros.

    A flag that is set makes 65 bits of eight bytes. It goes to the place of the top bit, which is
    then missing; the next piece brings it in the place of its own, and so on (``lags``).

    Members
    -------
    i : In(stream of Piece)
        The pieces. At least one bit must have come by the ``last``.
    o : Out(stream of CodecWord)
        The words.

    Timing
    ------
    A piece per cycle. A first piece takes one more cycle, and so does the end, if the piece before
    had eight bytes and left a full word or a missing bit; the end also if the last piece spills
    into one more word. A word leaves 6 cycles after the piece that completes it.
    """

    i: In(stream.Signature(Piece))
    o: Out(stream.Signature(CodecWord))

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(CodecWord, after=6)
        wiring.connect(m, queue.o, wiring.flipped(self.o))

        # Stage 0: where a piece goes. Of the bits that came, `held` (at most 64) are in no word
        # yet; if `lags`, the last of these is missing, and it is `top`.
        held = Signal(range(65))
        lags = Signal()
        top = register()
        closes = Signal()   # one more word, and the stream has ended
        piece = self.i.payload
        extra = Signal()
        steps = Signal()
        first = Signal()
        late = Signal()
        late_next = Signal()
        total = Signal(range(129))
        fills = Signal()
        rests = Signal()
        ends = Signal()
        m.d.comb += [
            extra.eq(closes | (piece.first & (held[6] | lags))),
            self.i.ready.eq(queue.roomy & ~extra),
            steps.eq(queue.roomy & (closes | self.i.valid)),
            first.eq(piece.first & ~extra),
            late.eq(lags | (first & piece.flag)),
            late_next.eq(late & ~extra & piece.bytes[3]),
            total.eq(held + Cat(piece.first, C(0, 2), piece.bytes)),
            fills.eq(Mux(extra, held[6], total[6:].any())),
            rests.eq(late_next | (total[6:].any() & (total[7] | total[:6].any()))),
            ends.eq(Mux(extra, closes, piece.last & ~rests)),
        ]
        with m.If(steps):
            m.d.sync += [
                held.eq(Mux(ends, 0, Mux(extra, held[:6], Cat(total[:6], total[7])))),
                lags.eq(late_next),
                closes.eq(~extra & piece.last & rests),
                top.eq(piece.data[63]),
            ]

        # Stages 1 to 3: bits are rotated to their places, `above` those that are held.
        s1_data = register(64)
        s1_rotation = register(6)
        s1_position = register(range(65))
        s2_data = register(64)
        s2_rotation = register(4)
        s2_parts = register(FromBit.shape)
        s3_data = register(64)
        s3_rotation = register(2)
        s3_above = register(64)
        s4_data = register(64)
        s4_above = register(64)
        # A missing bit has a place, one below.
        behind = late & ~first
        m.d.sync += [
            s1_data.eq(piece.data),
            s1_data[63].eq(Mux(late, Mux(first, 1, top), piece.data[63] & ~extra)),
            s1_rotation.eq(held + first),
            s1_position.eq(held + Cat(first ^ late, behind.replicate(6))),
            s2_data.eq(rotated_left(s1_data, [(s1_rotation[0], 1), (s1_rotation[1], 2)])),
            s2_rotation.eq(s1_rotation[2:]),
            s2_parts.eq(FromBit.parts(s1_position)),
            s3_data.eq(rotated_left(s2_data, [(s2_rotation[0], 4), (s2_rotation[1], 8)])),
            s3_rotation.eq(s2_rotation[2:]),
            s3_above.eq(FromBit.mask(s2_parts)),
            s4_data.eq(rotated_left(s3_data, [(s3_rotation[0], 16), (s3_rotation[1], 32)])),
            s4_above.eq(s3_above),
        ]
        with m.If(extra):
            m.d.sync += s1_data[:63].eq(0)

        # Stage 4: they join those that are held; what does not fit is held.
        s4_valid, s4_fills, s4_ends = delayed(
            m, Cat(steps, fills, ends), 4, "step", reset_less=False)
        rest = Signal(64)
        joined = Signal(64)
        m.d.comb += [
            joined.eq(rest | (s4_data & s4_above)),
            queue.i.valid.eq(s4_valid & (s4_fills | s4_ends)),
            queue.i.payload.data.eq(joined),
            queue.i.payload.last.eq(s4_ends),
        ]
        with m.If(s4_valid):
            m.d.sync += rest.eq(Mux(s4_fills, s4_data & ~s4_above, joined))
            with m.If(s4_ends):
                m.d.sync += rest.eq(0)
        return m
