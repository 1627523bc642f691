"""The loader of tiles of B: takes an operation and its words, and decodes them."""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import delayed, register, register_like
from .decode import Decoder
from .formats import FORMATS, FormatCode
from .geometry import DECODE_LATENCY
from .lane import COLUMNS
from .layouts import WORD_WIDTH, AnchorWord, Operation
from .rounder import WEIGHT

__all__ = ["WINDOW", "Loader", "Tile", "anchor_address", "halves", "narrow"]

Tile = data.StructLayout({
    "number": 2, "format_a": FormatCode, "wide": 1, "keep": 1, "drain": 1, "weight": WEIGHT,
    "result": FormatCode, "saturate": 1, "rows_beyond": signed(17),
    "last_window": 16, "is_single": 1, "is_empty": 1,
})
"""What is to be done with a tile of B; its bank is the number's lowest bit.

``wide``: in fp32 mode. ``weight``: exponent of the window's lowest bit, but for the anchors.
``rows_beyond``: behind the next one, so that its sign says the last row. ``last_window``: of 64
indices; ``is_single``: there is but that one; ``is_empty``: k is 0.
"""

WINDOW = WORD_WIDTH  # indices of a force window
HALF_GROUPS = (0, 2, 2, 4)
"""Bytes that the products of halves lie below the first one, by slot of a word in fp32 mode."""


def is_wide(operation):
    """Whether an operation runs in fp32 mode: one product takes four multipliers."""
    codes = [f.code.value for f in FORMATS.values() if f.width == 32]
    return (operation.format_a.as_value().matches(*codes)
            | operation.format_b.as_value().matches(*codes))


def place_layout(geometry):
    """Where a word of B goes, and whether it is an operation's last."""
    return data.StructLayout({
        "bank": 1, "row": range(geometry.b_depth), "lane": range(max(2, geometry.lanes)),
        "wide": 1, "write": 1, "done": 1,
    })


