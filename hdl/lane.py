"""One lane: a memory of B, four multipliers, four columns, and the drain's share of them.

Lanes stand in a row, and each hands on to the next, a cycle later, what it gets: words to keep,
addresses, operands of A, captures. So every wire ends in the next lane, however many there are.

::

    words, addresses, operands, capture --> lane 0 --> lane 1 --> lane 2 --> ...
                                   sums <-- lane 0 <-- lane 1 <-- lane 2 <-- ...
"""

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import delayed, register, register_like
from .column import Column, product_flags
from .geometry import Kind
from .multiplier import MULTIPLIER_LATENCY, Multiplier
from .ram import Ram

__all__ = ["COLUMNS", "Lane", "broadcast", "lane_word"]

COLUMNS = 4
"""Accumulators of a lane: one for each of its multipliers."""


def broadcast(geometry):
    """The operand of A that all lanes get, and what they are to do with it.

    ``high`` is the factor of the multipliers 0 and 1, ``low`` that of 2 and 3: in fp32 mode the
    halves of the operand, else both all of it. ``clear``: the accumulators start from zero;
    ``present``: there is an element (else the factors are zero, and its product nothing at all).
    """
    width = geometry.multiplier_width
    return data.StructLayout({
        "high": width, "low": width, "group": range(geometry.group_max + 1), "negative": 1,
        "kind": Kind, "clear": 1, "present": 1,
    })


def lane_word(geometry):
    """A decoded word of B on its way: for which lane, and where it is to be kept."""
    return data.StructLayout({
        "slots": data.ArrayLayout(geometry.slot, COLUMNS), "lane": range(max(2, geometry.lanes)),
        "address": range(2 * geometry.b_depth), "write": 1,
    })


class DrainStep(wiring.Component):
    """A lane's share of the drain: its selected sum, or the one that comes from the lane behind.

    ``selected`` is the pulse for column 0; that for the next lane leaves three cycles later. The
    sum of column n leaves n + 2 cycles after ``selected``, that of the lane behind a cycle after
    it came: so those of all lanes follow each other without a gap. The sums' upper halves do so a
    cycle later than the rest. ``reset`` forgets the selection.
    """

    def __init__(self, *, geometry):
        self.geometry = geometry
        super().__init__({
            "drained": In(data.ArrayLayout(geometry.drained, COLUMNS)),
            "i_selected": In(1), "o_selected": Out(1), "reset": In(1),
            "i": In(geometry.drained), "o": Out(geometry.drained),
        })

    def elaborate(self, platform):
        m = Module()
        selected = [self.i_selected]
        for number in range(1, COLUMNS + 1):
            stage = register(name=f"s{number}_selected")
            m.d.sync += stage.eq(selected[-1])
            with m.If(self.reset):
                m.d.sync += stage.eq(0)
            selected.append(stage)
        m.d.comb += self.o_selected.eq(selected[COLUMNS - 1])
        # And and or: a look-up table takes two columns, or three partial results.
        s2_sums = register(self.geometry.drained)
        half = self.geometry.lower_width
        for late in range(2):
            partial = []
            for first in range(0, COLUMNS, 2):
                parts = [Mux(selected[n + late], _half(self.drained[n], half, late), 0)
                         for n in (first, first + 1)]
                partial.append(delayed(m, parts[0] | parts[1], 1, f"sums_{first}_{late}"))
            m.d.sync += _half(s2_sums, half, late).eq(
                partial[0] | partial[1] | _half(self.i, half, late))
        m.d.comb += self.o.eq(s2_sums)
        return m


def _half(drained, half, late):
    """What of a drained sum comes first, or the upper half of the sum, a cycle ``late``."""
    if late:
        return drained.sum[half:]
    return Cat(drained.sum[:half], *(drained[name] for name, _ in drained.shape()
                                     if name != "sum"))


