"""The zero compressor: blocks of elements become one bit stream (docs/zce.md).

    i --> loader --> squeezer ---> plain words, masks ---> sender --> packer --> o
                         `-------> packed words -------------^
"""

from amaranth.hdl import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from .arithmetic import register
from .bitstream import (
    BitPacker,
    Piece,
    WidthCode,
    by_code,
    by_width,
    check_block,
    code_of,
    later,
    next_operation,
)
from .layouts import CodecOperation, CodecWord
from .ram import Ram
from .squeezer import (
    Squeezer,
    SqueezerDone,
    SqueezerPacked,
    SqueezerPlain,
    SqueezerWord,
)

__all__ = ["Compressor"]

SLOTS = 16
"""Blocks that there is room for between loader and sender."""

STORED = 12
"""Blocks on their way with which no more words are taken: some may still come."""

BlockEntry = data.StructLayout({"sparse": 1, "final": 1, "bare": 1, "last_word": 5, "tail": 4})
"""A block as the sender sees it. ``bare``: it has no words, only a mask. ``last_word`` is their
number less one; the last has ``tail`` bytes. ``final`` ends the operation."""


def saves(size, limit):
    """Whether a block of so many bytes that are not zero is sent with its mask."""
    return size < limit


class Loader(wiring.Component):
    """Counts the words of operations into blocks.

    Members
    -------
    i_operation, i
        As of the ``Compressor``.
    roomy : In(1)
        Words may be taken.
    o : Out(SqueezerWord)
        The words, a cycle later.

    Timing
    ------
    A word per cycle, also from operation to operation if the next one is offered in time: while
    words of one are taken, one more waits. The first word is taken two cycles after its operation.
    """

    def __init__(self, *, block):
        self.block = block
        super().__init__({
            "i_operation": In(stream.Signature(CodecOperation)),
            "i": In(stream.Signature(64)),
            "roomy": In(1),
            "o": Out(SqueezerWord),
        })

    def elaborate(self, platform):
        m = Module()
        starts = Signal()
        waiting, waits = next_operation(m, self.i_operation, starts)
        blocks = register(24)
        loads = Signal()
        code = register(WidthCode)
        place = Signal(5)
        last_place = register(5)
        word = Signal(SqueezerWord)

        accepts = Signal()
        ends = Signal()
        final = Signal()
        m.d.comb += [
            starts.eq(waits & (~loads | (accepts & ends & final))),
            self.i.ready.eq(loads & self.roomy),
            accepts.eq(self.i.valid & self.i.ready),
            ends.eq(place == last_place),
            final.eq(blocks == 1),
            word.valid.eq(accepts),
            word.data.eq(self.i.payload),
            word.first.eq(place == 0),
            word.last.eq(ends),
            word.code.eq(code),
            word.place.eq(place),
            word.final.eq(final),
            self.o.eq(later(m, word, "s1")),
        ]
        with m.If(accepts):
            m.d.sync += place.eq(Mux(ends, 0, place + 1))
            with m.If(ends):
                m.d.sync += [blocks.eq(blocks - 1), loads.eq(~final)]
        with m.If(starts):
            m.d.sync += [
                loads.eq(1),
                blocks.eq(waiting.blocks),
                code.eq(code_of(waiting.format)),
                last_place.eq(by_width(waiting.format,
                                       lambda width: self.block * width // 64 - 1)),
            ]
        return m


class Sender(wiring.Component):
    """Keeps blocks, as they are and squeezed, until they are whole; sends what is shorter.

    Members
    -------
    plain, packed, done : In
        As the ``Squeezer`` gives them.
    o : Out(stream of Piece)
        For each block the mask, if it is sparse, and its words.
    freed : Out(1)
        The room of a block was given back.

    Timing
    ------
    A piece per cycle; the first of a block follows 8 cycles after ``done``.
    """

    def __init__(self, *, block, target):
        self.block, self.target = block, target
        super().__init__({
            "plain": In(SqueezerPlain),
            "packed": In(SqueezerPacked),
            "done": In(SqueezerDone),
            "o": Out(stream.Signature(Piece)),
            "freed": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        plain_words, packed_words, packed_place, mask_read = self._words(m)
        ahead, ahead_slot, ahead_valid, takes = self._entries(m, packed_place)

        # Stage 0: the next piece of a block. All stages move together.
        moves = Signal()
        slot = register(range(SLOTS))
        entry = register(BlockEntry)
        busy = Signal()
        place = Signal(5)
        begins = Signal(init=1)
        is_mask = Signal()
        ends = Signal()
        m.d.comb += [
            is_mask.eq(begins & entry.sparse),
            ends.eq(Mux(is_mask, entry.bare, place == entry.last_word)),
            takes.eq(moves & (~busy | ends)),
            self.freed.eq(takes & ahead_valid),
        ]
        with m.If(moves):
            with m.If(busy):
                m.d.sync += [begins.eq(ends), place.eq(Mux(ends | is_mask, 0, place + 1))]
            with m.If(takes):
                m.d.sync += [busy.eq(ahead_valid), entry.eq(ahead), slot.eq(ahead_slot)]

        # Stages 1 and 2: reading. Stage 3: the mask, or the word of one kind.
        s1_valid = Signal()
        s1_mask = register()
        s1_packed = register()
        s2_valid = Signal()
        s2_mask = register()
        s2_packed = register()
        s1_slot = register(range(SLOTS))
        s2_bits = register(64)
        s1_piece = register(Piece)
        s2_piece = register(Piece)
        s3_piece = register(Piece)
        m.d.comb += [
            moves.eq(~self.o.valid | self.o.ready),
            mask_read.addr.eq(s1_slot),
            self.o.payload.eq(s3_piece),
        ]
        for words in (plain_words, packed_words):
            m.d.comb += [words.address.eq(self._address(place, slot)), words.read.eq(moves)]
        with m.If(moves):
            m.d.sync += [
                s1_valid.eq(busy), s1_mask.eq(is_mask), s1_packed.eq(entry.sparse),
                s1_slot.eq(slot),
                s1_piece.bytes.eq(Mux(is_mask, self.block // 8, Mux(ends, entry.tail, 8))),
                s1_piece.first.eq(begins), s1_piece.flag.eq(entry.sparse),
                s1_piece.last.eq(ends & entry.final),
                s2_valid.eq(s1_valid), s2_mask.eq(s1_mask), s2_packed.eq(s1_packed),
                s2_piece.eq(s1_piece), s2_bits.eq(mask_read.data),
                self.o.valid.eq(s2_valid), s3_piece.eq(s2_piece),
                s3_piece.data.eq(
                    Mux(s2_mask, s2_bits, Mux(s2_packed, packed_words.o, plain_words.o))),
            ]
        return m

    def _address(self, place, slot):
        return Cat(place[:exact_log2(self.block // 2)], slot)

    def _words(self, m):
        """The memories of words and masks, written as they come; the ports that are read."""
        m.submodules.plain_words = plain_words = Ram(
            width=64, depth=SLOTS * self.block // 2, target=self.target)
        m.submodules.packed_words = packed_words = Ram(
            width=64, depth=SLOTS * self.block // 2, target=self.target)
        m.submodules.masks = masks = memory.Memory(
            shape=data.ArrayLayout(8, self.block // 8), depth=SLOTS, init=[])
        mask_write = masks.write_port(granularity=1)

        plain_slot = Signal(range(SLOTS))
        packed_slot = Signal(range(SLOTS))
        packed_place = Signal(5)
        octet = Signal(3)
        code = self.plain.code
        m.d.comb += [
            octet.eq(self.plain.place >> code.as_value()),
            plain_words.write.eq(self.plain.valid),
            plain_words.i_address.eq(self._address(self.plain.place, plain_slot)),
            plain_words.i_data.eq(self.plain.data),
            mask_write.en.eq(Cat(self.plain.valid & (octet == i) for i in range(self.block // 8))),
            mask_write.addr.eq(plain_slot),
            *(mask_write.data[i].eq(self.plain.mask) for i in range(self.block // 8)),
            packed_words.write.eq(self.packed.valid),
            packed_words.i_address.eq(self._address(packed_place, packed_slot)),
            packed_words.i_data.eq(self.packed.data),
        ]
        m.d.sync += [
            plain_slot.eq(plain_slot + (self.plain.valid & self.plain.last)),
            packed_slot.eq(packed_slot + self.done.valid),
            packed_place.eq(Mux(self.done.valid, 0, packed_place + self.packed.valid)),
        ]
        return plain_words, packed_words, packed_place, masks.read_port(domain="comb")

    def _entries(self, m, words):
        """The memory of entries; the next one in a register, until it is taken."""
        m.submodules.entries = entries = memory.Memory(shape=BlockEntry, depth=SLOTS, init=[])
        write, read = entries.write_port(), entries.read_port(domain="comb")

        # The mask costs `block` bits and saves the zeros' own.
        done = later(m, self.done, "s1_done")
        s1_words = register(6)
        size = register(9)
        is_sparse = Signal()
        entry = register(BlockEntry)

        def choose(of_width):
            return by_code(done.code, of_width(8), of_width(16), of_width(32))

        m.d.sync += [
            s1_words.eq(words),
            size.eq((words << 3) + self.done.tail),
            write.en.eq(done.valid),
            entry.sparse.eq(is_sparse),
            entry.final.eq(done.final),
            entry.bare.eq(done.tail == 0),
            entry.last_word.eq(
                Mux(is_sparse, s1_words, choose(lambda width: self.block * width // 64 - 1))),
            entry.tail.eq(Mux(is_sparse, done.tail, 8)),
            write.addr.eq(write.addr + write.en),
        ]
        m.d.comb += write.data.eq(entry)
        m.d.comb += is_sparse.eq(saves(size, choose(lambda width: self.block * (width - 1) // 8)))

        ahead = register(BlockEntry)
        slot = register(range(SLOTS))
        valid = Signal()
        takes = Signal()
        there = read.addr != write.addr
        with m.If(takes | ~valid):
            m.d.sync += [
                ahead.eq(read.data), slot.eq(read.addr), valid.eq(there),
                read.addr.eq(read.addr + there),
            ]
        return ahead, slot, valid, takes


class Compressor(wiring.Component):
    """Packs blocks of elements: a flag, then mask and non-zero values, or all values.

    A block is sparse (mask and non-zero values) exactly if that is shorter than all values.

    Parameters
    ----------
    block : int
        Elements of a block: 8, 16, 32 or 64.
    target : str
        What it is built for: of the ``Ram``.

    Members
    -------
    i_operation : In(stream of CodecOperation)
        What to compress. An operation of no blocks gives no words.
    i : In(stream of unsigned(64))
        The elements, lowest first, in whole blocks.
    o : Out(stream of CodecWord)
        The bit stream.
    zeros : Out(32)
        Elements of value zero since reset, modulo 2^32.
    words : Out(32)
        Words sent since reset, modulo 2^32.

    Timing
    ------
    Of blocks of 64 the busier of ``i`` and ``o`` moves a word per cycle, also from operation to
    operation. Shorter blocks may be slower: a sparse block takes a cycle for its mask and one for
    each word of its values, and of blocks of one word 12 are taken in 16 cycles at most.
    A block is sent when it is whole: the first word of an operation leaves 24 cycles after the last
    one of a block of 64 came. ``compress_cycles`` of host/codec.py has the cycles of an operation,
    exactly for blocks of 64. A stall of ``o`` holds up ``i`` when 13 to 16 blocks of 64 wait, or 23
    of zeros. Reset forgets what is under way.

    Numerics
    --------
    Lossless, but for -0, which becomes +0 in sparse and dense blocks alike. NaN, Inf and
    subnormals are values like any other.

    Raises
    ------
    TypeError, ValueError
        If ``block`` is not an int, or not a legal one.
    """

    def __init__(self, *, block, target="generic"):
        self.block, self.target = check_block(block), target
        super().__init__({
            "i_operation": In(stream.Signature(CodecOperation)),
            "i": In(stream.Signature(64)),
            "o": Out(stream.Signature(CodecWord)),
            "zeros": Out(32),
            "words": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.loader = loader = Loader(block=self.block)
        m.submodules.squeezer = squeezer = Squeezer()
        m.submodules.sender = sender = Sender(
            block=self.block, target=self.target)
        m.submodules.packer = packer = BitPacker()
        wiring.connect(m, wiring.flipped(self.i_operation), loader.i_operation)
        wiring.connect(m, wiring.flipped(self.i), loader.i)
        wiring.connect(m, sender.o, packer.i)
        wiring.connect(m, packer.o, wiring.flipped(self.o))

        stored = Signal(range(SLOTS))
        starts = Signal()
        ends = Signal()
        sent = Signal()
        zeros = Signal(range(9))
        m.d.comb += [
            squeezer.i.eq(loader.o),
            sender.plain.eq(squeezer.plain),
            sender.packed.eq(squeezer.packed),
            sender.done.eq(squeezer.done),
        ]
        m.d.sync += [
            starts.eq(loader.o.valid & loader.o.last),
            ends.eq(sender.freed),
            stored.eq(stored + starts - ends),
            loader.roomy.eq(stored < STORED),
            zeros.eq(Mux(squeezer.plain.valid, squeezer.plain.zeros, 0)),
            self.zeros.eq(self.zeros + zeros),
            sent.eq(self.o.valid & self.o.ready),
            self.words.eq(self.words + sent),
        ]
        return m
