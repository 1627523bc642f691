"""Framing by COBS: no byte of a frame is 0, and a 0 ends it.

A frame is cut into runs, at each zero, which is left out, and after 254 bytes without one. Each run
is sent behind its code: the number of its bytes plus one. So 255 says that no zero follows it.
"""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .ram_stream import RamStream

__all__ = ["COBS_INPUT", "COBS_OUTPUT", "CobsDecoder", "CobsEncoder"]

LONGEST_CODE = 255

COBS_OUTPUT = data.StructLayout({"data": 8, "ends": 1, "bad": 1})
"""A byte of a frame; or, if ``ends``, no byte but the frame's end, and whether its last run was cut
short (``bad``)."""

COBS_INPUT = data.StructLayout({"data": 8, "last": 1})
"""A byte of a frame, and whether it is the last one."""


class CobsDecoder(wiring.Component):
    """Finds the frames between zeros, and decodes them.

    Members
    -------
    i : In(stream of 8 bits, always ready)
        Bytes, anything at all.
    o : Out(stream of COBS_OUTPUT, always ready)
        Each frame's bytes, then its end. Of nothing between two zeros there is no end.

    Timing
    ------
    Latency 1 cycle, one byte per cycle. After reset a frame begins.

    Source
    ------
    Cheshire and Baker, Consistent Overhead Byte Stuffing, IEEE/ACM Transactions on Networking 7(2),
    1999.
    """

    i: In(stream.Signature(8, always_ready=True))
    o: Out(stream.Signature(COBS_OUTPUT, always_ready=True))

    def elaborate(self, platform):
        m = Module()
        left = Signal(8)     # bytes of this run
        begun = Signal()
        skips = Signal()     # a zero comes after this run, if another run does
        byte, o = self.i.payload, self.o.payload
        m.d.sync += [self.o.valid.eq(0), o.data.eq(Mux(left == 0, 0, byte)),
                     o.ends.eq(byte == 0), o.bad.eq(left != 0)]
        with m.If(self.i.valid):
            with m.If(byte == 0):
                m.d.sync += [self.o.valid.eq(begun), left.eq(0), begun.eq(0), skips.eq(0)]
            with m.Elif(left == 0):
                m.d.sync += [self.o.valid.eq(skips), left.eq(byte - 1), begun.eq(1),
                             skips.eq(byte != LONGEST_CODE)]
            with m.Else():
                m.d.sync += [self.o.valid.eq(1), left.eq(left - 1)]
        return m


class CobsEncoder(wiring.Component):
    """Encodes frames, and ends each with a zero; the first one after reset begins with one, too.

    A run is written to a memory behind a place left for its code, which is filled in where the run
    ends; the memory is read up to there.

    Parameters
    ----------
    depth : int
        Bytes of the memory, a power of two, 512 or more.
    target : str
        Primitives, see ``Ram``.

    Members
    -------
    i : In(stream of COBS_INPUT)
        Bytes of frames.
    o : Out(stream of 8 bits)
        The same, encoded.

    Timing
    ------
    One byte per cycle, but 1 cycle more after a run of 254 bytes and 3 after a frame. A run comes
    out from 3 cycles after its end on. While ``o`` is stalled, bytes are taken until the memory is
    full; ``i.ready`` does not depend on ``o.ready`` in the same cycle. ``o`` comes from registers.

    Raises
    ------
    ValueError
        If ``depth`` is not a legal one.

    Source
    ------
    See ``CobsDecoder``.
    """

    margin = 8
    """Bytes that are left free: three may be written before ``i.ready`` follows."""

    def __init__(self, *, depth=1024, target="generic"):
        if not isinstance(depth, int) or depth < 512 or depth & (depth - 1):
            raise ValueError(f"depth is a power of two, 512 or more; got {depth!r}")
        self.depth, self.target = depth, target
        super().__init__({"i": In(stream.Signature(COBS_INPUT)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = mem = RamStream(width=8, depth=self.depth, target=self.target)
        begin = Signal(range(self.depth))         # of what is to be read
        end = Signal(range(self.depth))
        code_place = Signal(range(self.depth))
        place = Signal(range(self.depth))
        used = Signal(range(self.depth))
        code = Signal(8, init=1)
        roomy = Signal()
        wiring.connect(m, mem.o, wiring.flipped(self.o))
        m.d.comb += [mem.i.valid.eq(begin != end), mem.i.payload.eq(begin),
                     used.eq(place - begin)]
        m.d.sync += [begin.eq(begin + (mem.i.valid & mem.i.ready)),
                     roomy.eq(used < self.depth - self.margin)]

        def fill(value):
            m.d.comb += [mem.write.eq(1), mem.i_address.eq(code_place), mem.i_data.eq(value)]

        def append(value):
            m.d.comb += [mem.write.eq(1), mem.i_address.eq(place), mem.i_data.eq(value)]
            m.d.sync += place.eq(place + 1)

        def begin_run():
            m.d.sync += [code.eq(1), code_place.eq(place), place.eq(place + 1), end.eq(place)]

        with m.FSM():
            with m.State("RESET"):
                append(0)
                m.next = "BEGIN"
            with m.State("BEGIN"):
                begin_run()
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.i.ready.eq(roomy)
                with m.If(self.i.valid & roomy):
                    with m.If(self.i.payload.data == 0):
                        fill(code)
                        begin_run()
                    with m.Else():
                        append(self.i.payload.data)
                        m.d.sync += code.eq(code + 1)
                        with m.If(code == LONGEST_CODE - 1):
                            m.next = "FULL"
                    with m.If(self.i.payload.last):
                        m.next = "LAST"
            with m.State("FULL"):
                fill(LONGEST_CODE)
                begin_run()
                m.next = "RUN"
            with m.State("LAST"):
                fill(code)
                m.next = "ZERO"
            with m.State("ZERO"):
                append(0)
                m.next = "BEGIN"
        return m
