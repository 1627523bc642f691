"""Softmax, second and third pass: what moves while the output does."""

from typing import NamedTuple

from amaranth.hdl import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import delayed, register, register_like
from .softmax_layouts import final_sum, number, row_beat, row_info
from .softmax_maximum import Reference
from .softmax_memories import NEVER_AT_ONCE
from .softmax_output import UNDEFINED, Probabilities
from .softmax_power import POWER_LATENCY, TERM_LATENCY, Powers
from .softmax_reciprocal import Reciprocal
from .softmax_sum import SUM_LATENCY, RowSum
from .softmax_tables import OCTAVE_WIDTH

__all__ = ["PASS_LATENCY", "Passes"]

REFERENCE_LATENCY = 2
SUM_FINAL = REFERENCE_LATENCY + TERM_LATENCY + SUM_LATENCY
PASS_LATENCY = SUM_FINAL + 3
"""Cycles from the beginning of a row of one beat to its probabilities."""

# The third pass begins so long before the sum is final: a read, and a register behind it.
READ_LATENCY = 2


class Stage(NamedTuple):
    """A beat on its way to the sum: whether there is one, whether it is its row's last, how many
    elements that one has, whether a sum begins with it, of its row whether it does not come
    out, and whether it is part of a sum; and whether the row's sum is given out with it."""

    valid: Value
    last: Value
    count: Value
    begins: Value
    hidden: Value
    adds: Value
    gives: Value


class Beat(NamedTuple):
    """A beat of the third pass: whether there is one, whether it is its row's last, how many
    elements it has, and the results' format."""

    valid: Value
    last: Value
    count: Value
    result: Value


