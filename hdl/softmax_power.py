"""Softmax, first step: elements of any format become powers of two (rules S1 to S3)."""

from amaranth.hdl import *
from amaranth.lib import memory, stream, wiring
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


class Interpolator(wiring.Component):
    """A table's value at a fraction: one line of 2 or 3 bytes per segment, and a multiplication.

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

        # Decode. Subnormals keep their leading zeros.
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
        is_huge, fall = exponent >= CODE_EXPONENT, CODE_EXPONENT - 1 - exponent
        s1_significand, s1_fall = Signal(SIGNIFICAND_WIDTH), Signal(6)
        s1_negative, s1_huge, s1_counts, s1_undefined = Signal(), Signal(), Signal(), Signal()
        s1_code = Signal(FP32.exponent_width - 1)
        m.d.sync += [
            s1_significand.eq(significand),
            s1_fall.eq(Mux(fall > 63, 63, fall)),  # 63 leaves nothing
            s1_negative.eq(negative),
            s1_huge.eq(is_huge),
            # The bits from those of 2^CODE_EXPONENT on, and CODE_BASE: both in one exponent field.
            s1_code.eq(exponent - CODE_EXPONENT + (CODE_BASE >> CODE_SHIFT + FP32.mantissa_width)),
            s1_counts.eq(self.is_present & ~is_special),
            s1_undefined.eq(self.is_present & is_special & (is_nan | ~negative)),
        ]

        # Times log2(e).
        s2_product, s2_fall = Signal(PRODUCT_WIDTH), Signal.like(s1_fall)
        s2_negative, s2_huge, s2_counts, s2_undefined = Signal(), Signal(), Signal(), Signal()
        s2_code = Signal(MAGNITUDE_WIDTH - FRACTION_WIDTH)
        m.d.sync += [
            s2_product.eq(s1_significand * LOG2E),
            s2_fall.eq(s1_fall),
            s2_negative.eq(s1_negative),
            s2_huge.eq(s1_huge),
            s2_code.eq(Cat(Const(0, CODE_SHIFT), s1_significand[:-1], s1_code)),
            s2_counts.eq(s1_counts),
            s2_undefined.eq(s1_undefined),
        ]

        # To fixed point: |t| truncated, and the guard bit.
        shifted, _ = shift_right(m, Cat(Const(0, RISE), s2_product), s2_fall)
        s3_magnitude, s3_guard = Signal(MAGNITUDE_WIDTH), Signal()
        s3_negative, s3_counts, s3_undefined = Signal(), Signal(), Signal()
        m.d.sync += [
            s3_magnitude.eq(Mux(s2_huge, Cat(Const(0, FRACTION_WIDTH), s2_code), shifted[1:])),
            s3_guard.eq(shifted[0] & ~s2_huge),
            s3_negative.eq(s2_negative),
            s3_counts.eq(s2_counts),
            s3_undefined.eq(s2_undefined),
        ]

        # Round and negate in one addition: -(q + g) = ~q + ~g for one bit g.
        t = Signal(INTEGER_WIDTH + FRACTION_WIDTH)
        m.d.comb += t.eq((Cat(s3_magnitude, Const(0, 1)) ^ s3_negative.replicate(len(t)))
                         + (s3_guard ^ s3_negative))
        m.submodules.exp2 = exp2 = Interpolator(table=self.table)
        m.d.comb += exp2.fraction.eq(t[:FRACTION_WIDTH])
        s4_octave, s4_counts, s4_undefined = Signal(INTEGER_WIDTH), Signal(), Signal()
        m.d.sync += [
            s4_octave.eq(t[FRACTION_WIDTH:]),
            s4_counts.eq(s3_counts),
            s4_undefined.eq(s3_undefined),
        ]

        # The power of the fraction.
        m.d.sync += [
            self.power.value.eq(Mux(s4_counts, exp2.value, 0)),
            self.power.octave.eq(s4_octave),
            self.undefined.eq(s4_undefined),
        ]
        return m


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