class Loader(wiring.Component):
    """Takes an operation, then its words of B, and decodes them.

    An operation is accepted while its bank is free (``is_free``, a bit for each), in one cycle;
    then a word per cycle. Decoded words, and ``done`` for the last one, appear ``DECODE_LATENCY``
    cycles after the word. Words of anchors pass by: the first ones go to ``o_anchors``, at
    ``anchor_address``, a cycle later.
    """

    def __init__(self, *, geometry):
        self.geometry = geometry
        anchors = data.ArrayLayout(geometry.anchor_shape, COLUMNS)
        super().__init__({
            "i_operation": In(stream.Signature(Operation)),
            "i_b": In(stream.Signature(WORD_WIDTH)),
            "is_free": In(2),
            "number": Out(2),
            "tiles": Out(data.ArrayLayout(Tile, 2)),
            "o_anchors": Out(anchors),
            "anchor_address": Out(anchor_address(geometry)),
            "anchor_write": Out(1),
            "o": Out(data.ArrayLayout(geometry.slot, COLUMNS)),
            "o_place": Out(place_layout(geometry)),
        })

    def elaborate(self, platform):
        m = Module()
        lanes, bank = self.geometry.lanes, self.number[0]

        is_busy = Signal()
        row = Signal(16)
        lane = Signal(range(max(2, lanes)))
        operation = register(Operation)
        wide = register()
        is_empty = register()
        rows_beyond = register(signed(17))  # behind the next index
        all_beyond = register(signed(17))
        # A row of words holds the tile's anchors, those of a block of scales, or an index.
        is_first = Signal()
        is_anchors = Signal()
        ends_row = Signal(init=lanes == 1)  # the word is that of the last lane
        is_done = Mux(is_anchors, is_empty, rows_beyond < 0)
        takes = is_busy & self.i_b.valid
        # Whose bank is the next one's, and whether that is free, is worked out a cycle before.
        finishes = Signal()
        may_accept = Signal()
        m.d.comb += finishes.eq(takes & ends_row & is_done)
        m.d.sync += may_accept.eq(self.is_free.bit_select(bank ^ finishes, 1))
        m.d.comb += [
            self.i_b.ready.eq(is_busy),
            self.i_operation.ready.eq(~is_busy & may_accept),
        ]
        # What follows from an operation is worked out in the cycle after.
        new = self.i_operation.payload
        accepts = Signal()
        s1_accepts = Signal()
        tiles = register_like(self.tiles)
        m.d.comb += self.tiles.eq(tiles)
        m.d.comb += accepts.eq(self.i_operation.valid & self.i_operation.ready)
        m.d.sync += s1_accepts.eq(accepts)
        with m.If(accepts):
            m.d.sync += [
                is_busy.eq(1), operation.eq(new), wide.eq(is_wide(new)), is_empty.eq(new.k == 0),
                all_beyond.eq(new.k - 2), is_first.eq(1), is_anchors.eq(1),
            ]
        with m.If(takes):
            m.d.sync += lane.eq(Mux(ends_row, 0, lane + 1))
            if lanes > 1:
                m.d.sync += ends_row.eq(lane == lanes - 2)
            with m.If(ends_row):
                m.d.sync += [is_first.eq(0), is_anchors.eq(self._anchors_next(
                    operation, is_first, is_anchors, row)), row.eq(row + ~is_anchors)]
                with m.If(~is_anchors):
                    m.d.sync += rows_beyond.eq(rows_beyond - 1)
            with m.If(finishes):
                m.d.sync += [is_busy.eq(0), self.number.eq(self.number + 1)]
        with m.If(s1_accepts):  # its first words are anchors: no row of indices ends yet
            m.d.sync += [row.eq(0), rows_beyond.eq(all_beyond),
                         *self._tile(tiles[bank], operation, wide)]

        anchors = self._anchors(m, lane, takes, is_first, is_anchors)
        place = Signal(place_layout(self.geometry))
        m.d.comb += [
            place.bank.eq(bank), place.row.eq(row), place.lane.eq(lane),
            place.wide.eq(wide),
            place.write.eq(takes & ~is_anchors), place.done.eq(finishes),
        ]
        m.d.comb += self.o_place.eq(delayed(m, place, DECODE_LATENCY, "place", reset_less=False))
        self._decode(m, anchors, operation.format_b)
        return m

    def _anchors(self, m, lane, takes, is_first, is_anchors):
        """Keep the tile's anchors for the drain; give those of the lane whose word comes next."""
        # A ring of them: its head is the next lane's.
        lanes, word = self.geometry.lanes, data.View(AnchorWord, self.i_b.payload)
        ring = register(data.ArrayLayout(self.o_anchors.shape(), lanes))
        anchors = Signal.like(self.o_anchors)
        m.d.comb += [anchors[n].eq(word[n]) for n in range(COLUMNS)]
        m.d.sync += [
            self.o_anchors.eq(anchors),
            self.anchor_address.eq(Cat(lane[:len(self.anchor_address) - 2], self.number)),
            self.anchor_write.eq(takes & is_first),
        ]
        with m.If(takes):
            m.d.sync += [ring[n].eq(ring[n + 1]) for n in range(lanes - 1)]
            m.d.sync += ring[lanes - 1].eq(Mux(is_anchors, anchors, ring[0]))
        return ring[0]

    def _tile(self, tile, operation, wide):
        """Statements: the tile is what that operation is to do."""
        constant = 3 + self.geometry.headroom - self.geometry.accumulator_width
        return [
            tile.number.eq(self.number),
            tile.wide.eq(wide),
            tile.weight.eq(operation.exponent + constant),
            tile.rows_beyond.eq(operation.rows - 2),
            tile.last_window.eq((operation.k - 1) >> (WINDOW.bit_length() - 1)),
            tile.is_single.eq(operation.k <= WINDOW),
            tile.is_empty.eq(operation.k == 0),
            *(tile[name].eq(operation[name]) for name in (
                "format_a", "keep", "drain", "result", "saturate")),
        ]

    def _anchors_next(self, operation, is_first, is_anchors, row):
        """Whether after this row of words one of a block's anchors follows."""
        if not self.geometry.scale_block:
            return Const(0)
        ends_block = row[:self.geometry.scale_block.bit_length() - 1].all()
        return operation.scaled & Mux(is_anchors, is_first, ends_block)

    def _decode(self, m, anchors, code):
        """Column 0 may be any format; the others are narrow ones, or the parts of column 0."""
        geometry, first = self.geometry, None
        for number in range(COLUMNS):
            formats = [f for f in geometry.formats if number == 0 or f.width <= 16]
            if not formats:
                break
            m.submodules[f"decoder_{number}"] = decoder = Decoder(geometry=geometry,
                                                                  formats=formats)
            m.d.comb += [
                decoder.value.eq(self.i_b.payload[16 * number:]),
                decoder.format.eq(code),
                decoder.anchor.eq(anchors[number]),
                *_copy(self.o[number], decoder.o, narrow(geometry, decoder.o.significand)),
            ]
            first = decoder.o if first is None else first
        if geometry.is_wide:
            with m.If(self.o_place.wide):
                for number, group in enumerate(HALF_GROUPS):
                    m.d.comb += _copy(self.o[number], first,
                                      halves(first.significand)[number % 2], group)


def anchor_address(geometry):
    """Where a lane's anchors are kept: (tile number, lane).

    Of four tiles: a tile's last row may still be draining while the next but one loads.
    """
    return range(4 << max(0, geometry.lanes - 1).bit_length())


def narrow(geometry, significand):
    """The factor of a narrow operand: its upper bits, or zeros below if it has fewer."""
    missing = max(0, geometry.multiplier_width - len(significand))
    return Cat(Const(0, missing), significand)[-geometry.multiplier_width:]


def halves(significand):
    """The factors (high, low) of an operand in fp32 mode."""
    return Cat(Const(0, 2), significand[16:]), Cat(Const(0, 2), significand[:16])


def _copy(slot, operand, significand, group=0):
    """Statements: the slot is the operand, with that factor and so many more bytes down."""
    return [slot.significand.eq(significand), slot.group.eq(operand.group + group),
            *(slot[name].eq(operand[name]) for name in ("negative", "kind"))]