class Passes(wiring.Component):
    """Forms each row's sum, and then its probabilities while the next row's sum is formed.

    Parameters
    ----------
    lanes, max_length, max_row, exp_entries, reciprocal_entries, value_width, logarithms, target
        As in ``Softmax``.
    depth : int
        Beats that the buffer of powers holds.

    Members
    -------
    moves : In(1)
        The clock enable of all of this, which primitives need beside it.
    row : In(row_info(lanes, max_beats)), has_row : In(1)
        The row whose sum is to be formed, and whether there is one.
    reads : Out(1), drops : Out(1)
        A beat of it is read: its numbers come in the next cycle; and it will not come out.
    ends : Out(1)
        It was the last: let go of the row.
    numbers : In(ArrayLayout(number(value_width), lanes)), nan : In(1)
        A beat, and whether one of its elements is a NaN.
    sum_is_final : Out(1)
        The address of the reciprocal's table is that of a finished sum, for the first time.
    o : Out(stream of row_beat(lanes), always ready)
        Probabilities.
    gives : Out(1), may_give : In(1)
        With ``logarithms``: a row's last beat is read whose sum will be given out; it waits for
        that.
    o_sum : Out(stream of final_sum(value_width, max_row), always ready)
        With ``logarithms``: those sums, a cycle after the last beat of a row by itself is in them;
        a long row's with the first block of its probabilities.

    Timing
    ------
    A row of one beat comes out ``PASS_LATENCY`` (14) cycles after its reading: 2 for distances to
    the maximum, 5 to powers, 1 to terms, 3 to the sum (``sum_is_final``), 3 to the probabilities.
    One beat per cycle, in and out at once. A row's last beat waits for the end of the row before it
    at the output, less those cycles, unless it is of no sum and does not come out. The whole is
    held by its clock enable.
    """

    def __init__(self, *, lanes, max_length, max_row, exp_entries, reciprocal_entries, value_width,
                 target, depth, logarithms=False):
        max_beats = self.max_beats = -(-max_length // lanes)
        self.lanes, self.max_length, self.max_row = lanes, max_length, max_row
        self.depth = depth
        self.exp_entries, self.reciprocal_entries = exp_entries, reciprocal_entries
        self.value_width, self.target, self.logarithms = value_width, target, logarithms
        given = {
            "gives": Out(1), "may_give": In(1),
            "o_sum": Out(stream.Signature(
                final_sum(value_width, max_row), always_ready=True))} if logarithms else {}
        super().__init__({
            **given,
            "moves": In(1),
            "row": In(row_info(lanes, max_beats)), "has_row": In(1),
            "reads": Out(1), "drops": Out(1), "ends": Out(1),
            "numbers": In(data.ArrayLayout(number(value_width), lanes)), "nan": In(1),
            "sum_is_final": Out(1),
            "o": Out(stream.Signature(row_beat(lanes), always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        left = Signal(range(self.max_beats))
        stages = self._stages(m, left.any())
        beat = self._beat(m, left)

        # Distances, powers, terms, sum.
        m.submodules.reference = reference = Reference(value_width=self.value_width)
        m.submodules.powers = powers = Powers(
            lanes=self.lanes, entries=self.exp_entries, value_width=self.value_width,
            target=self.target)
        m.submodules.sum = row_sum = RowSum(
            lanes=self.lanes, max_row=self.max_row, value_width=self.value_width,
            target=self.target)
        s2_numbers = register_like(self.numbers)
        s2_nan = register()
        s2_present = register(self.lanes)
        m.d.sync += [
            s2_numbers.eq(self.numbers), s2_nan.eq(self.nan),
            s2_present.eq(Cat(~stages[1].last | (stages[1].count > lane)
                              for lane in range(self.lanes))),
        ]
        adds = stages[SUM_FINAL - 1].valid & stages[SUM_FINAL - 1].adds
        ended = adds & stages[SUM_FINAL - 1].last
        begins = stages[SUM_FINAL - 2].valid & stages[SUM_FINAL - 2].begins
        m.d.comb += [
            powers.moves.eq(self.moves),
            reference.key.eq(self.row.key), reference.kind.eq(self.row.kind),
            powers.reference.eq(reference.o),
            powers.numbers.eq(s2_numbers), powers.present.eq(s2_present),
            row_sum.terms.eq(powers.terms),
            row_sum.valid.eq(adds), row_sum.is_last.eq(ended), row_sum.begins.eq(begins),
        ]
        undefined = self._undefined(m, stages, s2_nan | reference.o.special, begins)

        # The third pass.
        written = stages[POWER_LATENCY + REFERENCE_LATENCY]
        heights, values = self._found(
            m, powers.powers, written.valid & ~written.hidden, beat.valid, undefined)
        is_undefined = register()
        m.d.sync += [self.sum_is_final.eq(ended), is_undefined.eq(undefined)]

        m.submodules.reciprocal = reciprocal = Reciprocal(
            entries=self.reciprocal_entries, value_width=self.value_width, target=self.target)
        m.submodules.probabilities = probabilities = Probabilities(
            lanes=self.lanes, value_width=self.value_width, place_width=len(row_sum.place),
            target=self.target)
        m.d.comb += [
            probabilities.moves.eq(self.moves),
            reciprocal.found.eq(row_sum.found), reciprocal.is_above.eq(row_sum.is_above),
            reciprocal.load.eq(self.sum_is_final),
            probabilities.place.eq(Mux(is_undefined, 0, row_sum.place)),
            probabilities.result.eq(delayed(m, beat.result, READ_LATENCY, "read_result")),
            probabilities.reciprocal.eq(reciprocal.o),
            *(probabilities.powers[lane].height.eq(heights[lane]) for lane in range(self.lanes)),
            *(probabilities.powers[lane].value.eq(values[lane]) for lane in range(self.lanes)),
            self.o.payload.elements.eq(probabilities.o),
        ]
        if self.logarithms:
            self._give(m, stages[SUM_FINAL - 1], ended, row_sum, is_undefined)
        cycles = PASS_LATENCY - SUM_FINAL + READ_LATENCY
        m.d.comb += [
            self.o.valid.eq(delayed(m, beat.valid, cycles, "reads", reset_less=False)),
            self.o.payload.count.eq(delayed(m, beat.count, cycles, "read_count")),
            self.o.payload.last.eq(delayed(m, beat.last, cycles, "read_last")),
        ]
        return m

    def _stages(self, m, busy):
        """What goes with each beat of the second pass, from its reading to the sum."""
        index = Signal(range(self.max_beats))
        is_last = index == self.row.beats
        waits = ~self.row.hidden | self.row.adds  # for whom the reciprocal still serves
        gives = self._gives(m, is_last) if self.logarithms else Const(0)
        m.d.comb += [
            self.reads.eq(self.has_row & ~(is_last & waits & busy) & self._may(gives)),
            self.drops.eq(self.reads & self.row.hidden),
            self.ends.eq(self.reads & is_last),
        ]
        with m.If(self.reads):
            m.d.sync += index.eq(Mux(is_last, 0, index + 1))

        names = Stage._fields[1:]
        now = [is_last, self.row.count, (index == 0) & self.row.fresh, self.row.hidden,
               self.row.adds, gives]
        stages = [Stage(self.reads, *now)]
        for cycle in range(1, SUM_FINAL):
            stage = Stage(Signal(name=f"s{cycle}_valid"), *(
                register_like(value, name=f"s{cycle}_{name}")
                for name, value in zip(names, now, strict=True)))
            m.d.sync += [new.eq(old) for new, old in zip(stage, stages[-1], strict=True)]
            stages.append(stage)
        return stages

    def _gives(self, m, is_last):
        """Whether this beat's row gives out a sum with it: its own, or a long row's before it."""
        is_due = Signal()
        gives = Signal()
        m.d.comb += [
            gives.eq(is_last & ~self.row.hidden & (self.row.adds | is_due)),
            self.gives.eq(self.reads & gives),
        ]
        with m.If(self.ends & (self.row.adds | ~self.row.hidden)):
            m.d.sync += is_due.eq(self.row.hidden)
        return gives

    def _may(self, gives):
        """Whether a beat is not held up by the sum that it gives."""
        return ~gives | self.may_give if self.logarithms else Const(1, 1)

    def _give(self, m, stage, ended, row_sum, undefined):
        """The sum that was final last, when it is given out."""
        fraction = register(self.value_width)
        with m.If(ended):
            m.d.sync += fraction.eq(Mux(row_sum.is_above, row_sum.found[1:], row_sum.found))
        sum_ = self.o_sum.payload
        m.d.sync += self.o_sum.valid.eq(stage.valid & stage.gives)
        m.d.comb += [sum_.fraction.eq(fraction), sum_.place.eq(row_sum.place),
                     sum_.undefined.eq(undefined)]

    def _beat(self, m, left):
        """What the third pass reads: the beats of a row from the reading of its last on.

        So many cycles later as there are from there to the third pass; ``left`` are to come.
        """
        row = self.row
        begins = Signal()
        held = Beat(None, None, register_like(row.count, name="held_count"),
                    register_like(row.result, name="held_result"))
        m.d.comb += begins.eq(self.ends & ~row.hidden)
        with m.If(begins):
            m.d.sync += [left.eq(row.beats), held.count.eq(row.count), held.result.eq(row.result)]
        with m.Elif(left.any()):
            m.d.sync += left.eq(left - 1)
        last = Signal(name="beat_last")
        m.d.comb += last.eq(Mux(begins, row.beats == 0, left == 1))
        now = Beat(begins | left.any(), last,
                   Mux(last, Mux(begins, row.count, held.count), self.lanes),
                   Mux(begins, row.result, held.result))
        cycles = SUM_FINAL - READ_LATENCY
        return Beat(delayed(m, now.valid, cycles, "beat_valid", reset_less=False),
                    *(delayed(m, value, cycles, f"beat_{name}")
                      for name, value in zip(Beat._fields[1:], now[1:], strict=True)))

    def _undefined(self, m, stages, beat_is, begins):
        """Whether the row in the third pass is undefined, a cycle before its sum is final."""
        beat_is = delayed(m, beat_is, SUM_FINAL - 1 - REFERENCE_LATENCY, "undefined")
        last = stages[SUM_FINAL - 1]
        adds = last.valid & last.adds
        row_is = Signal()
        so_far = Signal()
        held = Signal()
        m.d.comb += row_is.eq(beat_is | so_far)
        with m.If(adds):
            m.d.sync += so_far.eq(row_is)
        with m.If(begins):
            m.d.sync += so_far.eq(0)
        with m.If(adds & last.last):
            m.d.sync += held.eq(row_is)
        return Mux(adds & last.last, row_is, held)

    def _found(self, m, powers, writes, reads, undefined):
        """The powers in their order, two cycles after each reading: heights and values."""
        m.submodules.buffer = buffer = memory.Memory(
            shape=powers.shape(), depth=self.depth, init=[], attrs=NEVER_AT_ONCE)
        write, read = buffer.write_port(), buffer.read_port()
        m.d.comb += [write.en.eq(writes), write.data.eq(powers)]
        m.d.sync += [write.addr.eq(write.addr + writes), read.addr.eq(read.addr + reads)]

        found = read.data
        heights = [register(OCTAVE_WIDTH, name=f"height{lane}") for lane in range(self.lanes)]
        values = [register(self.value_width, name=f"value{lane}") for lane in range(self.lanes)]
        for lane in range(self.lanes):
            m.d.sync += [heights[lane].eq(found[lane].height), values[lane].eq(found[lane].value)]
        with m.If(undefined):
            m.d.sync += [height.eq(UNDEFINED) for height in heights]
        return heights, values
