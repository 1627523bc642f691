"""The vector processing core: a row-product engine over N lanes (docs/vpcu.md)."""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .decode import Decoder
from .formats import FormatCode
from .geometry import DECODE_LATENCY, LANE_LATENCY, Geometry
from .lane import Lane, broadcast
from .layouts import WORD_WIDTH, ForceWindow, Operation, Result, RowAnchor, skipper_token
from .rounder import WEIGHT, Rounder
from .tile import TileBuffer, is_wide

__all__ = ["Vpcu"]

Step = data.StructLayout({
    "valid": 1, "clear": 1, "present": 1, "wide": 1, "bank": 1, "capture": 1, "release": 1,
    "weight": WEIGHT, "result": FormatCode, "saturate": 1, "last": 1,
})
"""What travels with an operand of A down to the accumulators.

``capture``: ends a row whose sums are to be drained. ``release``: ends an operation. The rest is
about the row's sums: their weight but for the column's anchor, and how to round them.
"""


class Vpcu(wiring.Component):
    """Multiplies rows of A with tiles of B: o[m, n] = round(2^x * sum_k a[m, k] * b[k, n]).

    One operand of A per cycle is multiplied with a row of the tile, in all lanes at once; elements
    of A that are left out count as zeros. Results come row by row, column by column: all columns
    of a tile, four per lane, or one per lane in fp32 mode.

    Parameters
    ----------
    lanes, formats, accumulator_width, max_k, b_depth, drains
        As in ``Geometry``.

    Members
    -------
    i_operation : In(stream of Operation)
        One for each tile. At most ``b_depth`` for k; formats among those enabled.
    i_b : In(stream of unsigned(64))
        The tiles' words, see ``TileBuffer``.
    i_row : In(stream of RowAnchor)
        One for each row of each operation.
    i_a : In(stream of skipper_token(max_k))
        The elements of each row; the last one's ``last`` is set; a row without elements is one
        ``empty`` token.
    o_force : Out(stream of ForceWindow)
        For each row of each operation: the indices that may not be left out. Must be taken.
    o : Out(stream of Result)
        Results.

    Timing
    ------
    One token per cycle. A row's last one waits until that of the row drained before is as many
    cycles old as the tile has columns; its first result is valid 14 cycles after it. A stalled
    ``o`` holds everything from ``i_a`` on, at once. See docs/vpcu.md for the count of a product.

    Numerics
    --------
    docs/numerics.md, rules N1 to N4.

    Raises
    ------
    TypeError, ValueError
        As ``Geometry``.
    """

    def __init__(self, *, lanes, formats, accumulator_width, max_k, b_depth, drains=1):
        self.geometry = Geometry(
            lanes=lanes, formats=formats, accumulator_width=accumulator_width, max_k=max_k,
            b_depth=b_depth, drains=drains)
        super().__init__({
            "i_operation": In(stream.Signature(Operation)),
            "i_b": In(stream.Signature(WORD_WIDTH)),
            "i_row": In(stream.Signature(RowAnchor)),
            "i_a": In(stream.Signature(skipper_token(max_k))),
            "o_force": Out(stream.Signature(ForceWindow)),
            "o": Out(stream.Signature(Result)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.tiles = tiles = TileBuffer(geometry=self.geometry)
        m.submodules.rounder = rounder = Rounder(
            accumulator_width=self.geometry.accumulator_width)
        for name in ("i_operation", "i_b", "o_force"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(tiles, name))
        wiring.connect(m, wiring.flipped(self.o), rounder.o)

        # From the issue of an operand to the rounder everything moves or holds together.
        moves = Signal()
        m.d.comb += [moves.eq(rounder.i.ready), tiles.read.eq(moves)]

        step, operand = self._issue(m, tiles, moves)
        steps = [step]
        for number in range(1, DECODE_LATENCY + LANE_LATENCY + 1):
            stage = Signal(Step, name=f"s{number}_step")
            with m.If(moves):
                m.d.sync += stage.eq(steps[-1])
            steps.append(stage)
        head = self._lanes(m, tiles, moves, steps[DECODE_LATENCY], operand, steps[-1])
        m.d.comb += [
            tiles.drain_bank.eq(steps[-1].bank),
            tiles.release.eq(steps[-1].release & moves),
        ]
        self._drain(m, rounder, moves, steps[-1], head)
        return m

    def _issue(self, m, tiles, moves):
        """Join token, row and tile, and look up the operand of B: (step, decoded operand)."""
        geometry, token = self.geometry, self.i_a.payload
        operation = tiles.o_tile.payload.operation
        wide = is_wide(operation)

        # The sums of a row take as many cycles to leave as there are columns.
        columns_left, row = Signal(range(geometry.lanes * geometry.columns)), Signal(16)
        captures = token.last & operation.drain
        may_issue, issues, ends = Signal(), Signal(), Signal()
        m.d.comb += [
            may_issue.eq(moves & self.i_row.valid & tiles.o_tile.valid
                         & ~(captures & (columns_left != 0))),
            issues.eq(may_issue & self.i_a.valid),
            ends.eq(token.last & (row == operation.rows - 1)),
            self.i_a.ready.eq(may_issue),
            self.i_row.ready.eq(issues & token.last),
            tiles.o_tile.ready.eq(issues & ends),
            tiles.index.eq(token.index),
        ]
        is_first = Signal(init=1)
        with m.If(moves & (columns_left != 0)):
            m.d.sync += columns_left.eq(columns_left - 1)
        with m.If(issues):
            m.d.sync += is_first.eq(token.last)
            with m.If(token.last):
                m.d.sync += row.eq(Mux(ends, 0, row + 1))
            with m.If(captures):
                m.d.sync += columns_left.eq(self._columns(wide) - 1)

        constant = 3 + geometry.headroom - geometry.accumulator_width
        step = Signal(Step, name="s0_step")
        m.d.comb += [
            step.valid.eq(issues),
            step.clear.eq(is_first & ~operation.keep),
            step.present.eq(~token.empty),
            step.wide.eq(wide),
            step.bank.eq(tiles.o_tile.payload.bank),
            step.capture.eq(issues & captures),
            step.release.eq(issues & ends),
            step.weight.eq(self.i_row.payload.anchor + operation.exponent + constant),
            step.result.eq(operation.result),
            step.saturate.eq(operation.saturate),
            step.last.eq(ends),
        ]
        m.submodules.decoder = decoder = EnableInserter(moves)(
            Decoder(geometry=geometry, formats=geometry.formats))
        m.d.comb += [
            decoder.value.eq(Mux(token.empty, 0, token.value)),
            decoder.format.eq(operation.format_a),
            decoder.anchor.eq(self.i_row.payload.anchor),
        ]
        return step, decoder.o

    def _lanes(self, m, tiles, moves, step, operand, last_step):
        """The lanes, chained for the drain; returns what is at the chain's head."""
        geometry, significand = self.geometry, operand.significand
        a = Signal(broadcast(geometry))
        narrow = significand[-(geometry.narrow_frame + 7):]
        m.d.comb += [
            a.high.eq(Mux(step.wide, significand[16:], narrow)),
            a.low.eq(Mux(step.wide, significand[:16], narrow)),
            *(a[name].eq(operand[name]) for name in ("group", "negative", "kind")),
            *(a[name].eq(step[name]) for name in ("wide", "valid", "clear", "present")),
        ]
        s9_wide = Signal()
        with m.If(moves & last_step.capture):
            m.d.sync += s9_wide.eq(last_step.wide)
        following = Signal(geometry.drained)  # nothing
        for number in reversed(range(geometry.lanes)):
            m.submodules[f"lane_{number}"] = lane = EnableInserter(moves)(Lane(geometry=geometry))
            m.d.comb += [
                lane.a.eq(a),
                lane.b.eq(tiles.o_b[number]),
                lane.anchors.eq(tiles.o_anchors[number]),
                lane.capture.eq(last_step.capture),
                lane.drain_wide.eq(s9_wide),
                lane.i_drained.eq(following),
            ]
            following = lane.o_drained
        return following

    def _drain(self, m, rounder, moves, step, head):
        """Hand the captured sums to the rounder, one per cycle."""
        s9_step = Signal(Step)
        s9_left = Signal(range(self.geometry.lanes * self.geometry.columns + 1))
        with m.If(moves & step.capture):
            m.d.sync += [s9_step.eq(step), s9_left.eq(self._columns(step.wide))]
        with m.Elif(moves & (s9_left != 0)):
            m.d.sync += s9_left.eq(s9_left - 1)
        sums = rounder.i.payload
        m.d.comb += [
            rounder.i.valid.eq(s9_left != 0),
            sums.weight.eq(s9_step.weight + head.anchor),
            sums.last.eq(s9_step.last & (s9_left == 1)),
            *(sums[name].eq(s9_step[name]) for name in ("result", "saturate")),
            *(sums[name].eq(head[name]) for name in
              ("sum", "nan", "positive_infinity", "negative_infinity", "lost")),
        ]

    def _columns(self, wide):
        """Columns of a tile."""
        return Mux(wide, self.geometry.lanes, self.geometry.lanes * self.geometry.columns)
