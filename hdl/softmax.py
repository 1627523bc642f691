"""The softmax unit: rows of elements in, rows of probabilities out (docs/softmax.md).

     i --+-> InputStage -> buffer of numbers -----+
         |                                        v
         +-> Maximum ----> queue of rows ----> Passes --> o
                                                  |
                                                  +-> LogSum --> o_sum
"""

from amaranth.hdl import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import delayed
from .gather import look_up
from .geometry import TARGETS
from .softmax_input import InputStage
from .softmax_layouts import Part, SoftmaxOperation, row_beat, row_sum
from .softmax_log import LogSum
from .softmax_maximum import MAXIMUM_LATENCY, Maximum
from .softmax_memories import NEVER_AT_ONCE
from .softmax_passes import PASS_LATENCY, Passes
from .softmax_rows import ROW_QUEUE, RowQueue, counted
from .softmax_tables import MAX_LENGTH, exp_table, reciprocal_table

__all__ = ["Softmax", "softmax_latency"]

MAX_LANES = 16

# From a row's last beat going in to the beginning of its second pass.
FIRST_LATENCY = 1 + MAXIMUM_LATENCY + 1


def softmax_latency(beats):
    """Cycles from a row's last beat going in to its first coming out."""
    return FIRST_LATENCY + (beats - 1) + PASS_LATENCY


