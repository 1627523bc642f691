"""The force windows: which rows of a tile of B hold an Inf or a NaN and may not be skipped."""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register
from .formats import FormatCode
from .layouts import ForceWindow
from .loader import WINDOW, Tile

__all__ = ["ForceReader"]


class ForceReader(wiring.Component):
    """Gives the force windows of each row of a loaded tile: one per cycle, the first one three
    cycles after ``i`` is valid.

    Parameters
    ----------
    depth : int
        Windows of both banks.

    Members
    -------
    i : In(stream of Tile)
        The tile under way, taken with its last window.
    next_row : Out(1)
        A row's last window goes: ``i`` is to be about the next row.
    address : Out(range(depth)), read : Out(1), data : In(64)
        The memory of windows; ``data`` after two cycles with ``read``.
    o : Out(stream of ForceWindow)
        The windows.
    """

    def __init__(self, *, depth):
        self.depth = depth
        super().__init__({
            "i": In(stream.Signature(Tile)),
            "next_row": Out(1),
            "address": Out(range(depth)),
            "read": Out(1),
            "data": In(WINDOW),
            "o": Out(stream.Signature(ForceWindow)),
        })

    def elaborate(self, platform):
        m = Module()
        tile, places = self.i.payload, (self.depth - 1).bit_length() - 1
        # Whether a window is the last one is known before it is read: of the first one by the tile.
        window = Signal(places)
        is_first = Signal(init=1)
        is_next_last = Signal()
        is_last = Signal()
        m.d.comb += [
            is_last.eq(Mux(is_first, tile.is_single, is_next_last)),
            self.read.eq(~self.o.valid | self.o.ready),
            self.address.eq(Cat(window, tile.number[0])),
            self.next_row.eq(self.read & self.i.valid & is_last),
            self.i.ready.eq(self.read & is_last & (tile.rows_beyond < 0)),
        ]
        about = data.StructLayout({"last": 1, "format": FormatCode, "is_none": 1})
        s1_valid = Signal()
        s2_valid = Signal()
        s1 = register(about)
        s2 = register(about)
        o = register(ForceWindow)
        m.d.comb += self.o.payload.eq(o)
        with m.If(self.read):
            m.d.sync += [
                s1_valid.eq(self.i.valid), s2_valid.eq(s1_valid), self.o.valid.eq(s2_valid),
                s1.last.eq(is_last), s1.format.eq(tile.format_a), s1.is_none.eq(tile.is_empty),
                s2.eq(s1),
                o.last.eq(s2.last), o.format.eq(s2.format),
                o.force.eq(Mux(s2.is_none, 0, self.data)),
            ]
            with m.If(self.i.valid):
                m.d.sync += [
                    is_first.eq(is_last),
                    window.eq(Mux(is_last, 0, window + 1)),
                    is_next_last.eq((window + 1)[:places] == tile.last_window[:places]),
                ]
        return m
