"""What is known of the tiles of B in the lanes' memories: two banks, and their force windows.

::

    i_operation, i_b -> Loader -----------------------> o_word
                          |`----> anchors ------------> o_anchors
                          |`----> o_tile (once loaded)
                          `-----> force memory -> ForceReader -> o_force
"""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register, register_like
from .force import ForceReader
from .geometry import Kind
from .lane import COLUMNS, lane_word
from .layouts import WORD_WIDTH, ForceWindow, Operation
from .loader import WINDOW, Loader, Tile, anchor_address
from .ram import Ram

__all__ = ["TileBuffer", "TileCursor"]


class TileCursor(wiring.Component):
    """The tile that a reader is at, in a register, and how many of its rows are left.

    Members
    -------
    tiles : In(ArrayLayout(Tile, 2))
        The banks' tiles.
    done : In(1), done_bank : In(1)
        That bank is loaded.
    is_loaded : Out(2)
        Banks that are loaded and not yet given.
    next_row : In(1)
        The reader goes on to the tile's next row.
    o : Out(stream of Tile)
        The tiles in their order.

    Timing
    ------
    ``o`` is valid two cycles after ``done``, and again in the cycle after it was taken if the
    other bank was loaded a cycle before.
    """

    tiles: In(data.ArrayLayout(Tile, 2))
    done: In(1)
    done_bank: In(1)
    is_loaded: Out(2)
    next_row: In(1)
    o: Out(stream.Signature(Tile))

    def elaborate(self, platform):
        m = Module()
        # Two tiles are loaded at most, so the one after this always has a place to wait in: what
        # follows a tile is not for its last row to look up.
        waiting = register(Tile)
        has_waiting = Signal()
        moves = Signal()
        taken = Signal()
        tile = register(Tile)
        m.d.comb += [
            self.o.payload.eq(tile),
            taken.eq(self.o.valid & self.o.ready),
            moves.eq(taken | ~self.o.valid),
        ]
        with m.If(self.next_row):
            m.d.sync += tile.rows_beyond.eq(tile.rows_beyond - 1)
        with m.If(moves):
            m.d.sync += [self.o.valid.eq(has_waiting), tile.eq(waiting)]
        m.d.sync += has_waiting.eq(self.done | (has_waiting & ~moves))
        with m.If(taken):
            m.d.sync += self.is_loaded.bit_select(tile.number[0], 1).eq(0)
        with m.If(self.done):
            m.d.sync += [self.is_loaded.bit_select(self.done_bank, 1).eq(1),
                         waiting.eq(self.tiles[self.done_bank])]
        return m


