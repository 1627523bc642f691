"""The zero compressor: blocks of elements become one bit stream (docs/zce.md).

    i --- zero test ---> bank of words ---> compaction ---> packer ---> o
                  `----> mask, zeros ---> flag, mask ---^
"""

from functools import reduce
from operator import or_

from amaranth.hdl import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .bitstream import BitPacker, Piece, by_width, check_block, count_ones, per_byte
from .layouts import CodecOperation, CodecWord

__all__ = ["Compressor"]

BankWord = data.StructLayout({"data": 64, "keep": 8})
"""A word of elements, zeros as +0, and which of its bytes belong to one that is not zero."""


def block_header(block):
    """What the sender must know of a block in the bank; ``words`` is one less than their number."""
    return data.StructLayout({
        "mask": block, "sparse": 1, "final": 1, "half": 1, "words": range(block // 2)})


def nonzero_elements(word, width):
    """One bit for each element of ``width`` bits: whether it is neither +0 nor -0."""
    return Cat(word.word_select(i, width)[:-1].any() for i in range(64 // width))


def compact(word, keep):
    """Move the bytes that ``keep`` names down over the others, which must be zero.

    A byte goes to the place that counts the bytes kept below it.
    """
    lanes = [word.word_select(i, 8) for i in range(8)]
    ranks = [Const(0)] + [count_ones(keep[:i]) for i in range(1, 8)]
    return Cat(
        reduce(or_, (lanes[i] & (ranks[i] == place).replicate(8) for i in range(place, 8)))
        for place in range(8))


class Loader(wiring.Component):
    """Loads a block into one half of a bank while the other is read; gathers mask and zeros.

    Members
    -------
    i_operation, i
        As of the ``Compressor``.
    o : Out(stream of block_header(block))
        The block that can be read; accepting the header frees its half of the bank.
    address : In
        The word to read: the lower bits count within the block, the top bit is the half.
    fetch : In(1)
        Read in this cycle; ``fetched`` then holds the word until the next fetch.
    fetched : Out(BankWord)
        The word.
    zeros : Out(range(9))
        Elements of value zero in the word accepted in this cycle.

    Timing
    ------
    A word per cycle and one cycle between blocks. The header follows the last word by two cycles.
    """

    def __init__(self, *, block):
        self.block = block
        super().__init__({
            "i_operation": In(stream.Signature(CodecOperation)),
            "i": In(stream.Signature(64)),
            "o": Out(stream.Signature(block_header(block))),
            "address": In(range(block)),
            "fetch": In(1),
            "fetched": Out(BankWord),
            "zeros": Out(range(9)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.bank = bank = memory.Memory(shape=BankWord, depth=self.block, init=[])
        write, read = bank.write_port(), bank.read_port()

        operation = Signal(CodecOperation)  # `blocks` counts those still to be loaded
        half = Signal()
        place = Signal(range(self.block // 2))
        mask = Signal(self.block)
        zeros = Signal(range(self.block + 1))
        full = Signal()

        def choose(of_width):
            return by_width(operation.format, of_width)

        def masked_bits(width):
            bits = nonzero_elements(self.i.payload, width)
            return Cat(mask, bits)[len(bits):]

        words = choose(lambda width: max(self.block * width // 64, 1) - 1)
        keep = Signal(8)
        accepted = self.i.valid & self.i.ready
        m.d.comb += [
            self.i_operation.ready.eq((operation.blocks == 0) & ~full),
            self.i.ready.eq((operation.blocks != 0) & ~full),
            keep.eq(choose(lambda w: per_byte(nonzero_elements(self.i.payload, w), w))),
            write.en.eq(accepted),
            write.addr.eq(Cat(place, half)),
            write.data.keep.eq(keep),
            write.data.data.eq(Cat(self.i.payload.word_select(i, 8) & keep[i].replicate(8)
                                   for i in range(8))),
            read.en.eq(self.fetch),
            read.addr.eq(self.address),
            self.fetched.eq(read.data),
        ]
        with m.If(self.i_operation.valid & self.i_operation.ready):
            m.d.sync += operation.eq(self.i_operation.payload)
        with m.If(accepted):
            m.d.comb += self.zeros.eq(
                choose(lambda width: count_ones(~nonzero_elements(self.i.payload, width))))
            m.d.sync += [
                mask.eq(choose(masked_bits)),
                zeros.eq(zeros + self.zeros),
                place.eq(place + 1),
            ]
            with m.If(place == words):
                m.d.sync += [full.eq(1), place.eq(0), operation.blocks.eq(operation.blocks - 1)]

        # The mask costs `block` bits and saves the zeros' own.
        header = self.o.payload
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += self.o.valid.eq(full)
            with m.If(full):
                m.d.sync += [
                    full.eq(0),
                    zeros.eq(0),
                    half.eq(~half),
                    header.mask.eq(mask),
                    header.sparse.eq(choose(lambda width: zeros * width > self.block)),
                    header.final.eq(operation.blocks == 0),
                    header.half.eq(half),
                    header.words.eq(words),
                ]
        return m


class Compressor(wiring.Component):
    """Packs blocks of elements: a flag, then mask and non-zero values, or all values.

    A block is sparse (mask and non-zero values) exactly if that is shorter than all values.

    Parameters
    ----------
    block : int
        Elements of a block: 8, 16, 32 or 64.

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
    With n = block * width / 64 words in a block: a dense block takes n + 1 cycles and a sparse one
    n + 2, while the next one is loaded. The last word leaves n + 4 cycles more than the sum of
    these after the operation was accepted, and one more if the last word of elements spills over
    into a further word of bits. The next operation may begin while this one is sent; it follows
    without a bubble, or with one of a cycle if this one spilt or ended in a dense block. No output
    depends on an input in the same cycle, except ``ready`` on ``ready``.

    Numerics
    --------
    Lossless, but for -0, which becomes +0 in sparse and dense blocks alike. NaN, Inf and
    subnormals are values like any other.

    Raises
    ------
    TypeError, ValueError
        If ``block`` is not an int, or not a legal one.
    """

    def __init__(self, *, block):
        self.block = check_block(block)
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
        m.submodules.packer = packer = BitPacker()
        wiring.connect(m, wiring.flipped(self.i_operation), loader.i_operation)
        wiring.connect(m, wiring.flipped(self.i), loader.i)
        wiring.connect(m, packer.o, wiring.flipped(self.o))
        m.d.sync += self.zeros.eq(self.zeros + loader.zeros)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += self.words.eq(self.words + 1)

        # Stage 1: flag, mask and words of a block in turn. All stages move together.
        moves = Signal()
        header = loader.o.payload
        word = Signal.like(header.words)
        s2_valid = Signal()
        s2_is_word, s2_compacts = Signal(), Signal()
        s2_piece = Signal(Piece)
        ends = Signal()
        m.d.comb += [
            loader.address.eq(Cat(word, header.half)),
            loader.fetch.eq(moves),
            loader.o.ready.eq(moves & ends),
        ]
        with m.If(moves):
            m.d.sync += [
                s2_valid.eq(loader.o.valid),
                s2_compacts.eq(header.sparse),
                s2_piece.last.eq(ends & header.final),
            ]
        with m.FSM():
            with m.State("FLAG"), m.If(moves & loader.o.valid):
                m.d.sync += [s2_is_word.eq(0), s2_piece.data.eq(header.sparse),
                             s2_piece.length.eq(1)]
                m.next = "WORDS"
                with m.If(header.sparse):
                    m.next = "MASK"
            with m.State("MASK"), m.If(moves):
                m.d.sync += [s2_piece.data.eq(header.mask), s2_piece.length.eq(self.block)]
                m.next = "WORDS"
            with m.State("WORDS"):
                m.d.comb += ends.eq(word == header.words)
                with m.If(moves):
                    m.d.sync += [s2_is_word.eq(1), word.eq(word + 1)]
                    with m.If(ends):
                        m.d.sync += word.eq(0)
                        m.next = "FLAG"

        # Stage 2: the bank's word is there; stage 3: it is compacted.
        s3_valid = Signal()
        s3_piece = Signal(Piece)
        stored = loader.fetched
        m.d.comb += [
            moves.eq(~s3_valid | packer.i.ready),
            packer.i.valid.eq(s3_valid),
            packer.i.payload.eq(s3_piece),
        ]
        with m.If(moves):
            m.d.sync += [s3_valid.eq(s2_valid), s3_piece.eq(s2_piece)]
            with m.If(s2_is_word):
                m.d.sync += [s3_piece.data.eq(stored.data), s3_piece.length.eq(64)]
                with m.If(s2_compacts):
                    m.d.sync += [
                        s3_piece.data.eq(compact(stored.data, stored.keep)),
                        s3_piece.length.eq(count_ones(stored.keep) << 3),
                    ]
        return m
