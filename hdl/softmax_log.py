"""Softmax, beside the third pass: the logarithm of each row's sum, and its maximum (rule S7)."""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import add, delayed, register
from .formats import FP32
from .queue import Queue
from .softmax_layouts import KEY_WIDTH, final_sum, row_sum
from .softmax_memories import shared_lookups
from .softmax_rows import counted
from .softmax_tables import LOG_GUARD_WIDTH, log_octaves, log_table

__all__ = ["LOG_LATENCY", "LogSum", "Logarithm"]

LOG_LATENCY = 7
ITEMS = 15                  # that may be on their way or wait: each queue holds one more
COARSE = (16, 8)            # shifts of a stage of its own


class Logarithm(wiring.Component):
    """The logarithm of a sum, rounded once: ln S = fp32( m * ln 2 + T(1) - T(s) ).

    Parameters
    ----------
    entries, value_width : int
        Of the table of -ln(s / 2).
    max_row : int
        Longest row, in elements.
    target : str
        Primitives, see ``Rom``.

    Members
    -------
    i : In(final_sum(value_width, max_row))
        s less 1 as ``fraction``, m as ``place``; of undefined rows both are any.
    o : Out(32)
        ln S, the bits of an fp32 number; of undefined rows the canonical NaN.

    Timing
    ------
    Latency ``LOG_LATENCY`` (7) cycles, one sum per cycle.

    Numerics
    --------
    One rounding, to nearest even; ``softmax_tables.log_error`` bounds what comes before it. Exactly
    0 for a sum of 1, and never below.
    """

    def __init__(self, *, entries, value_width, max_row, target="generic"):
        self.entries, self.value_width, self.target = entries, value_width, target
        super().__init__({"i": In(final_sum(value_width, max_row)), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        width, table = self.value_width, log_table(self.entries, self.value_width)
        fraction = self.i.fraction
        base, fall = (found for name, words, bits, address in (
            ("bases", table.bases, table.base_width, fraction[table.offset_width:]),
            ("falls", table.falls, table.fall_width,
             Cat(fraction[:table.offset_width],
                 fraction[table.input_width - table.segment_width:])))
            for found in shared_lookups(m, name, words, bits, [address], target=self.target))

        # T(s), beside it m * ln 2 + T(1); then their difference, which is not negative.
        first = table.value(0) << LOG_GUARD_WIDTH
        octaves = [octave + first for octave in log_octaves(width)]
        s2_place = delayed(m, self.i.place, 2, "place")
        s3_value = register(width)
        s3_octave = register(range(max(octaves) + 1))
        s4_log = register(range(max(octaves) + 1))
        m.d.sync += [
            s3_value.eq((base - fall)[table.base_width - width:]),
            s3_octave.eq(Array(octaves)[s2_place]),
            s4_log.eq(s3_octave - Cat(Const(0, LOG_GUARD_WIDTH), s3_value)),
        ]
        undefined = delayed(m, self.i.undefined, LOG_LATENCY - 1, "undefined")
        m.d.comb += self.o.eq(self._rounded(m, s4_log, width + LOG_GUARD_WIDTH, undefined))
        return m

    def _rounded(self, m, number, fraction_width, undefined):
        """The fp32 number of a fixed-point one three cycles later: its lead up, then rounded."""
        mantissa = FP32.mantissa_width + 1
        # Below the number there are zeros: what is rounded is at least a mantissa and two bits.
        padding = max(0, mantissa + 2 - len(number))
        moved = Cat(Const(0, padding), number)
        top = len(moved) - 1 - fraction_width - padding + FP32.bias
        places = 1 << (len(moved) - 1).bit_length() - 1
        down = []
        while places:
            is_low = Signal(name=f"is_low{places}")
            following = Signal(len(moved), name=f"moved{places}")
            m.d.comb += [
                is_low.eq(~moved[len(moved) - places:].any()),
                following.eq(Mux(is_low, Cat(Const(0, places), moved), moved)),
            ]
            down.insert(0, is_low)
            moved = following
            if places in (COARSE[-1], 1):
                stage = register(len(moved), name=f"below{places}_moved")
                shifts = register(len(down), name=f"below{places}_down")
                m.d.sync += [stage.eq(moved), shifts.eq(Cat(down))]
                moved, down = stage, [*shifts]
            places >>= 1
        kept, rest = moved[len(moved) - mantissa:], moved[:len(moved) - mantissa]
        is_up = rest[-1] & (rest[:-1].any() | kept[0])
        exponent = Signal(8)
        s7_bits = register(32)
        m.d.comb += exponent.eq(top - Cat(down))
        m.d.sync += s7_bits.eq(add(Cat(kept[:-1], exponent, Const(0, 1)), Const(0, 1), is_up))
        with m.If(~kept[-1]):
            m.d.sync += s7_bits.eq(0)
        with m.If(undefined):
            m.d.sync += s7_bits.eq(FP32.nan_bits)
        return s7_bits


class LogSum(wiring.Component):
    """Gives out the logarithm of each row's sum together with the row's maximum.

    Parameters
    ----------
    entries, value_width, max_row, target
        As in `Logarithm`.

    Members
    -------
    may_begin : Out(1)
        An item may be begun in this cycle.
    begins : In(1), key : In(KEY_WIDTH)
        It is, and its row's largest key.
    i : In(stream of final_sum(value_width, max_row), always ready)
        The sums of those rows, later, in their order.
    o : Out(stream of row_sum)
        The items.

    Timing
    ------
    ``LOG_LATENCY`` + 2 (9) cycles from a sum to its item, one per cycle. Up to ``ITEMS`` (15) are
    on their way or wait; nothing is lost if no item is begun while there is no place for it.
    """

    def __init__(self, *, entries, value_width, max_row, target="generic"):
        self.logarithm = Logarithm(entries=entries, value_width=value_width,
                                   max_row=max_row, target=target)
        super().__init__({
            "may_begin": Out(1), "begins": In(1), "key": In(KEY_WIDTH),
            "i": In(stream.Signature(final_sum(value_width, max_row), always_ready=True)),
            "o": Out(stream.Signature(row_sum)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.logarithm = logarithm = self.logarithm
        m.submodules.keys = keys = Queue(unsigned(KEY_WIDTH), after=0)
        m.submodules.logs = logs = Queue(unsigned(33), after=0)
        free = Signal(range(ITEMS + 1), init=ITEMS)
        takes = Signal()
        m.d.comb += [
            self.may_begin.eq(free.any()),
            keys.i.valid.eq(self.begins), keys.i.payload.eq(self.key),
            logarithm.i.eq(self.i.payload),
            logs.i.valid.eq(delayed(m, self.i.valid, LOG_LATENCY, "valid", reset_less=False)),
            logs.i.payload.eq(Cat(logarithm.o, delayed(
                m, self.i.payload.undefined, LOG_LATENCY, "undefined"))),
            # A key is there long before its logarithm.
            self.o.valid.eq(logs.o.valid),
            self.o.payload.log_sum.eq(logs.o.payload[:32]),
            self.o.payload.undefined.eq(logs.o.payload[32]),
            self.o.payload.maximum.eq(keys.o.payload),
            takes.eq(logs.o.valid & self.o.ready),
            logs.o.ready.eq(self.o.ready), keys.o.ready.eq(takes),
        ]
        m.d.sync += free.eq(counted(free, takes, self.begins))
        return m
