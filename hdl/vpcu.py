"""The vector processing core: a row-product engine over N lanes (docs/vpcu.md)."""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import delayed, register
from .buffer import StreamBuffer
from .decode import Decoder
from .drain import DRAIN_LATENCY, Drain, captured
from .formats import FormatCode
from .geometry import LANE_LATENCY, OPERAND_LATENCY, ROUND_LATENCY, Geometry
from .lane import COLUMNS, Lane, broadcast
from .layouts import (
    UNSCALED,
    WORD_WIDTH,
    ForceWindow,
    Operation,
    Result,
    RowAnchor,
    skipper_token,
)
from .loader import halves, narrow
from .ram import RAM_LATENCY
from .results import RESULTS_LATENCY, ROOM_LATENCY, ResultBuffer
from .rounder import Rounder
from .tile import TileBuffer

__all__ = ["ROW_LATENCY", "Vpcu"]

ROW_LATENCY = (OPERAND_LATENCY + LANE_LATENCY + DRAIN_LATENCY + ROUND_LATENCY
               + RESULTS_LATENCY)
"""Cycles from the issue of a row's last operand to its first result at ``o``."""

Step = data.StructLayout({"clear": 1, "present": 1, "capture": 1, "release": 1})
"""What travels with an operand of A down to the accumulators, beside what is known of its row.

``capture``: ends a row whose sums are to be drained. ``release``: ends an operation.
"""


def row_layout(geometry):
    """A row of A that is to come: what its operands and sums need of its anchor and its tile.

    The weight is still without the row's anchor.
    """
    return data.StructLayout({
        "anchor": geometry.anchor_shape, "format": FormatCode, "keep": 1, "drain": 1,
        "captured": captured,
    })