class Lane(wiring.Component):
    """Adds the products of operands of A with words of B to the accumulators of its columns.

    Column n: sum_n += a * b_n. In fp32 mode the four columns together are one: they sum the
    products high * high, high * low, low * high and low * low of the operands' 16-bit halves; the
    groups of the slots place them, and the drain adds the four sums.

    Parameters
    ----------
    geometry : Geometry
        Of the VPCU.
    number : int
        Its place in the row of lanes.

    Members
    -------
    i_word : In(lane_word(geometry))
        A decoded word; it is kept if it is for this lane. In fp32 mode all four slots have the sign
        and kind of the one operand, and the significands are its high, low, high and low half, two
        zeros below.
    i_address : In(range(2 * geometry.b_depth))
        Of the word that meets the operand ``RAM_LATENCY`` + 1 cycles later.
    i_a : In(broadcast(geometry))
        Operand of A.
    i_capture : In(1)
        Move the accumulators, as they are, to the drain registers.
    i_selected : In(1)
        Column 0 is to leave; the others follow.
    i_sums : In(geometry.drained)
        What the lane behind drains; zeros, if there is none.
    reset : In(1)
        Forget, a cycle later, what is selected. (Through a register, since the reset's wire is
        long: what still comes out is gone long before the first row after it can be drained.)
    o_word, o_address, o_a, o_capture, o_selected : Out
        The same for the lane behind: a cycle later, ``o_selected`` three cycles.
    o_sums : Out(geometry.drained)
        What this lane and those behind drain.

    Timing
    ------
    ``LANE_LATENCY`` + 1 cycles from ``i_a`` to the accumulator; two from ``i_selected`` to
    ``o_sums``.

    Numerics
    --------
    Rule N4: bits of a product under the window are dropped toward zero and set ``lost``; in fp32
    mode, of each of the four.
    """

    def __init__(self, *, geometry, number):
        self.geometry, self.number = geometry, number
        chain = {"word": lane_word(geometry), "address": range(2 * geometry.b_depth),
                 "a": broadcast(geometry), "capture": 1, "selected": 1}
        super().__init__(
            {f"i_{name}": In(shape) for name, shape in chain.items()}
            | {f"o_{name}": Out(shape) for name, shape in chain.items()}
            | {"reset": In(1), "i_sums": In(geometry.drained), "o_sums": Out(geometry.drained)})

    def elaborate(self, platform):
        m = Module()
        geometry = self.geometry
        for name in ("word", "address", "a", "capture"):
            value = getattr(self, f"i_{name}")
            m.d.comb += getattr(self, f"o_{name}").eq(delayed(m, value, 1, name))
        s1_reset = delayed(m, self.reset, 1, "reset")
        b = self._memory(m)
        m.submodules.drain = drain = DrainStep(geometry=geometry)
        m.d.comb += [drain.i_selected.eq(self.i_selected), drain.i.eq(self.i_sums),
                     drain.reset.eq(s1_reset),
                     self.o_selected.eq(drain.o_selected), self.o_sums.eq(drain.o)]
        clear = delayed(m, self.o_a.clear, MULTIPLIER_LATENCY, "clear")
        for number in range(COLUMNS):
            m.submodules[f"multiplier_{number}"] = multiplier = Multiplier(
                width=geometry.multiplier_width, target=geometry.target)
            m.submodules[f"column_{number}"] = column = Column(geometry=geometry)
            flags = self._flags(m, b[number], number)
            m.d.comb += [
                multiplier.a.eq(self.o_a.high if number < 2 else self.o_a.low),
                multiplier.b.eq(b[number].significand),
                column.product.eq(multiplier.o),
                column.flags.eq(delayed(m, flags, MULTIPLIER_LATENCY - 1, f"flags_{number}")),
                column.clear.eq(self._clear(m, clear, s1_reset, number)),
                column.capture.eq(self.i_capture),
                drain.drained[number].eq(column.drained),
            ]
        return m

    def _clear(self, m, clear, reset, number):
        """``clear`` for a column, two cycles later: registers of its own, which stand beside it.

        They have a load for each bit of the accumulator. Were the columns' not told apart by what
        reset does to them, Yosys would make one of all four.
        """
        for step in range(2):
            stage = register(init=number % 2, name=f"clear_{number}_{step}")
            m.d.sync += stage.eq(clear)
            if number < 2:
                with m.If(reset):
                    m.d.sync += stage.eq(number)
            clear = stage
        return clear

    def _memory(self, m):
        """The operands of B at the address, in registers: from memory to multiplier is far."""
        geometry, word = self.geometry, self.o_word
        b = register(word.slots.shape())
        writes = register()
        m.submodules.memory = memory = Ram(
            width=b.shape().size, depth=2 * geometry.b_depth, target=geometry.target)
        m.d.sync += writes.eq(self.i_word.write & (self.i_word.lane == self.number))
        m.d.comb += [
            memory.i_address.eq(word.address), memory.i_data.eq(word.slots),
            memory.write.eq(writes), memory.address.eq(self.o_address), memory.read.eq(1),
        ]
        m.d.sync += b.as_value().eq(memory.o)
        return b

    def _flags(self, m, b, number):
        """What goes with the product of the operand and ``b``, a cycle later (rule N3)."""
        a = self.o_a
        present = register(name=f"s1_present_{number}")
        flags = Signal(product_flags(self.geometry), name=f"flags_{number}")
        group, negative, nan, infinite, zero = (
            register_like(flags.group, name=f"s1_group_{number}"),
            *(register(name=f"s1_{name}_{number}") for name in (
                "negative", "nan", "infinite", "zero")))
        m.d.sync += [
            present.eq(a.present),
            group.eq(a.group + b.group),
            negative.eq(a.negative ^ b.negative),
            nan.eq((a.kind == Kind.NAN) | (b.kind == Kind.NAN)),
        ]
        if self.geometry.has_infinity:
            m.d.sync += [
                infinite.eq((a.kind == Kind.INFINITE) | (b.kind == Kind.INFINITE)),
                zero.eq((a.kind == Kind.ZERO) | (b.kind == Kind.ZERO)),
            ]
        m.d.comb += [
            flags.group.eq(group),
            flags.negative.eq(negative),
            flags.nan.eq(present & (nan | (infinite & zero))),
            flags.positive_infinity.eq(present & infinite & ~negative),
            flags.negative_infinity.eq(present & infinite & negative),
        ]
        return flags
