"""From bytes of the line to frames that are whole and right (docs/protocol.md, rule D1).

     i ---> COBS ---+---> memory ---> o
                    |
                    +---> CRC-32 ---> where the last good frame ends ---> o_length
"""

from amaranth.hdl import *
from amaranth.lib import crc, stream, wiring
from amaranth.lib.wiring import In, Out

from .cobs import CobsDecoder
from .protocol import CRC_BYTES, FRAME_BYTES, HEADER_BYTES, WINDOW
from .queue import Queue
from .ram_stream import RamStream

__all__ = ["CRC32", "FRAME_LENGTH", "FrameReceiver"]

CRC32 = crc.catalog.CRC32_ISO_HDLC(data_width=8)
"""That of Ethernet and zlib."""

FRAME_LENGTH = range(FRAME_BYTES - CRC_BYTES + 1)
"""Bytes of a frame without its CRC."""


class FrameReceiver(wiring.Component):
    """Keeps frames of right COBS, length and CRC, and drops all else.

    A frame is written to a memory as it comes; the memory is read up to the end of the last frame
    that has turned out to be good, and one that has not is overwritten.

    Parameters
    ----------
    depth : int
        Bytes of the memory, a power of two that ``WINDOW`` frames fit into.
    target : str
        Primitives, see ``Ram``.

    Members
    -------
    i : In(stream of 8 bits, always ready)
        Bytes of the line.
    o : Out(stream of 8 bits)
        The frames' bytes without their CRCs, one frame after the other.
    o_length : Out(stream of FRAME_LENGTH)
        How many bytes each has. Their order to ``o`` is free.
    drops : Out(1)
        A frame is dropped in this cycle: it is wrong, or there is no room for it or its length,
        of which up to 14 wait.

    Timing
    ------
    One byte per cycle. A frame comes out 5 cycles after the zero that ends it at the earliest, its
    length 4 cycles. ``o`` and ``o_length`` come from registers.

    Raises
    ------
    ValueError
        If ``depth`` is not a legal one.
    """

    def __init__(self, *, depth=4096, target="generic"):
        if not isinstance(depth, int) or depth <= WINDOW * FRAME_BYTES or depth & (depth - 1):
            raise ValueError(f"depth is a power of two above {WINDOW * FRAME_BYTES} bytes; "
                             f"got {depth!r}")
        self.depth, self.target = depth, target
        super().__init__({
            "i": In(stream.Signature(8, always_ready=True)),
            "o": Out(stream.Signature(8)),
            "o_length": Out(stream.Signature(FRAME_LENGTH)),
            "drops": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.decoder = decoder = CobsDecoder()
        m.submodules.crc = check = CRC32.create()
        m.submodules.memory = mem = RamStream(width=8, depth=self.depth, target=self.target)
        m.submodules.lengths = lengths = Queue(FRAME_LENGTH, after=0)
        wiring.connect(m, wiring.flipped(self.i), decoder.i)
        wiring.connect(m, mem.o, wiring.flipped(self.o))
        wiring.connect(m, lengths.o, wiring.flipped(self.o_length))

        begin = Signal(range(self.depth))     # of what is to be read
        end = Signal(range(self.depth))
        m.d.comb += [mem.i.valid.eq(begin != end), mem.i.payload.eq(begin)]
        m.d.sync += begin.eq(begin + (mem.i.valid & mem.i.ready))

        # Stage 1: a byte is written, or a frame has ended.
        s1, item = decoder.o, decoder.o.payload
        place = Signal(range(self.depth))
        count = Signal(range(FRAME_BYTES + 2))
        overflows = Signal()
        writes = Signal()
        full = Signal()
        s2_ends = Signal()
        s2_good = Signal()
        m.d.comb += [
            writes.eq(s1.valid & ~item.ends), full.eq((place + 1)[:len(place)] == begin),
            check.valid.eq(writes), check.data.eq(item.data),
            mem.write.eq(writes & ~full), mem.i_address.eq(place), mem.i_data.eq(item.data),
        ]
        m.d.sync += [
            s2_ends.eq(s1.valid & item.ends),
            s2_good.eq(check.match_detected & ~item.bad & ~overflows & lengths.roomy
                       & (count >= HEADER_BYTES + CRC_BYTES) & (count <= FRAME_BYTES)),
        ]
        with m.If(writes):
            with m.If(count <= FRAME_BYTES):
                m.d.sync += count.eq(count + 1)
            with m.If(full):
                m.d.sync += overflows.eq(1)
            with m.Else():
                m.d.sync += place.eq(place + 1)

        # Stage 2: the next frame's first byte is behind its code, so none is at stage 1 now.
        m.d.comb += [
            check.start.eq(s2_ends), self.drops.eq(s2_ends & ~s2_good),
            lengths.i.valid.eq(s2_ends & s2_good), lengths.i.payload.eq(count - CRC_BYTES),
        ]
        with m.If(s2_ends):
            m.d.sync += [count.eq(0), overflows.eq(0), place.eq(end)]
            with m.If(s2_good):
                m.d.sync += [end.eq(place - CRC_BYTES), place.eq(place - CRC_BYTES)]
        return m