class TileBuffer(wiring.Component):
    """Keeps account of two tiles of B: one loads while the other one is used.

    Parameters
    ----------
    geometry : Geometry
        Of the VPCU.

    Members
    -------
    i_operation : In(stream of Operation)
        Operations; the next one is taken when its bank is free and the tile before is loaded.
    i_b : In(stream of 64-bit words)
        For each operation ``lanes`` anchor words (AnchorWord), then ``lanes`` words per index k:
        four elements, right-aligned in 16 bits each, or in fp32 mode one, right-aligned. If it is
        ``scaled``, ``lanes`` more anchor words before each block of ``scale_block`` indices: the
        anchors less the exponents of that block's scales.
    o_tile : Out(stream of Tile)
        Tiles that are loaded, each until its last row was joined with it.
    next_row : In(1)
        A row was joined with the tile: it is to be about the next one.
    o_force : Out(stream of ForceWindow)
        For each row of each loaded operation: which rows of B may not be skipped.
    o_word : Out(lane_word(geometry))
        Decoded words, for the lanes to keep.
    release, release_bank : In(1)
        ``release`` makes that bank free: nothing of it is in use.
    anchor_address : In(anchor_address(geometry))
        Tile number and lane.
    o_anchors : Out(ArrayLayout(geometry.anchor_shape, 4))
        The column anchors there, two cycles later.

    Timing
    ------
    Loading: one cycle for the operation and one for each of its words, lanes * (k + 1) without
    scales; ``o_tile`` is valid seven cycles after the last word, the first of ``o_force`` five
    later.
    """

    def __init__(self, *, geometry):
        self.geometry = geometry
        super().__init__({
            "i_operation": In(stream.Signature(Operation)),
            "i_b": In(stream.Signature(WORD_WIDTH)),
            "o_tile": Out(stream.Signature(Tile)),
            "o_force": Out(stream.Signature(ForceWindow)),
            "next_row": In(1),
            "o_word": Out(lane_word(geometry)),
            "release": In(1),
            "release_bank": In(1),
            "anchor_address": In(anchor_address(geometry)),
            "o_anchors": Out(data.ArrayLayout(geometry.anchor_shape, COLUMNS)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.loader = loader = Loader(geometry=self.geometry)
        wiring.connect(m, wiring.flipped(self.i_operation), loader.i_operation)
        wiring.connect(m, wiring.flipped(self.i_b), loader.i_b)
        self._anchors(m, loader)

        s1_word = register_like(loader.o)
        s1_place = Signal.like(loader.o_place)
        m.d.sync += [s1_word.eq(loader.o), s1_place.eq(loader.o_place)]
        m.d.comb += [
            self.o_word.slots.eq(loader.o),
            self.o_word.lane.eq(loader.o_place.lane),
            self.o_word.address.eq(Cat(loader.o_place.row, loader.o_place.bank)),
            self.o_word.write.eq(loader.o_place.write),
        ]

        # A bank is taken until its release, and loaded until each of its two readers is done.
        is_taken = Signal(2)
        m.submodules.tile = tile = TileCursor()
        m.submodules.force = force = TileCursor()
        s2_place = Signal.like(s1_place)
        s3_place = Signal.like(s1_place)
        m.d.sync += [s2_place.eq(s1_place), s3_place.eq(s2_place)]
        for cursor, place in ((tile, s1_place), (force, s3_place)):
            m.d.comb += [cursor.tiles.eq(loader.tiles), cursor.done.eq(place.done),
                         cursor.done_bank.eq(place.bank)]
        with m.If(loader.i_operation.valid & loader.i_operation.ready):
            m.d.sync += is_taken.bit_select(loader.number[0], 1).eq(1)
        with m.If(self.release):
            m.d.sync += is_taken.bit_select(self.release_bank, 1).eq(0)
        m.d.comb += [
            loader.is_free.eq(~(is_taken | force.is_loaded)),
            tile.next_row.eq(self.next_row),
        ]
        wiring.connect(m, tile.o, wiring.flipped(self.o_tile))
        self._force(m, s1_word, (loader.o_place, s2_place, s3_place), force)
        return m

    def _anchors(self, m, loader):
        """The memory of column anchors, for the drain."""
        m.submodules.anchor_memory = mem = Ram(
            width=loader.o_anchors.shape().size, depth=1 << len(self.anchor_address),
            target=self.geometry.target)
        m.d.comb += [
            mem.i_address.eq(loader.anchor_address), mem.i_data.eq(loader.o_anchors),
            mem.write.eq(loader.anchor_write),
            mem.address.eq(self.anchor_address), mem.read.eq(1),
            self.o_anchors.as_value().eq(mem.o),
        ]

    def _force(self, m, s1_word, stages, cursor):
        """Gather the special rows of the tile, window by window, for the reader.

        The last window is written in the cycle after the reader's ``done``, and read in the one
        after that.
        """
        depth = 2 * self.geometry.b_depth // WINDOW
        m.submodules.force_memory = mem = Ram(
            width=WINDOW, depth=depth, target=self.geometry.target)
        m.submodules.force_reader = reader = ForceReader(depth=depth)
        wiring.connect(m, wiring.flipped(self.o_force), reader.o)
        place, s2_place, s3_place = stages
        places = WINDOW.bit_length() - 1
        half = places // 2
        s1_low = register(1 << half)
        s1_high = register(1 << places - half)
        s2_index = register(WINDOW)
        s2_is_special = register()
        s3_index = register(WINDOW)
        s3_is_special = register()
        s3_ends_window = register()
        gathered = Signal(WINDOW)
        window = Signal(WINDOW)
        m.d.sync += [
            s1_low.eq(1 << place.row[:half]),
            s1_high.eq(1 << place.row[half:places]),
            s2_index.eq(Cat(low & high for high in s1_high for low in s1_low)),
            s2_is_special.eq(Cat((slot.kind == Kind.INFINITE) | (slot.kind == Kind.NAN)
                                 for slot in s1_word).any()),
            s3_index.eq(s2_index),
            s3_is_special.eq(s2_is_special),
            s3_ends_window.eq(s2_place.done | ((s2_place.lane == self.geometry.lanes - 1)
                                               & s2_place.row[:places].all())),
        ]
        m.d.comb += window.eq(gathered | Mux(s3_is_special, s3_index, 0))
        with m.If(s3_place.write):
            m.d.sync += gathered.eq(Mux(s3_ends_window, 0, window))

        s4_write = Signal()
        s4_address = register(len(mem.i_address))
        s4_window = register(WINDOW)
        m.d.sync += [
            s4_write.eq(s3_place.write), s4_window.eq(window),
            s4_address.eq(Cat(s3_place.row[places:], s3_place.bank)),
        ]
        m.d.comb += [
            mem.write.eq(s4_write),
            mem.i_address.eq(s4_address),
            mem.i_data.eq(s4_window),
            mem.read.eq(reader.read),
            mem.address.eq(reader.address),
            reader.data.eq(mem.o),
            cursor.next_row.eq(reader.next_row),
        ]
        wiring.connect(m, cursor.o, reader.i)
        return m
