"""The zero decompressor: one bit stream becomes blocks of elements again (docs/zce.md).

    i ---> header reader ---> headers ---.-----------.
      `---------------------------> aligner ---> spreader ---> o
"""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .aligner import Aligner, BlockStart, Item
from .bitstream import check_block, later
from .header import RING_DEPTH, BlockHeader, HeaderReader, RingWord
from .layouts import CodecOperation, CodecWord, PlainWord
from .queue import Queue
from .spreader import Spreader

__all__ = ["Decompressor"]


class Decompressor(wiring.Component):
    """Unpacks the bit stream of the ``Compressor`` into words of elements.

    Parameters
    ----------
    block : int
        Elements of a block: 8, 16, 32 or 64.
    target : str
        What it is built for: of the ``Ram``.

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
    The busier of ``i`` and ``o`` moves a word per cycle, also from operation to operation, if
    blocks are 7 words or longer: the next header is found in 7 cycles. The first word of a stream
    leaves about 30 cycles after it came; ``decompress_cycles`` of host/codec.py is exact. A stall
    of ``o`` holds up ``i`` when 88 words of dense blocks wait, or 67 to 70 of blocks of zeros.
    Reset forgets what is under way.

    Numerics
    --------
    Exact; zeros of a sparse block are +0.

    Raises
    ------
    TypeError, ValueError
        If ``block`` is not an int, or not a legal one.
    """

    def __init__(self, *, block, target="generic"):
        self.block, self.target = check_block(block), target
        super().__init__({
            "i_operation": In(stream.Signature(CodecOperation)),
            "i": In(stream.Signature(CodecWord)),
            "o": Out(stream.Signature(PlainWord)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = reader = HeaderReader(block=self.block, target=self.target)
        m.submodules.aligner = aligner = Aligner(block=self.block, target=self.target)
        m.submodules.spreader = spreader = Spreader(block=self.block)
        m.submodules.headers = headers = Queue(BlockHeader, after=4)
        m.submodules.blocks = blocks = Queue(BlockStart, after=5)
        m.submodules.goods = goods = Queue(1, after=4)
        m.submodules.items = items = Queue(Item, after=0)  # the aligner counts what is in it
        m.submodules.words = words = Queue(PlainWord, after=7)

        come = Signal(RingWord)
        stored = Signal(range(RING_DEPTH))
        roomy = Signal(init=1)
        place = Signal(come.place.shape())
        word = later(m, come, "word")
        m.d.comb += [
            self.i.ready.eq(roomy),
            come.valid.eq(self.i.valid & self.i.ready),
            come.data.eq(self.i.payload.data),
            come.last.eq(self.i.payload.last),
            come.place.eq(place),
        ]
        m.d.sync += [
            place.eq(place + come.valid),
            stored.eq(stored + word.valid - aligner.taken),
            roomy.eq((stored < RING_DEPTH - 12) & ~reader.many),
        ]

        wiring.connect(m, wiring.flipped(self.i_operation), reader.i_operation)
        wiring.connect(m, headers.o, aligner.i_header)
        wiring.connect(m, blocks.o, spreader.i_block)
        wiring.connect(m, goods.o, spreader.i_good)
        wiring.connect(m, items.o, spreader.i)
        wiring.connect(m, reader.o, headers.i)
        wiring.connect(m, reader.o_good, goods.i)
        wiring.connect(m, aligner.o_block, blocks.i)
        wiring.connect(m, aligner.o, items.i)
        wiring.connect(m, spreader.o, words.i)
        wiring.connect(m, words.o, wiring.flipped(self.o))
        m.d.comb += [
            reader.i.eq(word),
            aligner.i.eq(word),
            reader.roomy.eq(headers.roomy & goods.roomy),
            aligner.roomy.eq(blocks.roomy),
            aligner.used.eq(items.o.valid & items.o.ready),
            spreader.roomy.eq(words.roomy),
        ]
        return m
