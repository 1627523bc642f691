"""The softmax unit: rows of elements in, rows of probabilities out (docs/softmax.md).

     i --> PowerStage -+-> buffer of beats ------------> Probability (lanes) --> o
                       |                                      ^
                       +-> RowSum --> Reciprocal --> queue of rows
"""

from amaranth.hdl import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .softmax_layouts import Power, RowScale, SoftmaxOperation, row_beat
from .softmax_output import Probability
from .softmax_power import POWER_LATENCY, PowerStage
from .softmax_reciprocal import Reciprocal
from .softmax_sum import RowSum, sum_latency
from .softmax_tables import MAX_LENGTH, exp2_table, reciprocal_table

__all__ = ["Softmax", "softmax_latency"]

ROW_QUEUE = 16  # rows between i and o; more than softmax_latency(MAX_LANES) - 1 never stalls
MAX_LANES = 16


def softmax_latency(lanes):
    """Cycles from a row's last beat going in to its first coming out."""
    return POWER_LATENCY + sum_latency(lanes) + 3


class Softmax(wiring.Component):
    """Computes softmax over rows: p_i = e^(x_i) / sum of e^(x_j), independent of their order.

    Parameters
    ----------
    lanes : int
        Elements of a beat, and so per cycle: a power of two in 1..16.
    max_length : int
        Longest row in elements, ``lanes`` to 16384.
    exp_segments, reciprocal_segments : int
        Segments of the tables of 2^f and of 1/s: powers of two in 16..1024.

    Members
    -------
    i_operation : In(stream of SoftmaxOperation)
        How many rows, from and to which formats. Taken with the last beat of its last row.
    i : In(stream of row_beat(lanes))
        Rows, one after the other. A row of more than ``max_length`` elements is not allowed.
    o : Out(stream of row_beat(lanes))
        The rows' probabilities, in beats of the same counts.

    Timing
    ------
    One beat per cycle, in and out at once; no bubble between operations or between rows of as many
    beats. A row's first beat comes out ``softmax_latency(lanes)`` = 11 + log2(lanes) cycles after
    its last went in, 3 after its sum is final, or else right behind the row before. ``i.ready``
    falls while no operation waits; while ``o`` is stalled and the buffer (a row of ``max_length``
    and more) is full; and while 16 rows are inside, which without a stall only short rows behind a
    longer one can be. After reset everything is empty. ``o`` is combinational from the register
    behind the multipliers.

    Numerics
    --------
    docs/softmax.md, rules S1 to S6: one rounding to nearest even, subnormals honoured, NaN
    canonical. Relative error before it at most ``softmax_tables.probability_error``.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not an int, or not a legal one.

    Source: sums in absolute bins: Demmel and Nguyen, "Parallel reproducible summation", IEEE
    Transactions on Computers 64(7), 2015, section 3; here with exact bins.
    """

    def __init__(self, *, lanes, max_length, exp_segments, reciprocal_segments):
        for name, value in (("lanes", lanes), ("max_length", max_length)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} is an int; got {value!r}")
        if not 1 <= lanes <= MAX_LANES or lanes & (lanes - 1):
            raise ValueError(f"lanes is a power of two in 1..{MAX_LANES}; got {lanes}")
        if not lanes <= max_length <= MAX_LENGTH:
            raise ValueError(f"max_length is in lanes..{MAX_LENGTH}; got {max_length}")
        exp2_table(exp_segments)
        reciprocal_table(reciprocal_segments)
        self.lanes = lanes
        self.max_length = max_length
        self.exp_segments = exp_segments
        self.reciprocal_segments = reciprocal_segments
        super().__init__({
            "i_operation": In(stream.Signature(SoftmaxOperation)),
            "i": In(stream.Signature(row_beat(lanes))),
            "o": Out(stream.Signature(row_beat(lanes))),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.power = power = PowerStage(lanes=self.lanes, segments=self.exp_segments)
        m.submodules.sum = row_sum = RowSum(lanes=self.lanes, max_length=self.max_length)
        m.submodules.reciprocal = reciprocal = Reciprocal(
            max_length=self.max_length, segments=self.reciprocal_segments)
        wiring.connect(m, row_sum.o, reciprocal.i)
        m.d.comb += [
            row_sum.i.payload.eq(power.o.payload),
            row_sum.i.valid.eq(power.o.valid),
        ]

        # The first pass never stalls: what enters has its place in the buffer and in the queue.
        beats = -(-self.max_length // self.lanes)
        depth = 1 << (beats + softmax_latency(self.lanes) - 1).bit_length()
        free_beats, free_rows = Signal(range(depth + 1), init=depth), Signal(5, init=ROW_QUEUE)
        operation, row = self.i_operation.payload, Signal(16)
        enters, enters_last = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(self.i_operation.valid & free_beats.any() & free_rows.any()),
            enters.eq(self.i.valid & self.i.ready),
            enters_last.eq(enters & self.i.payload.last),
            self.i_operation.ready.eq(enters_last & (row + 1 == operation.rows)),
            power.i.valid.eq(enters),
            power.i.payload.eq(self.i.payload),
            power.format.eq(operation.format),
            power.result.eq(operation.result),
        ]
        with m.If(enters_last):
            m.d.sync += row.eq(Mux(self.i_operation.ready, 0, row + 1))

        leaves, leaves_last = Signal(), Signal()
        m.d.sync += [
            free_beats.eq(free_beats - enters + leaves),
            free_rows.eq(free_rows - enters_last + leaves_last),
        ]
        beat = self._buffer(m, power.o, leaves, depth)
        scale, has_row = self._queue(m, reciprocal.o, leaves_last)

        # The second pass.
        s1_valid, s1_last = Signal(), Signal()
        s1_count = Signal.like(beat.count)
        moves = self.o.ready | ~s1_valid
        m.d.comb += [
            leaves.eq(has_row & moves),
            leaves_last.eq(leaves & beat.last),
            self.o.valid.eq(s1_valid),
            self.o.payload.count.eq(s1_count),
            self.o.payload.last.eq(s1_last),
        ]
        with m.If(moves):
            m.d.sync += [s1_valid.eq(has_row), s1_count.eq(beat.count), s1_last.eq(beat.last)]
        for i in range(self.lanes):
            m.submodules[f"probability{i}"] = probability = Probability()
            m.d.comb += [
                probability.moves.eq(moves),
                probability.power.eq(beat.powers[i]),
                probability.scale.eq(scale),
                self.o.payload.elements[i].eq(probability.o),
            ]
        return m

    def _buffer(self, m, i, leaves, depth):
        """The oldest beat of the buffer; it is read anew each cycle until it leaves.

        A row's beats were all written when its reciprocal is there, so a beat is never used in the
        cycle after its writing.
        """
        layout = data.StructLayout({
            "powers": data.ArrayLayout(Power, self.lanes), "count": range(self.lanes + 1),
            "last": 1})
        m.submodules.buffer = buffer = memory.Memory(shape=layout, depth=depth, init=[])
        write, read = buffer.write_port(), buffer.read_port()
        oldest = Signal(range(depth))
        m.d.comb += [
            write.en.eq(i.valid),
            *(write.data[name].eq(i.payload[name]) for name in ("powers", "count", "last")),
            read.addr.eq(oldest + leaves),
        ]
        m.d.sync += [
            write.addr.eq(write.addr + i.valid),
            oldest.eq(read.addr),
        ]
        return read.data

    def _queue(self, m, i, leaves):
        """The scale of the oldest row, and whether there is one; the memory is its register."""
        m.submodules.queue = queue = memory.Memory(shape=RowScale, depth=ROW_QUEUE, init=[])
        write, read = queue.write_port(), queue.read_port(domain="comb")
        rows = Signal(range(ROW_QUEUE + 1))
        m.d.comb += [
            write.en.eq(i.valid),
            write.data.eq(i.payload),
        ]
        m.d.sync += [
            write.addr.eq(write.addr + i.valid),
            read.addr.eq(read.addr + leaves),
            rows.eq(rows + i.valid - leaves),
        ]
        return read.data, rows.any()
