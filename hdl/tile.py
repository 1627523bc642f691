"""Where tiles of B wait: the loader with its decoders, two banks of memory, and the force windows.

::

    i_operation, i_b -> Loader -> lane memories ------> o_b
                          |`----> anchors ------------> o_anchors
                          |`----> o_tile (once loaded)
                          `-----> force memory -> ForceReader -> o_force
"""

from amaranth.hdl import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .decode import Decoder
from .formats import FORMATS
from .geometry import DECODE_LATENCY, OPERAND_LATENCY, Kind
from .lane import COLUMNS
from .layouts import WORD_WIDTH, AnchorWord, ForceWindow, Operation
from .ram import RAM_LATENCY, Ram

__all__ = ["Tile", "TileBuffer", "anchor_address", "halves", "is_wide", "narrow"]

Tile = data.StructLayout({
    "operation": Operation, "number": 2, "wide": 1, "is_empty": 1, "last_index": 16,
    "last_row": 16,
})
"""A tile of B that is loaded, and what to do with it; its bank is the number's lowest bit.

``wide``: in fp32 mode. ``is_empty``: k is 0. ``last_index``, ``last_row``: k and rows, less 1.
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

    An operation is accepted while its bank is free, in one cycle; then a word per cycle. Decoded
    words, and ``done`` for the last one, appear ``DECODE_LATENCY`` cycles after the word. Words of
    anchors pass by: the first ones go to ``o_anchors``, at ``anchor_address``.
    """

    def __init__(self, *, geometry):
        self.geometry = geometry
        anchors = data.ArrayLayout(geometry.anchor_shape, COLUMNS)
        super().__init__({
            "i_operation": In(stream.Signature(Operation)),
            "i_b": In(stream.Signature(WORD_WIDTH)),
            "is_free": In(1),
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

        is_busy, row, lane = Signal(), Signal(16), Signal(range(max(2, lanes)))
        tile = Signal(Tile)
        operation = tile.operation
        # A row of words holds the tile's anchors, those of a block of scales, or an index.
        is_first, is_anchors = Signal(), Signal()
        ends_row = lane == lanes - 1
        is_done = Mux(is_anchors, tile.is_empty, row == tile.last_index)
        takes = is_busy & self.i_b.valid
        m.d.comb += [
            self.i_b.ready.eq(is_busy),
            self.i_operation.ready.eq(~is_busy & self.is_free),
        ]
        taken, following = self.i_operation.payload, Signal(Tile)
        m.d.comb += [
            following.operation.eq(taken), following.number.eq(self.number),
            following.wide.eq(is_wide(taken)), following.is_empty.eq(taken.k == 0),
            following.last_index.eq(taken.k - 1), following.last_row.eq(taken.rows - 1),
        ]
        with m.If(self.i_operation.valid & self.i_operation.ready):
            m.d.sync += [is_busy.eq(1), tile.eq(following), self.tiles[bank].eq(following),
                         is_first.eq(1), is_anchors.eq(1), row.eq(0)]
        with m.If(takes):
            m.d.sync += lane.eq(Mux(ends_row, 0, lane + 1))
            with m.If(ends_row):
                m.d.sync += [is_first.eq(0), is_anchors.eq(self._anchors_next(
                    operation, is_first, is_anchors, row)), row.eq(row + ~is_anchors)]
                with m.If(is_done):
                    m.d.sync += [is_busy.eq(0), self.number.eq(self.number + 1)]

        # A ring of anchors: its head is those of the lane whose word comes next.
        word = data.View(AnchorWord, self.i_b.payload)
        ring = Signal(data.ArrayLayout(self.o_anchors.shape(), lanes))
        m.d.comb += [
            *(self.o_anchors[n].eq(word[n]) for n in range(COLUMNS)),
            self.anchor_address.eq(Cat(lane[:len(self.anchor_address) - 2], self.number)),
            self.anchor_write.eq(takes & is_first),
        ]
        with m.If(takes):
            m.d.sync += [ring[n].eq(ring[n + 1]) for n in range(lanes - 1)]
            m.d.sync += ring[lanes - 1].eq(Mux(is_anchors, self.o_anchors, ring[0]))

        place = Signal(place_layout(self.geometry))
        m.d.comb += [
            place.bank.eq(bank), place.row.eq(row), place.lane.eq(lane),
            place.wide.eq(tile.wide),
            place.write.eq(takes & ~is_anchors), place.done.eq(takes & ends_row & is_done),
        ]
        for number in range(1, DECODE_LATENCY + 1):
            following = Signal.like(place, name=f"s{number}_place")
            m.d.sync += following.eq(place)
            place = following
        m.d.comb += self.o_place.eq(place)
        self._decode(m, ring[0], operation.format_b)
        return m

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


class ForceReader(wiring.Component):
    """Gives the force windows of each row of a loaded tile: one per cycle, the first one in the
    cycle after ``i`` is valid.
    """

    def __init__(self, *, depth):
        self.depth = depth
        super().__init__({
            "i": In(stream.Signature(Tile)),
            "address": Out(range(depth)),
            "read": Out(1),
            "data": In(WINDOW),
            "o": Out(stream.Signature(ForceWindow)),
        })

    def elaborate(self, platform):
        m = Module()
        tile = self.i.payload
        row, window = Signal(16), Signal(range(self.depth))
        is_last = tile.is_empty | (window == tile.last_index[WINDOW.bit_length() - 1:])
        m.d.comb += [
            self.read.eq(~self.o.valid | self.o.ready),
            self.address.eq(Cat(window[:(self.depth - 1).bit_length() - 1],
                                self.i.payload.number[0])),
            self.i.ready.eq(self.read & is_last & (row == tile.last_row)),
        ]
        s1_is_none = Signal()
        with m.If(self.read):
            m.d.sync += [
                self.o.valid.eq(self.i.valid),
                self.o.payload.last.eq(is_last),
                self.o.payload.format.eq(tile.operation.format_a),
                s1_is_none.eq(tile.is_empty),
            ]
            with m.If(self.i.valid):
                m.d.sync += window.eq(Mux(is_last, 0, window + 1))
                with m.If(is_last):
                    m.d.sync += row.eq(Mux(self.i.ready, 0, row + 1))
        m.d.comb += self.o.payload.force.eq(Mux(s1_is_none, 0, self.data))
        return m


class TileBuffer(wiring.Component):
    """Holds two tiles of B: one loads while the other one is used.

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
        Tiles that are loaded, each until its last operand is read.
    o_force : Out(stream of ForceWindow)
        For each row of each loaded operation: which rows of B may not be skipped.
    index : In(range(geometry.b_depth))
        Index k in the tile of ``o_tile``.
    o_b : Out(ArrayLayout(ArrayLayout(geometry.slot, 4), lanes))
        The decoded words at ``index``, ``OPERAND_LATENCY`` (5) cycles later.
    release, release_bank : In(1)
        ``release`` makes that bank free: nothing of it is in use.
    anchor_address : In(anchor_address(geometry))
        Tile number and lane.
    o_anchors : Out(ArrayLayout(geometry.anchor_shape, 4))
        The column anchors there, two cycles later.

    Timing
    ------
    Loading: one cycle for the operation and one for each of its words, lanes * (k + 1) without
    scales; ``o_tile`` is valid four cycles after the last word, the first of ``o_force`` one later.
    """

    def __init__(self, *, geometry):
        self.geometry = geometry
        super().__init__({
            "i_operation": In(stream.Signature(Operation)),
            "i_b": In(stream.Signature(WORD_WIDTH)),
            "o_tile": Out(stream.Signature(Tile)),
            "o_force": Out(stream.Signature(ForceWindow)),
            "index": In(range(geometry.b_depth)),
            "o_b": Out(data.ArrayLayout(data.ArrayLayout(geometry.slot, COLUMNS),
                                        geometry.lanes)),
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

        # A bank is taken until its release, and loaded until each of its two readers is done.
        is_taken, readers = Signal(2), []
        for name in ("tile", "force"):
            is_loaded = Signal(2, name=f"{name}_is_loaded")
            number = Signal(2, name=f"{name}_number")
            reader, bank = stream.Signature(Tile).create(path=(name,)), number[0]
            m.d.comb += [
                reader.valid.eq(is_loaded.bit_select(bank, 1)),
                reader.payload.eq(loader.tiles[bank]),
            ]
            with m.If(reader.valid & reader.ready):
                m.d.sync += [is_loaded.bit_select(bank, 1).eq(0), number.eq(number + 1)]
            with m.If(loader.o_place.done):
                m.d.sync += is_loaded.bit_select(loader.o_place.bank, 1).eq(1)
            readers.append((reader, is_loaded))
        (tile, _), (force, force_is_loaded) = readers
        with m.If(loader.i_operation.valid & loader.i_operation.ready):
            m.d.sync += is_taken.bit_select(loader.number[0], 1).eq(1)
        with m.If(self.release):
            m.d.sync += is_taken.bit_select(self.release_bank, 1).eq(0)
        m.d.comb += [
            loader.is_free.eq(~(is_taken | force_is_loaded).bit_select(loader.number[0], 1)),
            self.o_tile.valid.eq(tile.valid),
            self.o_tile.payload.eq(tile.payload),
            tile.ready.eq(self.o_tile.ready),
        ]
        self._lanes(m, loader)
        self._force(m, loader, force)
        return m

    def _anchors(self, m, loader):
        """The memory of column anchors, for the drain."""
        m.submodules.anchor_memory = mem = Ram(
            width=loader.o_anchors.shape().size, depth=1 << len(self.anchor_address),
            target=self.geometry.target)
        m.d.comb += [
            mem.i_address.eq(loader.anchor_address), mem.i_data.eq(loader.o_anchors),
            mem.write.eq(loader.anchor_write),
            mem.address.eq(self.anchor_address), self.o_anchors.as_value().eq(mem.o),
        ]

    def _lanes(self, m, loader):
        """One memory per lane, in which words wait decoded."""
        geometry, place = self.geometry, loader.o_place
        address = Cat(self.index, self.o_tile.payload.number[0])
        for number in range(1, OPERAND_LATENCY - RAM_LATENCY + 1):
            following = Signal(len(address), name=f"s{number}_address")
            m.d.sync += following.eq(address)
            address = following
        for lane in range(geometry.lanes):
            m.submodules[f"memory_{lane}"] = mem = Ram(
                width=loader.o.shape().size, depth=2 * geometry.b_depth, target=geometry.target)
            m.d.comb += [
                mem.i_address.eq(Cat(place.row, place.bank)),
                mem.i_data.eq(loader.o),
                mem.write.eq(place.write & (place.lane == lane)),
                mem.address.eq(address),
                self.o_b[lane].as_value().eq(mem.o),
            ]

    def _force(self, m, loader, reader_i):
        """Gather the special rows of the tile, window by window, for the reader."""
        depth = 2 * self.geometry.b_depth // WINDOW
        m.submodules.force_memory = mem = memory.Memory(
            shape=WINDOW, depth=depth, init=[], attrs={"ram_style": "block"})
        write, read = mem.write_port(), mem.read_port()
        m.submodules.force_reader = reader = ForceReader(depth=depth)
        wiring.connect(m, wiring.flipped(self.o_force), reader.o)
        place, places = loader.o_place, WINDOW.bit_length() - 1
        is_special = Cat((slot.kind == Kind.INFINITE) | (slot.kind == Kind.NAN)
                         for slot in loader.o).any()
        gathered, window = Signal(WINDOW), Signal(WINDOW)
        m.d.comb += [
            window.eq(gathered | (is_special << place.row[:places])),
            write.en.eq(place.write),
            write.addr.eq(Cat(place.row[places:], place.bank)),
            write.data.eq(window),
            read.en.eq(reader.read),
            read.addr.eq(reader.address),
            reader.data.eq(read.data),
            reader.i.valid.eq(reader_i.valid),
            reader.i.payload.eq(reader_i.payload),
            reader_i.ready.eq(reader.i.ready),
        ]
        ends_window = place.done | ((place.lane == self.geometry.lanes - 1)
                                    & place.row[:places].all())
        with m.If(place.write):
            m.d.sync += gathered.eq(Mux(ends_window, 0, window))
        return m
