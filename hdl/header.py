"""Finds the blocks of a bit stream: where each begins, and whether the stream ends as it should.

    pos --> memory --> flag ----------------.
     ^         `----> mask --> ones --> end of the block --> o
     `------------------------------------'
"""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import delayed, register, register_like, tree_sum
from .bitstream import FromBit, ToBit, WidthCode, by_code, code_of, count_octet, next_operation
from .layouts import CodecOperation
from .queue import Queue
from .ram import Ram

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
    A header in 7 cycles, the end of an operation in 3.
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
        m.submodules.ends = ends = Queue(self.i.place.shape(), after=6)
        # How far the stream has come: what the queue of ends holds back is held back here, too.
        come = Signal.like(self.i.place)
        s1_come = Signal.like(self.i.place)
        with m.If(self.i.valid):
            m.d.sync += s1_come.eq(self.i.place + 1)
        m.d.sync += come.eq(s1_come)

        position = Signal(6 + len(self.i.place))
        offset, place = position[:6], position[6:]
        # Words that there are, from this place on: of the cycle before. So each step 0 is a try.
        there = register(len(place))
        next_there = Signal(len(place))
        ended = register()
        waits = ~self.i_operation.ready
        many = register()
        behind = there[-1]
        two = ~behind & (many | there[1])
        one, none = ~behind & there[0], behind | ~there[0]  # if not two
        tries = Signal()
        found = Signal()
        misses = Signal()
        incomplete = Signal()
        looks = Signal()
        checks = Signal()
        finishes = Signal()
        starts = Signal()
        pads = Signal()
        steps = Signal(8)                       # bit i: a header is in its step i
        code, is_final = self._operation(m, starts, steps[6])
        m.d.comb += [
            ends.i.valid.eq(self.i.valid & self.i.last),
            ends.i.payload.eq(self.i.place + 1),
            ends.o.ready.eq(finishes),
            self.many.eq(~ends.roomy),
            found.eq(tries & (two | (ended & one))),
            misses.eq((tries & ended & ~two & none) | incomplete),
            pads.eq(offset != 0),
        ]
        m.d.comb += next_there.eq(Mux(ends.o.valid, ends.o.payload, come) - place)
        m.d.sync += [
            there.eq(next_there),
            many.eq(next_there[2:-1].any()),
            ended.eq(ends.o.valid),
            tries.eq(looks & ~found & ~misses & ~steps[2:7].any() & self.roomy),
            steps.eq(Cat(C(0, 2), found, steps[2:4], steps[4] & ~incomplete, steps[5:])),
        ]
        with m.FSM():
            with m.State("IDLE"), m.If(waits):
                m.d.comb += starts.eq(1)
                m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += looks.eq(1)
                with m.If(misses):
                    m.next = "NEXT"
                with m.Elif(steps[6] & is_final):
                    m.next = "END"
            with m.State("END"):
                m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += checks.eq(ended | two | (one & ~pads))
                with m.If(ended):
                    m.next = "NEXT"
                with m.Elif(checks):
                    m.next = "DROP"
            with m.State("DROP"), m.If(ended):
                m.next = "NEXT"
            with m.State("NEXT"):
                m.d.comb += [finishes.eq(1), starts.eq(waits)]
                m.next = "IDLE"
                with m.If(waits):
                    m.next = "HEADER"

        next_place = register_like(place)
        m.d.sync += next_place.eq(place + 1)
        alone = register()
        length = Signal.like(position)
        flag, ones, padding = self._count(m, position, next_place, found, steps[3],
                                          steps[4] | (steps[5] & ~alone), looks)
        with m.If(found):
            m.d.sync += alone.eq(~two)
        m.d.comb += [
            incomplete.eq(steps[4] & alone & flag & self._exceeds(offset)),
            length.eq((ones << 3 << code.as_value())
                      | (self._fixed_length(flag, code) & steps[4].replicate(len(length)))),
        ]
        m.d.sync += position.eq(position + length)
        with m.If(finishes):
            m.d.sync += position.eq(Cat(C(0, 6), ends.o.payload))
        self._tell(m, position, next_place, found, steps[7], flag, code, is_final, misses)
        fits = ended & ~two & Mux(pads, one, ~there[-1] & ~there[0])
        self._judge(m, checks, fits, pads, misses, padding)
        return m

    def _exceeds(self, offset):
        """Whether a mask reaches into the word behind that of its flag."""
        return offset + 1 + self.block > 64

    def _fixed_length(self, flag, code):
        """Bits of a block, but of a sparse one's values: of these the flag counts as one."""
        def of(width):
            return Mux(flag, 1 + self.block - width, 1 + self.block * width)

        return by_code(code, of(8), of(16), of(32))

    def _operation(self, m, starts, block_ends):
        """The operation at work, while one waits: its element width; this block is its last."""
        waiting, _ = next_operation(m, self.i_operation, starts)
        blocks = register(24)
        code = register(WidthCode)
        is_final = register()
        m.d.sync += is_final.eq(blocks == 1)
        with m.If(starts):
            m.d.sync += [
                blocks.eq(waiting.blocks),
                code.eq(code_of(waiting.format)),
            ]
        with m.Elif(block_ends):
            m.d.sync += blocks.eq(blocks - 1)
        return code, is_final

    def _count(self, m, position, next_place, found, takes_flag, counts, in_header):
        """The flag, in step 4; the ones of flag and mask, in two parts, in steps 5 and 6.

        At the end of an operation: whether there is a one from the position on, 5 cycles later.
        """
        m.submodules.ring = ring = Ram(width=64, depth=RING_DEPTH, target=self.target)
        offset, place = position[:6], position[6:]
        m.d.comb += [
            ring.write.eq(self.i.valid), ring.i_address.eq(self.i.place),
            ring.i_data.eq(self.i.data),
            ring.address.eq(Mux(found, next_place, place)),
            ring.read.eq(1),
        ]
        split = self._split if self.block == 64 else self._split_short
        s2_bits, s2_whole, s2_edge, s3_tail = split(m, ring.o, offset, found, in_header)

        # Step 2: ones of each byte, and the byte that is there in part; step 3: of that part, and
        # of four bytes; step 4: of all.
        s3_octets = [register(4, name=f"s3_octet{i}") for i in range(8)]
        s3_edge = register(8)
        s4_edge = register(4)
        s4_halves = [register(6, name=f"s4_half{i}") for i in range(2)]
        s4_flag = register()
        s5_ones = Signal(7)
        s5_any = register()
        m.d.sync += [
            s3_edge.eq(ring.o.word_select(s2_edge, 8)),
            s4_edge.eq(count_octet(s3_edge & s3_tail)),
            *(half.eq(tree_sum(s3_octets[4 * i:4 * i + 4])) for i, half in enumerate(s4_halves)),
            s5_ones.eq(tree_sum([*s4_halves, s4_edge])),
            s5_any.eq(Cat(*s4_halves, s4_edge).any()),
        ]
        with m.If(~(s4_flag & counts)):
            m.d.sync += s5_ones.eq(0)
        with m.If(takes_flag):
            m.d.sync += s4_flag.eq(s3_edge.bit_select(offset[:3], 1))
        for i, octet in enumerate(s3_octets):
            m.d.sync += octet.eq(count_octet(s2_bits.word_select(i, 8)))
            with m.If(~s2_whole[i]):
                m.d.sync += octet.eq(0)
        return s4_flag, s5_ones, s5_any

    def _split(self, m, word, offset, found, in_header):
        """The part of flag and mask in a word: from ``offset`` on, and one bit more in the next.

        In step 2 the word, which of its bytes count, and which one counts in part; in step 3 in
        which part.
        """
        s1_end = register(range(65))
        s1_begin = register(6)
        s1_second = register()
        s2_parts = register(FromBit.shape)
        s3_tail = register(8)
        s2_edge = register(3)
        m.d.sync += [
            s1_end.eq(offset + 1), s1_begin.eq(offset), s1_second.eq(found),
            s2_parts.eq(Mux(s1_second, ToBit.parts(s1_end), FromBit.parts(s1_begin))),
            s2_edge.eq(Mux(s1_second, s1_end[3:], s1_begin[3:])),
            s3_tail.eq(s2_parts.tail),
        ]
        return word, s2_parts.above, s2_edge, s3_tail

    def _split_short(self, m, word, offset, found, in_header):
        """As ``_split``, for a mask that may end within the word in which it begins."""
        parts = register(FromBit.shape)
        until = register(FromBit.shape)
        s2_within = register(64)
        end = Signal(range(128))
        m.d.comb += end.eq(offset + 1 + self.block)
        m.d.sync += [
            parts.eq(FromBit.parts(Mux(found, 0, offset))),
            until.eq(ToBit.parts(Mux(found, Mux(end[6], end[:6], 0),
                                      Mux(end[6] | ~in_header, 64, end)))),
            s2_within.eq(FromBit.mask(parts) & ToBit.mask(until)),
        ]
        return word & s2_within, C(0xFF, 8), offset[3:], C(0, 8)

    def _tell(self, m, position, next_place, found, says, flag, code, is_final, misses):
        """Step 7: what to say of the block; it is said in step 8."""
        begin = register_like(position)     # of the first item
        told = register(BlockHeader)
        last_place = register(2)
        following = register(2)
        length = Signal.like(position)
        offset, place = position[:6], position[6:]
        with m.If(found):
            m.d.sync += begin.eq(Mux(offset.all(), Cat(C(0, 6), next_place),
                                     Cat((offset + 1)[:6], place)))
        # In items, rounded up, less one: a block's bits, and what a short mask lacks of an item.
        m.d.comb += length.eq(position + ~begin + Mux(flag, 64 - self.block, 0))
        values = (begin + self.block)[6:]
        with m.If(says):
            m.d.sync += [
                told.sparse.eq(flag),
                told.code.eq(code),
                told.offset.eq(begin[:6]),
                told.last_item.eq(length[6:]),
                last_place.eq(Mux(flag & (length[6:] != 0), values[:2] - 1, begin[6:8])),
                following.eq(place[:2] + offset.all()),
            ]
        m.d.sync += [
            self.o.valid.eq(says | misses),
            told.final.eq(is_final | misses),
            told.missing.eq(misses),
        ]
        m.d.comb += [
            self.o.payload.eq(told),
            self.o.payload.shift.eq(following - last_place - told.last_item),
        ]

    def _judge(self, m, checks, fits, pads, misses, padding):
        """Four cycles after an operation's end was found: whether it is as it should be."""
        valid, good, unpadded = delayed(
            m, Cat(checks | misses, fits & ~misses, pads), 4, "end", reset_less=False)
        m.d.comb += [
            self.o_good.valid.eq(valid),
            self.o_good.payload.eq(good & ~(unpadded & padding)),
        ]
