"""Softmax, second step: the row's sum over its two highest bins, exact in any order (rule S4)."""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import shift_left
from .formats import FormatCode
from .softmax_layouts import KEY_WIDTH, TERM_WIDTH, power_beat, row_sum, sum_width
from .softmax_tables import BIN_WIDTH

__all__ = ["RowSum", "sum_latency"]


def sum_latency(lanes):
    """Cycles from a row's last beat to its sum: align, a level of the tree each, collect, join."""
    return 3 + (lanes - 1).bit_length()


def partial_sum(terms):
    """The sum of up to so many terms: key of the highest bin, sum in it, sum in the next lower."""
    return data.StructLayout({
        "key": KEY_WIDTH, "high": sum_width(terms), "low": sum_width(terms)})


class Merger(wiring.Component):
    """Adds two partial sums; what is in neither the higher of both bins nor the next is left out.

    Which elements those are follows from the highest bin alone, so the order does not matter.
    """

    def __init__(self, *, terms_a, terms_b, terms_o):
        super().__init__({
            "a": In(partial_sum(terms_a)), "b": In(partial_sum(terms_b)),
            "o": Out(partial_sum(terms_o)),
        })

    def elaborate(self, platform):
        m = Module()
        lead = Signal(signed(KEY_WIDTH + 1))
        m.d.comb += lead.eq(self.a.key - self.b.key)
        is_a_top, is_b_top = lead >= 0, lead <= 0

        def low(part, is_top, is_next):
            return Mux(is_top, part.low, Mux(is_next, part.high, 0))

        m.d.comb += [
            self.o.key.eq(Mux(is_a_top, self.a.key, self.b.key)),
            self.o.high.eq(Mux(is_a_top, self.a.high, 0) + Mux(is_b_top, self.b.high, 0)),
            self.o.low.eq(low(self.a, is_a_top, lead == -1) + low(self.b, is_b_top, lead == 1)),
        ]
        return m


class RowSum(wiring.Component):
    """Adds up a row's powers: sum = sum of value * 2^(octave - 32 (top bin - 1)).

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    max_length : int
        Longest row, in elements.

    Members
    -------
    i : In(stream of power_beat(lanes), always ready)
        Powers.
    o : Out(stream of row_sum(max_length), always ready)
        One for each row.

    Timing
    ------
    One beat per cycle; a row's sum comes ``sum_latency(lanes)`` cycles after its last beat.

    Numerics
    --------
    Exact over the bins h and h - 1, h the highest of any element that counts. If there is none the
    row is undefined.
    """

    def __init__(self, *, lanes, max_length):
        self.lanes = lanes
        self.max_length = max_length
        super().__init__({
            "i": In(stream.Signature(power_beat(lanes), always_ready=True)),
            "o": Out(stream.Signature(row_sum(max_length), always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        beat = self.i.payload

        # Align each power to its bin.
        parts = []
        for i in range(self.lanes):
            power = beat.powers[i]
            part = Signal(partial_sum(1), name=f"s1_part{i}")
            shift, number = power.octave[:BIN_WIDTH], power.octave[BIN_WIDTH:]
            m.d.sync += [
                part.key.eq(Mux(power.value.any(), Cat(number[:-1], ~number[-1], 1), 0)),
                part.high.eq(shift_left(m, power.value, shift, width=TERM_WIDTH)),
            ]
            parts.append(part)

        # Merge the lanes, by pairs.
        terms = 1
        while len(parts) > 1:
            merged = []
            for i in range(len(parts) // 2):
                m.submodules[f"merge{2 * terms}_{i}"] = merger = Merger(
                    terms_a=terms, terms_b=terms, terms_o=2 * terms)
                part = Signal(partial_sum(2 * terms), name=f"s{2 * terms}_part{i}")
                m.d.comb += [merger.a.eq(parts[2 * i]), merger.b.eq(parts[2 * i + 1])]
                m.d.sync += part.eq(merger.o)
                merged.append(part)
            parts, terms = merged, 2 * terms
        valid, last, undefined, result = self._delayed(m, sum_latency(self.lanes) - 2)

        # Collect the beats of the row.
        m.submodules.collect = collect = Merger(
            terms_a=self.max_length, terms_b=terms, terms_o=self.max_length)
        so_far, so_far_undefined = Signal(partial_sum(self.max_length)), Signal()
        is_first, is_done, done_result = Signal(init=1), Signal(), Signal(FormatCode)
        m.d.comb += [
            collect.a.eq(Mux(is_first, 0, so_far.as_value())),
            collect.b.eq(parts[0]),
        ]
        m.d.sync += [is_done.eq(valid & last), done_result.eq(result)]
        with m.If(valid):
            m.d.sync += [
                so_far.eq(collect.o),
                so_far_undefined.eq(undefined | (so_far_undefined & ~is_first)),
                is_first.eq(last),
            ]

        # Join both bins.
        row = self.o.payload
        m.d.sync += [
            self.o.valid.eq(is_done),
            row.sum.eq(Cat(Const(0, 1 << BIN_WIDTH), so_far.high) + so_far.low),
            row.key.eq(so_far.key),
            row.undefined.eq(so_far_undefined | (so_far.key == 0)),
            row.result.eq(done_result),
        ]
        return m

    def _delayed(self, m, cycles):
        """Valid, last, undefined and result of the beat that many cycles ago."""
        beat = self.i.payload
        fields = (self.i.valid, beat.last, beat.undefined, beat.result)
        for number in range(1, cycles + 1):
            stage = [Signal.like(field, name=f"d{number}_{name}") for field, name in
                     zip(fields, ("valid", "last", "undefined", "result"), strict=True)]
            m.d.sync += [new.eq(old) for new, old in zip(stage, fields, strict=True)]
            fields = stage
        return fields
