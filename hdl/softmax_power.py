"""Softmax, first step: elements of any format become powers of two (rules S1 to S3)."""

from amaranth.hdl import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import shift_right
from .formats import FORMATS, FP32, FormatCode
from .softmax_layouts import Power, power_beat, row_beat
from .softmax_tables import (
    CODE_BASE,
    CODE_EXPONENT,
    CODE_SHIFT,
    FRACTION_WIDTH,
    INTEGER_WIDTH,
    LOG2E,
    LOG2E_FRACTION,
    VALUE_WIDTH,
    exp2_table,
)

__all__ = ["POWER_LATENCY", "Interpolator", "PowerStage"]

POWER_LATENCY = 5

SIGNIFICAND_WIDTH = FP32.significand_width
PRODUCT_WIDTH = SIGNIFICAND_WIDTH + LOG2E.bit_length()
MAGNITUDE_WIDTH = INTEGER_WIDTH - 1 + FRACTION_WIDTH

# A product stands for t * 2^(mantissa + LOG2E_FRACTION - exponent). Moved up so far that exponents
# below CODE_EXPONENT only ever move it down again, it keeps FRACTION_WIDTH bits and a guard.
RISE = (CODE_EXPONENT - 1) + FRACTION_WIDTH + 1 - (SIGNIFICAND_WIDTH - 1) - LOG2E_FRACTION

FLAGS = data.StructLayout({"is_negative": 1, "is_huge": 1, "counts": 1, "is_undefined": 1})
DECODED = data.StructLayout({
    "significand": SIGNIFICAND_WIDTH, "fall": 6, "code": FP32.exponent_width - 1, "flags": FLAGS})


class Interpolator(wiring.Component):
    """A table's value at a fraction: a memory with each segment's line, and a multiplication.

    Members
    -------
    fraction : In(fraction bits of the table)
        Where.
    value : Out(VALUE_WIDTH)
        The value, combinational from the table's entry: in the next cycle.
    """

    def __init__(self, *, table):
        self.table = table
        self.index_width = (table.segments - 1).bit_length()
        super().__init__({
            "fraction": In(table.low_width + self.index_width),
            "value": Out(VALUE_WIDTH),
        })

    def elaborate(self, platform):
        m = Module()
        table = self.table
        entries = [base | slope << table.base_width
                   for base, slope in zip(table.bases, table.slopes, strict=True)]
        m.submodules.entries = entries_memory = memory.Memory(
            shape=table.base_width + table.slope_width, depth=table.segments, init=entries)
        port = entries_memory.read_port()
        s1_low = Signal(table.low_width)
        m.d.comb += port.addr.eq(self.fraction[table.low_width:])
        m.d.sync += s1_low.eq(self.fraction[:table.low_width])

        base = Cat(Const(0, table.low_width), port.data[:table.base_width])
        rise = port.data[table.base_width:] * s1_low
        line = Signal(table.low_width + table.base_width)  # cannot leave it: bases are capped
        m.d.comb += [
            line.eq(base - rise if table.falling else base + rise),
            self.value.eq(line[table.drop_width:]),
        ]
        return m


