"""Finds the blocks of a bit stream: where each begins, and whether the stream ends as it should.

    pos --> memory --> flag ----------------.
     ^         `----> mask --> ones --> end of the block --> o
     `------------------------------------'
"""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .bitstream import by_width, from_bit, to_bit
from .layouts import CodecOperation
from .queue import Queue
from .ram import Ram
from .squeezer import WidthCode

__all__ = ["RING_DEPTH", "BlockHeader", "HeaderReader", "RingWord"]

RING_DEPTH = 64
"""Words of the bit stream that there is room for: more than the longest block, and a mask."""

BlockHeader = data.StructLayout({
    "sparse": 1, "final": 1, "missing": 1, "code": WidthCode, "offset": 6, "last_item": 6,
    "shift": 2})
"""What a block's header says. ``final``: the operation's last block. ``missing``: the stream ended
before the header was complete; the block is the last and has nothing.

A block consists of items: the mask, and its values 64 bits by 64; ``last_item`` counts from 0.
``offset``: where the first item begins in its word. ``shift``: words from the one in which the last
item begins to the one in which the next block's first does.
"""

RingWord = data.StructLayout({"valid": 1, "data": 64, "last": 1, "place": range(2 * RING_DEPTH)})
"""A word of the bit stream and its place in the stream; it is kept until RING_DEPTH later."""


def total(numbers):
    """The sum of some numbers: a tree of adders."""
    if len(numbers) == 1:
        return numbers[0]
    half = len(numbers) // 2
    return total(numbers[:half]) + total(numbers[half:])