class Softmax(wiring.Component):
    """Computes softmax over rows: p_i = e^(x_i) / sum of e^(x_j), independent of their order.

    Parameters
    ----------
    lanes : int
        Elements of a beat, and so per cycle: a power of two in 1..16.
    max_length : int
        Longest row in elements, ``lanes`` to 16384.
    max_row : int
        Longest row that comes in blocks, ``max_length`` to 16384.
    exp_entries, reciprocal_entries : int
        Entries of the tables of e^-x and of 1/s: powers of two in 2048..16384.
    value_width : int
        Bits of both tables' values, 18 to 22. Up to 18 a product takes one multiplier, two in each
        lane.
    logarithms : bool
        Whether ``o_sum`` is there.
    target : str
        Primitives, see ``Accumulate`` and ``Rom``.

    Members
    -------
    i_operation : In(stream of SoftmaxOperation)
        How many rows, from and to which formats, and what becomes of them: `Part`. Taken with the
        last beat of its last row.
    i : In(stream of row_beat(lanes))
        Rows, one after the other. A row of more than ``max_length`` elements is not allowed, but
        may come as that many in blocks: all for its MAXIMUM, again for its SUM, and again for its
        PROBABILITIES, with nothing between.
    o : Out(stream of row_beat(lanes))
        The rows' probabilities, in beats of the same counts.
    o_sum : Out(stream of row_sum), with ``logarithms``
        For each row, in their order: the logarithm of its sum, its largest element, and whether it
        is undefined; of a row in blocks once, with the first block of its PROBABILITIES. Of a row
        of no elements anything.

    Timing
    ------
    One beat per cycle, in and out at once, a row in each of three passes; no bubble between
    operations or between rows of as many beats. A row's first beat comes out
    ``softmax_latency(beats)`` = beats + 19 cycles after its last went in: 6 to its maximum, beats -
    1 to the last of the second pass, 14 from there, 3 of them after its sum is final; or else right
    behind the row before. A row shorter than the one before it begins its third pass only then, so
    that what follows may be a bubble, of the beats by which a next is longer than it; blocks for a
    maximum wait for nothing, those for a sum for the probabilities before them. ``i.ready``
    falls while no operation waits; while ``o`` is stalled and the buffer (two rows of
    ``max_length`` and more) is full; and while 16 rows wait for their second pass, which without a
    stall only short rows behind a longer one do. After reset everything is empty. ``o`` is
    combinational from an addition's registers; a stall of it goes to clock enables. A row's item
    of ``o_sum`` comes 9 cycles after its sum is final, 6 after its first probability; up to 15 are
    on their way or wait, then the next row's last beat waits in its second pass.

    Numerics
    --------
    docs/softmax.md, rules S1 to S6: one rounding to nearest even, subnormals honoured, NaN
    canonical. Relative error before it at most ``softmax_tables.probability_error``.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not an int, or not a legal one.
    """

    def __init__(self, *, lanes, max_length, exp_entries, reciprocal_entries, value_width,
                 max_row=MAX_LENGTH, logarithms=False, target="generic"):
        for name, value in (("lanes", lanes), ("max_length", max_length), ("max_row", max_row),
                            ("value_width", value_width)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} is an int; got {value!r}")
        if not isinstance(logarithms, bool):
            raise TypeError(f"logarithms is a bool; got {logarithms!r}")
        if not 1 <= lanes <= MAX_LANES or lanes & (lanes - 1):
            raise ValueError(f"lanes is a power of two in 1..{MAX_LANES}; got {lanes}")
        if not lanes <= max_length <= MAX_LENGTH:
            raise ValueError(f"max_length is in lanes..{MAX_LENGTH}; got {max_length}")
        if not max_length <= max_row <= MAX_LENGTH:
            raise ValueError(f"max_row is in max_length..{MAX_LENGTH}; got {max_row}")
        if target not in TARGETS:
            raise ValueError(f"target is one of {TARGETS}; got {target!r}")
        exp_table(exp_entries, value_width)
        reciprocal_table(reciprocal_entries, value_width)
        self.lanes = lanes
        self.max_length = max_length
        self.max_row = max_row
        self.exp_entries = exp_entries
        self.reciprocal_entries = reciprocal_entries
        self.value_width = value_width
        self.logarithms = logarithms
        self.target = target
        super().__init__({
            "i_operation": In(stream.Signature(SoftmaxOperation)),
            "i": In(stream.Signature(row_beat(lanes))),
            "o": Out(stream.Signature(row_beat(lanes))),
            **({"o_sum": Out(stream.Signature(row_sum))} if logarithms else {}),
        })

    def elaborate(self, platform):
        m = Module()
        # Room for a row in the second pass and one in the third, counted a cycle late.
        beats = -(-self.max_length // self.lanes)
        depth = 1 << (beats + softmax_latency(beats)).bit_length()
        passes = Passes(
            lanes=self.lanes, max_length=self.max_length, max_row=self.max_row,
            exp_entries=self.exp_entries,
            reciprocal_entries=self.reciprocal_entries, value_width=self.value_width,
            target=self.target, depth=depth, logarithms=self.logarithms)
        moves = Signal()
        m.submodules.passes = EnableInserter(moves)(passes)
        m.d.comb += [moves.eq(self.o.ready | ~self.o.valid), passes.moves.eq(moves)]
        # The same in a place of its own, near what counts: the other one drives clock enables
        # everywhere.
        counts = moves if self.target == "generic" else look_up(
            m, "counts", [self.o.ready, self.o.valid], lambda ready, valid, *_: ready or not valid)
        ends = Signal()
        m.d.comb += ends.eq(passes.ends & counts)

        # The first pass never stalls: what enters has its place in the buffer and in the queue.
        free_beats = Signal(range(depth + 1), init=depth)
        free_rows = Signal(5, init=ROW_QUEUE)
        operation = self.i_operation.payload
        row = Signal(16)
        is_first_row = Signal(init=1)
        enters = Signal()
        enters_last = Signal()
        m.d.comb += [
            self.i.ready.eq(self.i_operation.valid & free_beats.any() & free_rows.any()),
            enters.eq(self.i.valid & self.i.ready),
            enters_last.eq(enters & self.i.payload.last),
            self.i_operation.ready.eq(enters_last & (row + 1 == operation.rows)),
        ]
        with m.If(enters_last):
            m.d.sync += [
                row.eq(Mux(self.i_operation.ready, 0, row + 1)),
                is_first_row.eq(self.i_operation.ready),
            ]
        left = Signal()
        dropped = Signal()
        ended = Signal()
        m.d.sync += [
            left.eq(self.o.valid & self.o.ready), dropped.eq(passes.drops & counts), ended.eq(ends),
            free_beats.eq(counted(free_beats, left, enters, dropped)),
            free_rows.eq(counted(free_rows, ended, enters_last)),
        ]

        m.submodules.input = input_stage = InputStage(
            lanes=self.lanes, value_width=self.value_width, target=self.target)
        m.d.comb += [
            input_stage.i.valid.eq(enters),
            input_stage.i.payload.eq(self.i.payload),
            input_stage.format.eq(operation.format),
        ]
        self._buffer(m, input_stage.o, passes, moves, depth)
        self._rows(m, input_stage, enters, is_first_row, passes, ends)
        m.d.comb += [
            self.o.valid.eq(passes.o.valid),
            self.o.payload.eq(passes.o.payload),
        ]
        if self.logarithms:
            self._logarithms(m, passes, counts)
        return m

    def _buffer(self, m, i, passes, moves, depth):
        """Keeps the beats of the first pass for the second."""
        m.submodules.buffer = buffer = memory.Memory(
            shape=i.payload.shape(), depth=depth, init=[], attrs=NEVER_AT_ONCE)
        write, read = buffer.write_port(), buffer.read_port()
        m.d.comb += [
            write.en.eq(i.valid), write.data.eq(i.payload),
            read.en.eq(moves),
            passes.numbers.eq(read.data.numbers), passes.nan.eq(read.data.nan),
        ]
        m.d.sync += write.addr.eq(write.addr + i.valid)
        with m.If(moves):
            m.d.sync += read.addr.eq(read.addr + passes.reads)

    def _rows(self, m, input_stage, enters, is_first_row, passes, ends):
        """Finds each row's maximum and hands on the rows."""
        m.submodules.maximum = maximum = Maximum(lanes=self.lanes)
        m.submodules.rows = rows = RowQueue(lanes=self.lanes, max_beats=passes.max_beats)

        operation, beat = self.i_operation.payload, self.i.payload
        cycles = 1 + MAXIMUM_LATENCY
        valid = delayed(m, enters, cycles, "enters", reset_less=False)
        last = delayed(m, beat.last, cycles, "last")
        beats = Signal.like(passes.row.beats)
        is_first_beat = Signal(init=1)
        info = rows.i.payload

        # What begins with this row; of a long one's elements the maximum is among the first time.
        is_whole = operation.part == Part.WHOLE
        begins = {part: is_whole | ((operation.part == part) & operation.first & is_first_row)
                  for part in (Part.MAXIMUM, Part.SUM)}
        adds = is_whole | (operation.part == Part.SUM)
        is_hidden = (operation.part == Part.MAXIMUM) | (operation.part == Part.SUM)
        m.d.comb += [
            maximum.keys.eq(input_stage.keys), maximum.valid.eq(valid),
            maximum.is_first.eq(
                is_first_beat & delayed(m, begins[Part.MAXIMUM], cycles, "begins")),
            rows.i.valid.eq(valid & last),
            info.key.eq(maximum.o), info.beats.eq(beats),
            info.count.eq(delayed(m, beat.count, cycles, "count")),
            info.kind.eq(delayed(m, input_stage.kind, cycles, "kind")),
            info.result.eq(delayed(m, operation.result, cycles, "result")),
            info.hidden.eq(delayed(m, is_hidden, cycles, "hidden")),
            info.adds.eq(delayed(m, adds, cycles, "adds")),
            info.fresh.eq(delayed(m, begins[Part.SUM], cycles, "fresh")),
            passes.row.eq(rows.row), passes.has_row.eq(rows.has_row),
            rows.ends.eq(ends),
        ]
        with m.If(valid):
            m.d.sync += [beats.eq(Mux(last, 0, beats + 1)), is_first_beat.eq(last)]

    def _logarithms(self, m, passes, moves):
        """What is given out of each row beside its probabilities: not held up with them."""
        m.submodules.logs = logs = LogSum(
            entries=self.reciprocal_entries, value_width=self.value_width, max_row=self.max_row,
            target=self.target)
        m.d.comb += [
            passes.may_give.eq(logs.may_begin),
            logs.begins.eq(passes.gives & moves), logs.key.eq(passes.row.key),
            logs.i.valid.eq(passes.o_sum.valid & moves), logs.i.payload.eq(passes.o_sum.payload),
        ]
        wiring.connect(m, logs.o, wiring.flipped(self.o_sum))
