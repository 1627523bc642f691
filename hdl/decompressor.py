"""The zero decompressor: one bit stream becomes blocks of elements again (docs/zce.md).

    i ---> unpacker ---> flag, mask
                   `---> values ---> expansion ---> o
"""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .bitstream import BitUnpacker, by_width, check_block, count_ones, per_byte
from .layouts import CodecOperation, CodecWord, PlainWord

__all__ = ["Decompressor"]


def expand(word, keep):
    """Move the low bytes up, in order, to the places that ``keep`` names; zeros elsewhere.

    A place takes the byte that has as many below it as the place has named ones.
    """
    lanes = [word[:8]] + [
        word[:8 * (place + 1)].word_select(count_ones(keep[:place]), 8) for place in range(1, 8)]
    return Cat(lane & keep[place].replicate(8) for place, lane in enumerate(lanes))


class Decompressor(wiring.Component):
    """Unpacks the bit stream of the ``Compressor`` into words of elements.

    Parameters
    ----------
    block : int
        Elements of a block: 8, 16, 32 or 64.

    Members
    -------
    i_operation : In(stream of CodecOperation)
        What to decompress. An operation of no blocks takes no words and gives none.
    i : In(stream of CodecWord)
        The bit stream.
    o : Out(stream of PlainWord)
        The elements, lowest first. An error ends the operation: in place of the words that a
        stream too short cannot give there is one word of zeros with ``last`` and ``error``; with
        a stream too long, or whose padding is not zero, ``error`` comes with the last word.
        After an error, what is left of the bit stream up to its ``last`` is dropped.

    Timing
    ------
    With n = block * width / 64 words in a block: a dense block takes n + 1 cycles and a sparse one
    n + 2, if ``i`` gives a word whenever it is ready. The last word leaves 4 cycles more than the
    sum of these after the operation was accepted, and the next operation is accepted in the same
    cycle at the earliest. No output depends on an input in the same cycle, except ``ready``
    on ``ready``.

    Numerics
    --------
    Exact; zeros of a sparse block are +0.

    Raises
    ------
    TypeError, ValueError
        If ``block`` is not an int, or not a legal one.
    """

    def __init__(self, *, block):
        self.block = check_block(block)
        super().__init__({
            "i_operation": In(stream.Signature(CodecOperation)),
            "i": In(stream.Signature(CodecWord)),
            "o": Out(stream.Signature(PlainWord)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.unpacker = unpacker = BitUnpacker()
        wiring.connect(m, wiring.flipped(self.i), unpacker.i)

        operation = Signal(CodecOperation)  # `blocks` counts those not yet complete
        mask = Signal(self.block)           # of the block's words not yet given
        word = Signal(range(self.block // 2))

        def choose(of_width):
            return by_width(operation.format, of_width)

        keep = Signal(8)
        wanted, step = Signal(range(65)), Signal(range(65))
        enough, short = Signal(), Signal()
        m.d.comb += [
            keep.eq(choose(lambda width: per_byte(Cat(mask, Const(0, 8)), width))),
            enough.eq(unpacker.available >= wanted),
            short.eq(~enough & unpacker.ended),
            unpacker.take.eq(Mux(enough, step, 0)),
        ]

        # Stage 1: the values of a word and the places they go to. Stage 2: the word, in `o`.
        s1_valid, s1_last, s1_short = Signal(), Signal(), Signal()
        s1_values, s1_keep = Signal(64), Signal(8)
        free = Signal()
        m.d.comb += free.eq(~self.o.valid | self.o.ready)
        moves = ~s1_valid | free
        with m.If(moves):
            m.d.sync += [
                s1_valid.eq(0),
                s1_last.eq(0),
                s1_values.eq(unpacker.bits),
                s1_keep.eq(keep & (~short).replicate(8)),
                s1_short.eq(short),
            ]

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += self.i_operation.ready.eq(1)
                m.d.sync += operation.eq(self.i_operation.payload)
                with m.If(self.i_operation.valid & (self.i_operation.payload.blocks != 0)):
                    m.next = "FLAG"
            with m.State("FLAG"):
                m.d.comb += [wanted.eq(1), step.eq(1)]
                m.d.sync += mask.eq(~0)
                with m.If(enough):
                    m.next = "WORDS"
                    with m.If(unpacker.bits[0]):
                        m.next = "MASK"
                with m.Elif(short & moves):
                    m.next = "CLOSE"
            with m.State("MASK"):
                m.d.comb += [wanted.eq(self.block), step.eq(self.block)]
                m.d.sync += mask.eq(unpacker.bits)
                with m.If(enough):
                    m.next = "WORDS"
                with m.Elif(short & moves):
                    m.next = "CLOSE"
            with m.State("WORDS"):
                m.d.comb += wanted.eq(count_ones(keep) << 3)
                with m.If(enough & moves):
                    m.d.comb += step.eq(wanted)
                    m.d.sync += [
                        s1_valid.eq(1),
                        word.eq(word + 1),
                        mask.eq(choose(lambda width: mask >> (64 // width))),
                    ]
                    with m.If(word == choose(lambda w: max(self.block * w // 64, 1) - 1)):
                        m.d.sync += [word.eq(0), operation.blocks.eq(operation.blocks - 1)]
                        m.next = "FLAG"
                        with m.If(operation.blocks == 1):
                            m.d.sync += s1_last.eq(1)
                            m.next = "CLOSE"
                with m.Elif(short & moves):
                    m.next = "CLOSE"
            with m.State("CLOSE"), m.If(free):
                m.d.comb += unpacker.clear.eq(unpacker.ended)
                m.next = "DROP"
                with m.If(unpacker.ended):
                    m.next = "IDLE"
            with m.State("DROP"):
                m.d.comb += [wanted.eq(64), step.eq(64), unpacker.clear.eq(unpacker.ended)]
                with m.If(unpacker.ended):
                    m.next = "IDLE"
        with m.If(short & moves & ~fsm.ongoing("DROP")):
            m.d.sync += [s1_valid.eq(1), s1_last.eq(1), word.eq(0)]

        # In CLOSE nothing is taken: what the unpacker still holds can only be padding.
        padded = unpacker.ended & (unpacker.available < 64) & (unpacker.bits == 0)
        with m.If(free):
            m.d.sync += [
                self.o.valid.eq(s1_valid),
                self.o.payload.data.eq(expand(s1_values, s1_keep)),
                self.o.payload.last.eq(s1_last),
                self.o.payload.error.eq(s1_last & (s1_short | ~padded)),
            ]
        return m
