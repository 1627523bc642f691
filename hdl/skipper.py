"""The zero skipper: turns a row's mask and its packed non-zero values into the elements that count.

     i_mask ---> window --- next chunk that counts ---> chunk --- lowest bit ---> element ---> o
     i_values ----------------------------------------------------------- value -----^

A window goes by chunks of 8 elements, so that what decides about the next cycle is 8 bits twice
instead of 64: the chunks that are left, and the elements of a chunk that are left.
"""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import any_of
from .bitstream import check_block
from .buffer import StreamBuffer
from .formats import FormatCode
from .geometry import SCALE_BLOCKS
from .layouts import WORD_WIDTH, mask_window, skipper_token
from .unpacker import ValueUnpacker, element_layout

__all__ = ["Skipper"]

CHUNK = 8


def chunk_layout(max_k):
    """A chunk of a window; ``place``: its number in the row. The other fields as in the window."""
    return data.StructLayout({
        "counts": CHUNK, "nonzero": CHUNK, "last": 1, "format": FormatCode,
        "place": range(max(2, max_k // CHUNK)), "scale": 8})


def lowest(bits):
    """Place of the lowest bit that is set (0 if none is), by halves: log2(width) levels."""
    if len(bits) < 2:
        return Const(0, 0)
    if len(bits) == 2:
        return ~bits[0] & bits[1]
    half = len(bits) // 2
    low, high = bits[:half], bits[half:]
    return Cat(Mux(low.any(), lowest(low), lowest(high)), ~low.any() & high.any())


def without_lowest(bits):
    """``bits`` without the lowest one that is set."""
    return Cat(bit & bits[:place].any() for place, bit in enumerate(bits))


def one_of(selected, values):
    """The value whose bit of ``selected`` is set, 0 if none is; values of equal width."""
    return any_of(Mux(bit, values[n], 0) for n, bit in enumerate(selected))


class Skipper(wiring.Component):
    """Gives one element that counts per cycle, in index order, whatever lies between them.

    An element counts if its ``nonzero`` or its ``force`` bit is set. A value is taken from
    ``i_values`` for each ``nonzero`` bit; an element that is only forced has the value 0 and takes
    none. A window in which nothing counts gives one ``empty`` token, so that every cycle of the
    count below is a token and no stall of ``o`` can hide one.

    Parameters
    ----------
    block : int
        Elements of a mask window: 8, 16, 32 or 64.
    max_k : int
        Longest row in elements: a power of two, at least ``block``. A longer row's indices wrap.
    scale_block : int
        Elements that share a scale, at most ``block``, at least 8; 0: there are no scales.

    Members
    -------
    i_mask : In(stream of mask_window(block, scale_block))
        The row's windows, first element first; a row of no elements is one window of zeros.
    i_values : In(stream of unsigned(64))
        The values of the elements that are not zero, in index order, packed by the width of the
        row's format; each row begins a new word.
    o : Out(stream of skipper_token(max_k, scale_block))
        The elements that count.

    Timing
    ------
    A window takes max(1, elements that count) cycles, and the next one follows without a bubble:
    a row takes the sum of that over its windows. From a window's transfer to its first token's:
    six cycles. ``o`` comes from registers; ``i_mask.ready`` and ``i_values.ready`` follow from
    registers, and from no port.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not an int, or not a legal one.
    """

    def __init__(self, *, block, max_k, scale_block=0):
        self.block = check_block(block)
        if not isinstance(max_k, int) or isinstance(max_k, bool):
            raise TypeError(f"max_k is an int; got {max_k!r}")
        if max_k < block or max_k & (max_k - 1):
            raise ValueError(f"max_k is a power of two and at least block ({block}); got {max_k}")
        if scale_block not in SCALE_BLOCKS or scale_block > block:
            raise ValueError(f"scale_block is one of {SCALE_BLOCKS} and at most block ({block}); "
                             f"got {scale_block}")
        self.max_k, self.scale_block = max_k, scale_block
        super().__init__({
            "i_mask": In(stream.Signature(mask_window(block, scale_block))),
            "i_values": In(stream.Signature(WORD_WIDTH)),
            "o": Out(stream.Signature(skipper_token(max_k, scale_block))),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.chunks = chunks = StreamBuffer(chunk_layout(self.max_k))
        self._window(m, chunks.i)

        # The chunk under way: what counts and was not given yet, and what of it has a value.
        s2_valid, s2, s3_free = Signal(), Signal.like(chunks.o.payload), Signal()
        others = without_lowest(s2.counts)
        leaves = s2_valid & s3_free & ~others.any()
        m.d.comb += chunks.o.ready.eq(~s2_valid | leaves)
        with m.If(s3_free):
            m.d.sync += s2.counts.eq(others)
        with m.If(chunks.o.ready):
            m.d.sync += [s2_valid.eq(chunks.o.valid), s2.eq(chunks.o.payload)]

        # The element, about to meet its value.
        m.submodules.unpacker = unpacker = ValueUnpacker(
            max_k=self.max_k, scale_block=self.scale_block)
        wiring.connect(m, wiring.flipped(self.i_values), unpacker.i_values)
        wiring.connect(m, unpacker.o, wiring.flipped(self.o))
        s3_valid, s3 = Signal(), Signal(element_layout(self.max_k, self.scale_block))
        m.d.comb += [
            unpacker.i.valid.eq(s3_valid),
            unpacker.i.payload.eq(s3),
            s3_free.eq(~s3_valid | unpacker.i.ready),
        ]
        with m.If(s3_free):
            m.d.sync += [
                s3_valid.eq(s2_valid),
                s3.takes_value.eq((s2.counts & ~others & s2.nonzero).any()),
                s3.format.eq(s2.format),
                s3.index.eq(Cat(lowest(s2.counts), s2.place)),
                s3.last.eq(s2.last & ~others.any()),
                s3.empty.eq(~s2.counts.any()),
            ]
            if self.scale_block:
                m.d.sync += s3.scale.eq(s2.scale)
        return m

    def _window(self, m, o):
        """Hold a window and offer its chunks that count, or one in which nothing does."""
        mask, chunk, chunks = self.i_mask.payload, o.payload, self.block // CHUNK
        s1_last, s1_format = Signal(), Signal(FormatCode)
        s1_counts, s1_nonzero = (Signal(data.ArrayLayout(CHUNK, chunks)) for _ in "12")
        s1_left = Signal(chunks)  # chunks that count and were not given yet
        s1_window = Signal(range(max(2, self.max_k // self.block)))
        number, others = Signal(range(chunks)), without_lowest(s1_left)
        selected = s1_left & ~others
        m.d.comb += [
            number.eq(lowest(s1_left)),
            chunk.counts.eq(one_of(selected, s1_counts)),
            chunk.nonzero.eq(one_of(selected, s1_nonzero)),
            chunk.last.eq(s1_last & ~others.any()),
            chunk.format.eq(s1_format),
            chunk.place.eq(Cat(number, s1_window)),
        ]
        leaves = o.valid & o.ready & ~others.any()
        m.d.comb += self.i_mask.ready.eq(~o.valid | leaves)
        with m.If(o.ready):
            m.d.sync += s1_left.eq(others)
        with m.If(leaves):
            m.d.sync += s1_window.eq(Mux(s1_last, 0, s1_window + 1))
        with m.If(self.i_mask.ready):
            counts = mask.nonzero | mask.force
            m.d.sync += [
                o.valid.eq(self.i_mask.valid),
                s1_counts.eq(counts),
                s1_nonzero.eq(mask.nonzero),
                s1_left.eq(Cat(counts[n:n + CHUNK].any() for n in range(0, self.block, CHUNK))),
                s1_last.eq(mask.last),
                s1_format.eq(mask.format),
            ]
        if self.scale_block:
            s1_scales, per_scale = Signal.like(mask.scales), self.scale_block // CHUNK
            with m.If(self.i_mask.ready):
                m.d.sync += s1_scales.eq(mask.scales)
            m.d.comb += chunk.scale.eq(s1_scales[number[per_scale.bit_length() - 1:]])