class PowerLane(wiring.Component):
    """One lane: decode, times log2(e), to fixed point, table, interpolation: a cycle each."""

    def __init__(self, *, table):
        self.table = table
        super().__init__({
            "element": In(32), "format": In(FormatCode), "is_present": In(1),
            "power": Out(Power), "undefined": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        s1 = self._decoded(m)

        # Times log2(e).
        s2_product, s2_fall = Signal(PRODUCT_WIDTH), Signal.like(s1.fall)
        s2_code, s2_flags = Signal(MAGNITUDE_WIDTH - FRACTION_WIDTH), Signal.like(s1.flags)
        m.d.sync += [
            s2_product.eq(s1.significand * LOG2E),
            s2_fall.eq(s1.fall),
            s2_code.eq(Cat(Const(0, CODE_SHIFT), s1.significand[:-1], s1.code)),
            s2_flags.eq(s1.flags),
        ]

        # To fixed point: |t| truncated, and the guard bit.
        shifted, _ = shift_right(m, Cat(Const(0, RISE), s2_product), s2_fall)
        s3_magnitude, s3_guard = Signal(MAGNITUDE_WIDTH), Signal()
        s3_flags = Signal.like(s1.flags)
        is_huge = s2_flags.is_huge
        m.d.sync += [
            s3_magnitude.eq(Mux(is_huge, Cat(Const(0, FRACTION_WIDTH), s2_code), shifted[1:])),
            s3_guard.eq(shifted[0] & ~is_huge),
            s3_flags.eq(s2_flags),
        ]

        # Round and negate in one addition: -(q + g) = ~q + ~g for one bit g.
        t, is_negative = Signal(INTEGER_WIDTH + FRACTION_WIDTH), s3_flags.is_negative
        m.d.comb += t.eq((Cat(s3_magnitude, Const(0, 1)) ^ is_negative.replicate(len(t)))
                         + (s3_guard ^ is_negative))
        m.submodules.exp2 = exp2 = Interpolator(table=self.table)
        m.d.comb += exp2.fraction.eq(t[:FRACTION_WIDTH])
        s4_octave, s4_flags = Signal(INTEGER_WIDTH), Signal.like(s1.flags)
        m.d.sync += [s4_octave.eq(t[FRACTION_WIDTH:]), s4_flags.eq(s3_flags)]

        # The power of the fraction.
        m.d.sync += [
            self.power.value.eq(Mux(s4_flags.counts, exp2.value, 0)),
            self.power.octave.eq(s4_octave),
            self.undefined.eq(s4_flags.is_undefined),
        ]
        return m

    def _decoded(self, m):
        """The element's fields, registered. Subnormals keep their leading zeros."""
        negative, is_special, is_nan = Signal(), Signal(), Signal()
        significand = Signal(SIGNIFICAND_WIDTH)
        exponent = Signal(signed(FP32.exponent_width + 1))
        with m.Switch(self.format):
            for fmt in FORMATS.values():
                with m.Case(fmt.code):
                    mantissa = self.element[:fmt.mantissa_width]
                    biased = self.element[fmt.mantissa_width:fmt.width - 1]
                    hidden = Cat(mantissa, biased.any())
                    m.d.comb += [
                        negative.eq(self.element[fmt.width - 1]),
                        exponent.eq(Mux(biased.any(), biased, 1) - fmt.bias),
                        significand.eq(hidden << (SIGNIFICAND_WIDTH - len(hidden))),
                        is_special.eq(biased.all() & (fmt.ieee | mantissa.all())),
                        is_nan.eq(mantissa.any()),
                    ]
        fall, s1 = CODE_EXPONENT - 1 - exponent, Signal(DECODED, name="s1")
        m.d.sync += [
            s1.significand.eq(significand),
            s1.fall.eq(Mux(fall > 63, 63, fall)),  # 63 leaves nothing
            # The bits from those of 2^CODE_EXPONENT on, and CODE_BASE: both in one exponent field.
            s1.code.eq(exponent - CODE_EXPONENT + (CODE_BASE >> CODE_SHIFT + FP32.mantissa_width)),
            s1.flags.is_negative.eq(negative),
            s1.flags.is_huge.eq(exponent >= CODE_EXPONENT),
            s1.flags.counts.eq(self.is_present & ~is_special),
            s1.flags.is_undefined.eq(self.is_present & is_special & (is_nan | ~negative)),
        ]
        return s1


class PowerStage(wiring.Component):
    """Turns beats of elements into beats of powers, e^x = value * 2^(octave - 17).

    Parameters
    ----------
    lanes : int
        Elements of a beat.
    segments : int
        Segments of the table of 2^f.

    Members
    -------
    i : In(stream of row_beat(lanes), always ready)
        Elements of ``format``; ``format`` and ``result`` are taken along with each beat.
    o : Out(stream of power_beat(lanes), always ready)
        Their powers. Absent elements and -Inf have the value 0.

    Timing
    ------
    One beat per cycle, latency ``POWER_LATENCY`` (5) cycles.
    """

    def __init__(self, *, lanes, segments):
        self.lanes = lanes
        self.segments = segments
        super().__init__({
            "i": In(stream.Signature(row_beat(lanes), always_ready=True)),
            "format": In(FormatCode),
            "result": In(FormatCode),
            "o": Out(stream.Signature(power_beat(lanes), always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        undefined = Signal(self.lanes)
        for i in range(self.lanes):
            m.submodules[f"lane{i}"] = lane = PowerLane(table=exp2_table(self.segments))
            m.d.comb += [
                lane.element.eq(self.i.payload.elements[i]),
                lane.format.eq(self.format),
                lane.is_present.eq(self.i.payload.count > i),
                self.o.payload.powers[i].eq(lane.power),
                undefined[i].eq(lane.undefined),
            ]
        m.d.comb += self.o.payload.undefined.eq(undefined.any())

        # What travels along.
        fields = (self.i.valid, self.i.payload.count, self.i.payload.last, self.result)
        for number in range(1, POWER_LATENCY + 1):
            stage = [Signal.like(field, name=f"s{number}_{name}") for field, name in
                     zip(fields, ("valid", "count", "last", "result"), strict=True)]
            m.d.sync += [new.eq(old) for new, old in zip(stage, fields, strict=True)]
            fields = stage
        valid, count, last, result = fields
        m.d.comb += [
            self.o.valid.eq(valid),
            self.o.payload.count.eq(count),
            self.o.payload.last.eq(last),
            self.o.payload.result.eq(result),
        ]
        return m