class Vpcu(wiring.Component):
    """Multiplies rows of A with tiles of B: o[m, n] = round(2^x * sum_k a[m, k] * b[k, n]).

    One operand of A per cycle is multiplied with a row of the tile, in all lanes at once; elements
    of A that are left out count as zeros. Results come row by row, column by column: all columns
    of a tile, four per lane, or one per lane in fp32 mode.

    Parameters
    ----------
    lanes, formats, accumulator_width, max_k, b_depth, drains, scale_block, target
        As in ``Geometry``.

    Members
    -------
    i_operation : In(stream of Operation)
        One for each tile. At most ``b_depth`` for k; formats among those enabled.
    i_b : In(stream of unsigned(64))
        The tiles' words, see ``TileBuffer``.
    i_row : In(stream of RowAnchor)
        One for each row of each operation.
    i_a : In(stream of skipper_token(max_k, scale_block))
        The elements of each row; the last one's ``last`` is set; a row without elements is one
        ``empty`` token.
    o_force : Out(stream of ForceWindow)
        For each row of each operation: the indices that may not be left out. Must be taken.
    o : Out(stream of Result)
        Results.

    Timing
    ------
    One token per cycle. A row's last one waits until that of the row drained before is 4 * lanes
    cycles old, and until ``o`` has taken enough results that those of two rows have a place in the
    buffer before it: nothing behind the issue ever stalls. See docs/vpcu.md for the count of a
    product.

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
            "i_a": In(stream.Signature(
                skipper_token(self.geometry.max_k, self.geometry.scale_block))),
            "o_force": Out(stream.Signature(ForceWindow)),
            "o": Out(stream.Signature(Result)),
        })

    def elaborate(self, platform):
        m = Module()
        geometry = self.geometry
        m.submodules.tiles = tiles = TileBuffer(geometry=geometry)
        m.submodules.drain = drain = Drain(geometry=geometry)
        m.submodules.rounder = rounder = Rounder(
            accumulator_width=geometry.accumulator_width, target=geometry.target)
        # Whoever sends these may be far away, and what they decide is not.
        sources = {}
        for name in ("operation", "b", "row"):
            port = getattr(self, f"i_{name}")
            m.submodules[f"{name}_buffer"] = buffer = StreamBuffer(port.payload.shape())
            wiring.connect(m, wiring.flipped(port), buffer.i)
            sources[name] = buffer.o
        wiring.connect(m, sources["operation"], tiles.i_operation)
        wiring.connect(m, sources["b"], tiles.i_b)
        wiring.connect(m, wiring.flipped(self.o_force), tiles.o_force)
        wiring.connect(m, drain.o, rounder.i)

        # What is on its way when a row is issued, two rows, and what leaves before it is known:
        # a buffer that is taken from in every cycle then never says that it has no room.
        columns = geometry.lanes * COLUMNS
        most = 2 * columns + ROW_LATENCY + ROOM_LATENCY
        m.submodules.results = results = ResultBuffer(
            row=columns, depth=1 << (most - 1).bit_length(), target=geometry.target)
        wiring.connect(m, rounder.o, results.i)
        wiring.connect(m, results.o, wiring.flipped(self.o))

        step, row, address, operand = self._issue(m, tiles, results, sources["row"])
        steps, rows = [step], [row]
        for number in range(1, OPERAND_LATENCY + LANE_LATENCY + 1):
            s_step = Signal(Step, name=f"s{number}_step")
            s_row = register(captured, name=f"s{number}_row")
            m.d.sync += [s_step.eq(steps[-1]), s_row.eq(rows[-1])]
            steps.append(s_step)
            rows.append(s_row)
        self._lanes(m, tiles, drain, steps, rows, address, operand)
        m.d.comb += [
            tiles.release.eq(steps[-1].release),
            tiles.release_bank.eq(rows[-1].number[0]),
            drain.capture.eq(steps[-1].capture),
            drain.row.eq(rows[-1]),
            tiles.anchor_address.eq(drain.anchor_address),
            drain.anchors.eq(tiles.o_anchors),
        ]
        return m

    def _rows(self, m, tiles, source):
        """The rows to come, each with what it needs of its anchor and its tile: a stream."""
        m.submodules.rows = rows = StreamBuffer(row_layout(self.geometry))
        tile, row, anchor = tiles.o_tile.payload, rows.i.payload, source.payload.anchor
        is_last = tile.rows_beyond < 0
        m.d.comb += [
            rows.i.valid.eq(source.valid & tiles.o_tile.valid),
            source.ready.eq(rows.i.ready & tiles.o_tile.valid),
            tiles.next_row.eq(rows.i.ready & rows.i.valid),
            tiles.o_tile.ready.eq(rows.i.ready & source.valid & is_last),
            row.anchor.eq(anchor),
            row.format.eq(tile.format_a),
            row.keep.eq(tile.keep),
            row.drain.eq(tile.drain),
            row.captured.weight.eq(tile.weight),
            row.captured.last.eq(is_last),
            *(row.captured[name].eq(tile[name]) for name in (
                "number", "wide", "result", "saturate")),
        ]
        return rows.o

    def _issue(self, m, tiles, results, source):
        """Join token and row: (step, about its row, address of B's operand, A's decoded)."""
        geometry, token = self.geometry, self.i_a.payload
        rows = self._rows(m, tiles, source)
        row = rows.payload

        # The sums of a row take as many cycles to leave as there are accumulators. ``wait`` is
        # negative two cycles before others may be captured, since the permission is a register.
        columns = geometry.lanes * COLUMNS
        wait = Signal(range(-1, columns - 2), init=-1)
        may_capture = Signal()
        captures = Signal()
        may_issue = Signal()
        issues = Signal()
        m.d.comb += [
            may_issue.eq(rows.valid & ~(token.last & row.drain & ~may_capture)),
            issues.eq(may_issue & self.i_a.valid),
            captures.eq(issues & token.last & row.drain),
            self.i_a.ready.eq(may_issue),
            rows.ready.eq(issues & token.last),
        ]
        is_first = Signal(init=1)
        m.d.sync += [
            wait.eq(Mux(captures, columns - 3, wait - (wait >= 0))),
            may_capture.eq(~captures & (wait < 0) & results.has_room),
            results.reserve.eq(Mux(captures, Mux(row.captured.wide, geometry.lanes, columns), 0)),
        ]
        with m.If(issues):
            m.d.sync += is_first.eq(token.last)

        step = Signal(Step, name="s0_step")
        m.d.comb += [
            step.clear.eq(issues & is_first & ~row.keep),
            step.present.eq(issues & ~token.empty),
            step.capture.eq(captures),
            step.release.eq(issues & token.last & row.captured.last),
        ]
        m.submodules.decoder = decoder = Decoder(geometry=geometry, formats=geometry.formats)
        m.d.sync += [
            decoder.value.eq(token.value),
            decoder.format.eq(row.format),
            decoder.anchor.eq(row.anchor + UNSCALED - token.scale if geometry.scale_block
                              else row.anchor),
        ]
        index = token.index[:(geometry.b_depth - 1).bit_length()]
        # The row's anchor is in its weight from here on: before, it would have held up the rows.
        about = Signal(captured)
        m.d.comb += [about.eq(row.captured), about.weight.eq(row.captured.weight + row.anchor)]
        return step, about, Cat(index, row.captured.number[0]), decoder.o

    def _lanes(self, m, tiles, drain, steps, rows, address, operand):
        """The row of lanes, and the operand for its first one: zero, unless there is one."""
        geometry, step = self.geometry, steps[OPERAND_LATENCY - 1]
        a = Signal(broadcast(geometry))
        high = low = narrow(geometry, operand.significand)
        if geometry.is_wide:
            wide = rows[OPERAND_LATENCY - 1].wide
            high, low = (Mux(wide, half, high) for half in halves(operand.significand))
        m.d.comb += [
            a.high.eq(Mux(step.present, high, 0)),
            a.low.eq(Mux(step.present, low, 0)),
            *(a[name].eq(operand[name]) for name in ("group", "negative", "kind")),
            *(a[name].eq(step[name]) for name in ("clear", "present")),
        ]
        # With the register in the lane and the one behind its memory, B comes with the operand.
        address = delayed(m, address, OPERAND_LATENCY - RAM_LATENCY - 2, "address")
        chain = {"word": tiles.o_word, "address": address, "a": a,
                 "capture": steps[-1].capture, "selected": drain.selected}
        sums = drain.sums
        reset = delayed(m, ResetSignal(allow_reset_less=True), 1, "reset")
        for number in range(geometry.lanes):
            m.submodules[f"lane_{number}"] = lane = Lane(geometry=geometry, number=number)
            m.d.comb += [
                *(getattr(lane, f"i_{name}").eq(value) for name, value in chain.items()),
                lane.reset.eq(reset),
                sums.eq(lane.o_sums),
            ]
            chain, sums = {name: getattr(lane, f"o_{name}") for name in chain}, lane.i_sums
