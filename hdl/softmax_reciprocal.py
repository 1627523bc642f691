"""Softmax, third step: the reciprocal of a row's sum (rule S5)."""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import normalise
from .softmax_layouts import RowScale, row_sum
from .softmax_power import Interpolator
from .softmax_tables import BIN_WIDTH, ROW_FRACTION_WIDTH, VALUE_WIDTH, reciprocal_table

__all__ = ["Reciprocal"]


class Reciprocal(wiring.Component):
    """Turns a row's sum s * 2^m into the reciprocal of s and the exponent of its probabilities.

    Parameters
    ----------
    max_length : int
        Longest row, in elements.
    segments : int
        Segments of the table of 1/s.

    Members
    -------
    i : In(stream of row_sum(max_length), always ready)
        Sums.
    o : Out(stream of RowScale, always ready)
        Their reciprocals.

    Timing
    ------
    One row per cycle, latency 1 cycle; the multiplication behind the table is combinational.
    """

    def __init__(self, *, max_length, segments):
        self.max_length = max_length
        self.segments = segments
        super().__init__({
            "i": In(stream.Signature(row_sum(max_length), always_ready=True)),
            "o": Out(stream.Signature(RowScale, always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        row, scale = self.i.payload, self.o.payload

        # The leading one is at least that of the smallest value in the higher bin, so the steps
        # (63 places) bring it to the top.
        width = len(row.sum)
        shifted, zeros = normalise(m, row.sum, (32, 16, 8, 4, 2, 1))
        m.submodules.reciprocal = reciprocal = Interpolator(table=reciprocal_table(self.segments))
        m.d.comb += [
            reciprocal.fraction.eq(shifted[width - 1 - ROW_FRACTION_WIDTH:width - 1]),
            scale.reciprocal.eq(reciprocal.value),
        ]

        top_bin = Cat(row.key[:-2], ~row.key[-2]).as_signed()
        place = Signal(range(width + VALUE_WIDTH))
        m.d.comb += place.eq(width - 1 - zeros + VALUE_WIDTH)
        m.d.sync += [
            self.o.valid.eq(self.i.valid),
            scale.exponent.eq(Cat(Const(0, BIN_WIDTH), top_bin - 1).as_signed() + place),
            scale.undefined.eq(row.undefined),
            scale.result.eq(row.result),
        ]
        return m