class HeaderReader(wiring.Component):
    """Reads the headers of an operation's blocks, ahead of the values, and checks its end.

    Members
    -------
    i_operation : In(stream of CodecOperation)
        What to decompress.
    i : In(RingWord)
        The words of the bit stream.
    roomy : In(1)
        What ``o`` and ``o_good`` give is taken.
    many : Out(1)
        Too many streams have ended; no more words are to come.
    o : Out(valid, BlockHeader)
        One for each block, until one is ``final``.
    o_good : Out(valid, 1)
        One for each operation: the stream ends with its last block, padded with zeros.

    Timing
    ------
    A header in 8 cycles, and one more for each operation.
    """

    def __init__(self, *, block, target):
        self.block, self.target = block, target
        super().__init__({
            "i_operation": In(stream.Signature(CodecOperation)),
            "i": In(RingWord),
            "roomy": In(1),
            "many": Out(1),
            "o": Out(stream.Signature(BlockHeader, always_ready=True)),
            "o_good": Out(stream.Signature(1, always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.ends = ends = Queue(self.i.place.shape(), reserve=6)
        # How far the stream has come: what the queue of ends holds back is held back here, too.
        come, s1_come = Signal.like(self.i.place), Signal.like(self.i.place)
        with m.If(self.i.valid):
            m.d.sync += s1_come.eq(self.i.place + 1)
        m.d.sync += come.eq(s1_come)

        position = Signal(6 + len(self.i.place))
        offset, place = position[:6], position[6:]
        there = Signal(signed(len(place)))      # words that there are, from this place on
        ended, waits = ends.o.valid, ~self.i_operation.ready
        begins, misses, incomplete = Signal(), Signal(), Signal()
        at_end, checks, finishes, starts = Signal(), Signal(), Signal(), Signal()
        steps = Signal(10)                      # bit i: a header is in its step i
        code, is_final = self._operation(m, starts, steps[7])
        idle = ~steps[1:8].any() & self.roomy
        m.d.comb += [
            ends.i.valid.eq(self.i.valid & self.i.last),
            ends.i.payload.eq(self.i.place + 1),
            ends.o.ready.eq(finishes),
            self.many.eq(~ends.roomy),
            there.eq(Mux(ended, ends.o.payload, come) - place),
            starts.eq(waits & finishes),
        ]
        m.d.sync += steps.eq(Cat(C(0, 1), begins, steps[1:4], steps[4] & ~incomplete, steps[5:]))
        with m.FSM():
            with m.State("IDLE"), m.If(waits):
                m.d.comb += starts.eq(1)
                m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += [
                    begins.eq(idle & ((there >= 2) | (ended & (there == 1)))),
                    misses.eq((idle & ~steps[8] & ended & (there < 1)) | incomplete),
                    finishes.eq(misses),
                ]
                with m.If(steps[7] & is_final):
                    m.next = "END"
                with m.If(misses & ~waits):
                    m.next = "IDLE"
            with m.State("END"):
                m.d.comb += [
                    at_end.eq(1),
                    checks.eq(ended | (there > offset.any())),
                    finishes.eq(ended),
                ]
                with m.If(ended):
                    m.next = "IDLE"
                    with m.If(waits):
                        m.next = "HEADER"
                with m.Elif(checks):
                    m.next = "DROP"
            with m.State("DROP"), m.If(ended):
                m.d.comb += finishes.eq(1)
                m.next = "IDLE"
                with m.If(waits):
                    m.next = "HEADER"

        flag, ones, padding = self._count(m, position, steps, at_end)
        alone, length, moves = Signal(), Signal.like(position), Signal()
        with m.If(begins):
            m.d.sync += alone.eq(there == 1)
        m.d.comb += [
            incomplete.eq(steps[4] & alone & flag & self._exceeds(offset)),
            moves.eq(steps[4] | steps[6] | (steps[7] & ~alone)),
            length.eq(Mux(steps[4], self._fixed_length(flag, code),
                          (ones << 3) << code.as_value())),
        ]
        with m.If(finishes):
            m.d.sync += position.eq(Cat(C(0, 6), ends.o.payload))
        with m.Elif(moves):
            m.d.sync += position.eq(position + length)
        self._tell(m, position, steps, flag, code, is_final, misses)
        self._judge(m, checks, ended & (there == offset.any()), offset.any(), misses, padding)
        return m

    def _exceeds(self, offset):
        """Whether a mask reaches into the word behind that of its flag."""
        return offset + 1 + self.block > 64

    def _fixed_length(self, flag, code):
        """Bits of a block but for the values of a sparse one."""
        return Mux(flag, 1 + self.block, Mux(
            code == WidthCode.BITS8, 1 + 8 * self.block,
            Mux(code == WidthCode.BITS16, 1 + 16 * self.block, 1 + 32 * self.block)))

    def _operation(self, m, starts, block_ends):
        """The operation at work, while one waits: its element width; this block is its last."""
        waiting, waits = Signal(CodecOperation), Signal()
        blocks, code = Signal(24), Signal(WidthCode)
        m.d.comb += self.i_operation.ready.eq(~waits)
        with m.If(~waits):
            m.d.sync += [
                waiting.eq(self.i_operation.payload),
                waits.eq(self.i_operation.valid & (self.i_operation.payload.blocks != 0)),
            ]
        is_final = Signal()
        m.d.sync += is_final.eq(blocks == 1)
        with m.If(starts):
            m.d.sync += [
                waits.eq(0),
                blocks.eq(waiting.blocks),
                code.eq(by_width(waiting.format, lambda width: {
                    8: WidthCode.BITS8, 16: WidthCode.BITS16, 32: WidthCode.BITS32}[width])),
            ]
        with m.Elif(block_ends):
            m.d.sync += blocks.eq(blocks - 1)
        return code, is_final

    def _count(self, m, position, steps, at_end):
        """The flag, in step 4; the ones of the mask's two parts, in steps 6 and 7.

        At the end of an operation: whether there is a one from the position on, 6 cycles later.
        """
        m.submodules.ring = ring = Ram(width=64, depth=RING_DEPTH, target=self.target)
        offset, place = position[:6], position[6:]
        next_place = Signal.like(place)
        m.d.sync += next_place.eq(place + 1)
        m.d.comb += [
            ring.write.eq(self.i.valid), ring.i_address.eq(self.i.place),
            ring.i_data.eq(self.i.data),
            ring.address.eq(Mux(steps[1], next_place, place)),
            ring.read.eq(1),
        ]

        # Steps 0 to 2: which bits of each word are the mask's.
        begin, end = Signal(range(65)), Signal(range(129))
        parts, within = Signal(from_bit.shape), Signal(64)
        m.d.comb += [begin.eq(offset + ~at_end), end.eq(begin + self.block)]
        m.d.sync += within.eq(from_bit.mask(parts))
        if self.block == 64:    # up to the end of the first word, and up to there in the second
            m.d.sync += parts.eq(Mux(steps[1], to_bit.parts(begin), from_bit.parts(begin)))
        else:
            until = Signal(from_bit.shape)
            m.d.sync += [
                parts.eq(Mux(steps[1], from_bit.parts(C(0, 7)), from_bit.parts(begin))),
                until.eq(to_bit.parts(Mux(steps[1], Mux(end[6], end[:6], 0),
                                          Mux(end[6] | at_end, 64, end)))),
                within.eq(from_bit.mask(parts) & from_bit.mask(until)),
            ]

        # Step 2: ones of pairs of bits; step 3: of 8 bits; step 4: of 32; step 5: of all.
        bits = ring.o
        pairs = [Signal(2, name=f"s3_pair{i}") for i in range(32)]
        octets = [Signal(4, name=f"s4_octet{i}") for i in range(8)]
        halves = [Signal(6, name=f"s5_half{i}") for i in range(2)]
        s3_flags, s4_flag, s6_ones, s6_any = Signal(8), Signal(), Signal(7), Signal()
        masked = bits & within
        m.d.sync += [
            *(pair.eq(masked[2 * i] + masked[2 * i + 1]) for i, pair in enumerate(pairs)),
            *(octet.eq(total(pairs[4 * i:4 * i + 4])) for i, octet in enumerate(octets)),
            *(half.eq(total(octets[4 * i:4 * i + 4])) for i, half in enumerate(halves)),
            s6_ones.eq(Mux(s4_flag, total(halves), 0)),
            s6_any.eq(Cat(halves).any()),
            s3_flags.eq(Cat(bits.word_select(i, 8).bit_select(offset[:3], 1) for i in range(8))),
        ]
        with m.If(steps[3]):
            m.d.sync += s4_flag.eq(s3_flags.bit_select(offset[3:], 1))
        return s4_flag, s6_ones, s6_any

    def _tell(self, m, position, steps, flag, code, is_final, misses):
        """Step 8: what to say of the block; it is said in step 9."""
        begin = Signal.like(position)   # of the first item
        told, last_place, next_place = Signal(BlockHeader), Signal(2), Signal(2)
        length = Signal.like(position)
        with m.If(steps[1]):
            m.d.sync += begin.eq(position + 1)
        # In items, rounded up, less one: a block's bits, and what a short mask lacks of an item.
        m.d.comb += length.eq(position + ~begin + Mux(flag, 64 - self.block, 0))
        values = (begin + self.block)[6:]
        with m.If(steps[8]):
            m.d.sync += [
                told.sparse.eq(flag),
                told.code.eq(code),
                told.offset.eq(begin[:6]),
                told.last_item.eq(length[6:]),
                last_place.eq(Mux(flag & (length[6:] != 0), values[:2] - 1, begin[6:8])),
                next_place.eq((position + 1)[6:]),
            ]
        m.d.sync += [
            self.o.valid.eq(steps[8] | misses),
            told.final.eq(is_final | misses),
            told.missing.eq(misses),
        ]
        m.d.comb += [
            self.o.payload.eq(told),
            self.o.payload.shift.eq(next_place - last_place - told.last_item),
        ]

    def _judge(self, m, checks, fits, pads, misses, padding):
        """Six cycles after an operation's end was found: whether it is as it should be."""
        valid, good, unpadded = checks | misses, fits & ~misses, pads
        for stage in range(1, 7):
            later = Signal(3, name=f"s{stage}_end")
            m.d.sync += later.eq(Cat(valid, good, unpadded))
            valid, good, unpadded = later
        m.d.comb += [
            self.o_good.valid.eq(valid),
            self.o_good.payload.eq(good & ~(unpadded & padding)),
        ]
