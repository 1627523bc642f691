"""The sparse engine: zero skipper and VPCU (docs/vpcu.md).

::

    i_values -----------------.
    i_mask ---> (force) -----> Skipper -> Vpcu -> o
                   ^------- o_force ------' ^
    i_operation, i_b, i_row ----------------'
"""

from dataclasses import fields

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .geometry import Geometry
from .layouts import WORD_WIDTH, Operation, Result, RowAnchor, mask_word
from .skipper import Skipper
from .vpcu import Vpcu

__all__ = ["Engine"]


class Engine(wiring.Component):
    """Multiplies rows of A, given as masks and non-zero values, with tiles of B.

    o[m, n] = round(2^x * sum_k a[m, k] * b[k, n]); zeros of A cost no cycle, and are skipped only
    where they cannot count: an index whose row of B holds an Inf or a NaN is not (rule N3).

    Parameters
    ----------
    lanes, formats, accumulator_width, max_k, b_depth, drains, scale_block, target
        As in ``Geometry``.

    Members
    -------
    i_operation : In(stream of Operation)
        One for each tile of B.
    i_b : In(stream of unsigned(64))
        The tiles' words, see ``TileBuffer``.
    i_row : In(stream of RowAnchor)
        One for each row of each operation.
    i_mask : In(stream of mask_word(scale_block))
        For each row of each operation ceil(k / 64) words, one if k is 0: bit i of word j is set
        if element 64 j + i is not zero.
    i_values : In(stream of unsigned(64))
        The values that the masks say are not zero, packed by the width of A's format; each row
        begins a new word.
    o : Out(stream of Result)
        Results row by row, column by column, all columns of each tile.

    Timing
    ------
    A row takes the sum over its mask words of max(1, elements that count) cycles, or 4 * lanes if
    that is more. While one tile is used the next one loads. The exact
    count of a whole product is ``exactum.host.cycles.gemm_cycles``. Any stream may stall.

    Numerics
    --------
    docs/numerics.md, rules N1 to N4.

    Raises
    ------
    TypeError, ValueError
        As ``Geometry``.
    """

    def __init__(self, **parameters):
        self.geometry = Geometry(**parameters)
        super().__init__({
            "i_operation": In(stream.Signature(Operation)),
            "i_b": In(stream.Signature(WORD_WIDTH)),
            "i_row": In(stream.Signature(RowAnchor)),
            "i_mask": In(stream.Signature(mask_word(self.geometry.scale_block))),
            "i_values": In(stream.Signature(WORD_WIDTH)),
            "o": Out(stream.Signature(Result)),
        })

    def elaborate(self, platform):
        m = Module()
        geometry = self.geometry
        m.submodules.skipper = skipper = Skipper(
            block=WORD_WIDTH, max_k=geometry.max_k, scale_block=geometry.scale_block)
        m.submodules.vpcu = vpcu = Vpcu(
            **{field.name: getattr(geometry, field.name) for field in fields(Geometry)})
        for name in ("i_operation", "i_b", "i_row"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(vpcu, name))
        wiring.connect(m, wiring.flipped(self.i_values), skipper.i_values)
        wiring.connect(m, skipper.o, vpcu.i_a)
        wiring.connect(m, vpcu.o, wiring.flipped(self.o))

        # A mask word and the force window of the same indices go together.
        mask, force = skipper.i_mask, vpcu.o_force
        m.d.comb += [
            mask.valid.eq(self.i_mask.valid & force.valid),
            self.i_mask.ready.eq(mask.ready & force.valid),
            force.ready.eq(mask.ready & self.i_mask.valid),
            mask.payload.nonzero.eq(self.i_mask.payload.mask),
            mask.payload.force.eq(force.payload.force),
            mask.payload.last.eq(force.payload.last),
            mask.payload.format.eq(force.payload.format),
        ]
        if geometry.scale_block:
            m.d.comb += mask.payload.scales.eq(self.i_mask.payload.scales)
        return m
