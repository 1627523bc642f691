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
from .geometry import DECODE_LATENCY, Kind
from .layouts import WORD_WIDTH, AnchorWord, ForceWindow, Operation

__all__ = ["Tile", "TileBuffer", "is_wide"]

Tile = data.StructLayout({"operation": Operation, "bank": 1})
"""A tile of B that is loaded, and what to do with it."""

WINDOW = WORD_WIDTH  # indices of a force window


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

    An operation is accepted while ``bank`` is free, in one cycle; then a word per cycle. Decoded
    words, and ``done`` for the last one, appear ``DECODE_LATENCY`` cycles after the word.
    """

    def __init__(self, *, geometry):
        self.geometry = geometry
        shape = geometry.anchor_shape
        lane_anchors = data.ArrayLayout(shape, geometry.columns)
        super().__init__({
            "i_operation": In(stream.Signature(Operation)),
            "i_b": In(stream.Signature(WORD_WIDTH)),
            "is_free": In(1),
            "bank": Out(1),
            "operations": Out(data.ArrayLayout(Operation, 2)),
            "anchors": Out(data.ArrayLayout(data.ArrayLayout(lane_anchors, geometry.lanes), 2)),
            "o": Out(data.ArrayLayout(geometry.slot, 4)),
            "o_place": Out(place_layout(geometry)),
        })

    def elaborate(self, platform):
        m = Module()
        lanes, columns = self.geometry.lanes, self.geometry.columns

        # Row 0 is the anchors', row k + 1 is that of index k.
        is_busy, row, lane = Signal(), Signal(17), Signal(range(max(2, lanes)))
        operation = Signal(Operation)
        ends_row = lane == lanes - 1
        ends = ends_row & (row == operation.k)
        takes = is_busy & self.i_b.valid
        m.d.comb += [
            self.i_b.ready.eq(is_busy),
            self.i_operation.ready.eq(~is_busy & self.is_free),
        ]
        with m.If(self.i_operation.valid & self.i_operation.ready):
            m.d.sync += [is_busy.eq(1), operation.eq(self.i_operation.payload),
                         self.operations[self.bank].eq(self.i_operation.payload)]
        with m.If(takes):
            m.d.sync += [lane.eq(Mux(ends_row, 0, lane + 1)), row.eq(row + ends_row)]
            with m.If(ends):
                m.d.sync += [is_busy.eq(0), row.eq(0), self.bank.eq(~self.bank)]

        # A ring of anchors for each bank: its head is those of the lane whose word comes next.
        word = data.View(AnchorWord, self.i_b.payload)
        head = Signal(self.anchors.shape().elem_shape.elem_shape)
        m.d.comb += head.eq(self.anchors[self.bank][0])
        for bank in range(2):
            ring = self.anchors[bank]
            with m.If(takes & (self.bank == bank)):
                m.d.sync += [ring[n].eq(ring[n + 1]) for n in range(lanes - 1)]
                m.d.sync += [ring[lanes - 1][n].eq(Mux(row == 0, word[n], head[n]))
                             for n in range(columns)]

        place = Signal(place_layout(self.geometry))
        m.d.comb += [
            place.bank.eq(self.bank), place.row.eq(row - 1), place.lane.eq(lane),
            place.wide.eq(is_wide(operation)),
            place.write.eq(takes & (row != 0)), place.done.eq(takes & ends),
        ]
        for number in range(1, DECODE_LATENCY + 1):
            following = Signal.like(place, name=f"s{number}_place")
            m.d.sync += following.eq(place)
            place = following
        m.d.comb += self.o_place.eq(place)
        self._decode(m, head, operation.format_b)
        return m

    def _decode(self, m, head, code):
        """Column 0 may be any format; the others are narrow ones, or the parts of column 0."""
        geometry = self.geometry
        for number in range(geometry.columns):
            formats = [f for f in geometry.formats if number == 0 or f.width <= 16]
            m.submodules[f"decoder_{number}"] = decoder = Decoder(geometry=geometry,
                                                                  formats=formats)
            m.d.comb += [
                decoder.value.eq(self.i_b.payload[16 * number:]),
                decoder.format.eq(code),
                decoder.anchor.eq(head[number]),
            ]
            m.d.comb += _copy(self.o[number], decoder.o,
                              decoder.o.significand[-(geometry.narrow_frame + 7):])
            if number == 0:
                first = decoder.o
        if geometry.is_wide:
            with m.If(self.o_place.wide):
                for number in range(4):
                    half = first.significand[:16] if number % 2 else first.significand[16:]
                    m.d.comb += _copy(self.o[number], first, half)


def _copy(slot, operand, significand):
    """Statements: the slot is the operand but with that part of its significand."""
    return [slot.significand.eq(significand),
            *(slot[name].eq(operand[name]) for name in ("group", "negative", "kind"))]


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
        operation = self.i.payload.operation
        row, window = Signal(16), Signal(range(self.depth))
        is_last = window == (operation.k - (operation.k != 0)) >> (WINDOW.bit_length() - 1)
        m.d.comb += [
            self.read.eq(~self.o.valid | self.o.ready),
            self.address.eq(Cat(window[:(self.depth - 1).bit_length() - 1], self.i.payload.bank)),
            self.i.ready.eq(self.read & is_last & (row == operation.rows - 1)),
        ]
        s1_is_none = Signal()
        with m.If(self.read):
            m.d.sync += [
                self.o.valid.eq(self.i.valid),
                self.o.payload.last.eq(is_last),
                self.o.payload.format.eq(operation.format_a),
                s1_is_none.eq(operation.k == 0),
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
        four elements, right-aligned in 16 bits each, or in fp32 mode one, right-aligned.
    o_tile : Out(stream of Tile)
        Tiles that are loaded, each until its last operand is read.
    o_force : Out(stream of ForceWindow)
        For each row of each loaded operation: which rows of B may not be skipped.
    index : In, read : In(1)
        Index k in the tile of ``o_tile``; while ``read``, the memories and registers move.
    o_b : Out(ArrayLayout(ArrayLayout(geometry.slot, 4), lanes))
        The decoded words at ``index``.
    drain_bank, release : In(1)
        Bank that ``o_anchors`` is about; ``release`` makes it free, nothing of it is in use.
    o_anchors : Out(ArrayLayout(ArrayLayout(geometry.anchor_shape, columns), lanes))
        Column anchors of ``drain_bank``.

    Timing
    ------
    Loading: one cycle for the operation and one for each of its lanes * (k + 1) words; ``o_tile``
    is valid three cycles after the last word, the first of ``o_force`` one later. ``o_b`` follows
    ``index`` by two cycles with ``read``.
    """

    def __init__(self, *, geometry):
        self.geometry = geometry
        lane_anchors = data.ArrayLayout(geometry.anchor_shape, geometry.columns)
        super().__init__({
            "i_operation": In(stream.Signature(Operation)),
            "i_b": In(stream.Signature(WORD_WIDTH)),
            "o_tile": Out(stream.Signature(Tile)),
            "o_force": Out(stream.Signature(ForceWindow)),
            "index": In(range(geometry.b_depth)),
            "read": In(1),
            "o_b": Out(data.ArrayLayout(data.ArrayLayout(geometry.slot, 4), geometry.lanes)),
            "drain_bank": In(1),
            "release": In(1),
            "o_anchors": Out(data.ArrayLayout(lane_anchors, geometry.lanes)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.loader = loader = Loader(geometry=self.geometry)
        wiring.connect(m, wiring.flipped(self.i_operation), loader.i_operation)
        wiring.connect(m, wiring.flipped(self.i_b), loader.i_b)
        m.d.comb += self.o_anchors.eq(loader.anchors[self.drain_bank])

        # A bank is taken until its release, and loaded until each of its two readers is done.
        is_taken, readers = Signal(2), []
        for name in ("tile", "force"):
            is_loaded, bank = Signal(2, name=f"{name}_is_loaded"), Signal(name=f"{name}_bank")
            reader = stream.Signature(Tile).create(path=(name,))
            m.d.comb += [
                reader.valid.eq(is_loaded.bit_select(bank, 1)),
                reader.payload.bank.eq(bank),
                reader.payload.operation.eq(loader.operations[bank]),
            ]
            with m.If(reader.valid & reader.ready):
                m.d.sync += [is_loaded.bit_select(bank, 1).eq(0), bank.eq(~bank)]
            with m.If(loader.o_place.done):
                m.d.sync += is_loaded.bit_select(loader.o_place.bank, 1).eq(1)
            readers.append((reader, is_loaded))
        (tile, _), (force, force_is_loaded) = readers
        with m.If(loader.i_operation.valid & loader.i_operation.ready):
            m.d.sync += is_taken.bit_select(loader.bank, 1).eq(1)
        with m.If(self.release):
            m.d.sync += is_taken.bit_select(self.drain_bank, 1).eq(0)
        m.d.comb += [
            loader.is_free.eq(~(is_taken | force_is_loaded).bit_select(loader.bank, 1)),
            self.o_tile.valid.eq(tile.valid),
            self.o_tile.payload.eq(tile.payload),
            tile.ready.eq(self.o_tile.ready),
        ]
        self._lanes(m, loader)
        self._force(m, loader, force)
        return m

    def _lanes(self, m, loader):
        """One memory per lane, with a register behind it."""
        place, depth = loader.o_place, 2 * self.geometry.b_depth
        for lane in range(self.geometry.lanes):
            m.submodules[f"memory_{lane}"] = mem = memory.Memory(
                shape=loader.o.shape(), depth=depth, init=[])
            write, read = mem.write_port(), mem.read_port()
            m.d.comb += [
                write.en.eq(place.write & (place.lane == lane)),
                write.addr.eq(Cat(place.row, place.bank)),
                write.data.eq(loader.o),
                read.en.eq(self.read),
                read.addr.eq(Cat(self.index, self.o_tile.payload.bank)),
            ]
            with m.If(self.read):
                m.d.sync += self.o_b[lane].eq(read.data)

    def _force(self, m, loader, reader_i):
        """Gather the special rows of the tile, window by window, for the reader."""
        depth = 2 * self.geometry.b_depth // WINDOW
        m.submodules.force_memory = mem = memory.Memory(shape=WINDOW, depth=depth, init=[])
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
