"""From replies to bytes of the line: CRC-32, then COBS."""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .cobs import COBS_INPUT, CobsEncoder
from .frame_receiver import CRC32
from .protocol import CRC_BYTES

__all__ = ["FrameSender"]


class FrameSender(wiring.Component):
    """Adds the CRC to frames and encodes them.

    Parameters
    ----------
    depth, target
        As in ``CobsEncoder``.

    Members
    -------
    i : In(stream of COBS_INPUT)
        The frames' bytes without their CRCs.
    o : Out(stream of 8 bits)
        Bytes of the line.

    Timing
    ------
    That of ``CobsEncoder``, and 4 cycles more for the CRC.
    """

    def __init__(self, *, depth=1024, target="generic"):
        self.depth, self.target = depth, target
        super().__init__({"i": In(stream.Signature(COBS_INPUT)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.crc = check = CRC32.create()
        m.submodules.encoder = encoder = CobsEncoder(depth=self.depth, target=self.target)
        wiring.connect(m, encoder.o, wiring.flipped(self.o))
        i, into = self.i, encoder.i
        number = Signal(range(CRC_BYTES))
        m.d.comb += check.data.eq(i.payload.data)
        with m.FSM():
            with m.State("FRAME"):
                m.d.comb += [
                    into.valid.eq(i.valid), i.ready.eq(into.ready),
                    into.payload.data.eq(i.payload.data), check.valid.eq(i.valid & into.ready),
                ]
                with m.If(i.valid & into.ready & i.payload.last):
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [
                    into.valid.eq(1), into.payload.data.eq(check.crc.word_select(number, 8)),
                    into.payload.last.eq(number == CRC_BYTES - 1),
                ]
                with m.If(into.ready):
                    m.d.sync += number.eq(number + 1)
                    with m.If(into.payload.last):
                        m.d.comb += check.start.eq(1)
                        m.next = "FRAME"
        return m
