"""Operand decoding: a value of any enabled format becomes what the multipliers take."""

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import shift_left
from .formats import FormatCode
from .geometry import Kind

__all__ = ["Decoder"]


class Decoder(wiring.Component):
    """Turns a value into sign, significand on a byte grid under the anchor, and byte group.

    With e the value's exponent and d = anchor - e >= 0, the operand stands for
    significand * 2^(anchor + 1 - frame) * 256^-group, where group = ceil(d / 8) and significand is
    the value's own, left-aligned to the frame, times 2^(8 group - d). So the multiplier does the
    fine shift and only bytes are left to align.

    Parameters
    ----------
    geometry : Geometry
        Of the VPCU; the group is clipped at its ``group_max``.
    formats : sequence of Format
        Formats decoded; the frame is their longest significand.

    Members
    -------
    value : In(width of the widest format)
        The bits, right-aligned; those above the format's width are ignored.
    format : In(FormatCode)
        One of ``formats``, else ``o`` is a zero.
    anchor : In(geometry.anchor_shape)
        Not below the exponent of a finite non-zero value.
    o : Out(geometry.operand(frame + 7))
        The operand; a zero, an Inf and a NaN have the significand 0.

    Timing
    ------
    Latency ``DECODE_LATENCY`` (2) cycles, one operand per cycle.

    Numerics
    --------
    Exact; subnormals are not normalised: they have the format's smallest exponent.
    """

    def __init__(self, *, geometry, formats):
        self.geometry = geometry
        self.formats = tuple(formats)
        self.frame = max(f.significand_width for f in self.formats)
        super().__init__({
            "value": In(max(f.width for f in self.formats)),
            "format": In(FormatCode),
            "anchor": In(geometry.anchor_shape),
            "o": Out(geometry.operand(self.frame + 7)),
        })

    def elaborate(self, platform):
        m = Module()

        # Fields by format. The exponent is signed and one bit wider than an anchor's.
        negative, kind = Signal(), Signal(Kind)
        significand = Signal(self.frame)
        exponent = Signal(signed(len(self.anchor) + 1))
        with m.Switch(self.format):
            for fmt in self.formats:
                with m.Case(fmt.code):
                    mantissa = self.value[:fmt.mantissa_width]
                    biased = self.value[fmt.mantissa_width:fmt.width - 1]
                    is_normal = biased.any()
                    hidden = Cat(mantissa, is_normal)
                    m.d.comb += [
                        negative.eq(self.value[fmt.width - 1]),
                        exponent.eq(Mux(is_normal, biased, 1) - fmt.bias),
                        significand.eq(Cat(Const(0, self.frame - len(hidden)), hidden)),
                        kind.eq(_kind(fmt, mantissa, biased)),
                    ]
        s1_rise = Signal(signed(len(exponent) + 1))  # -d
        s1_significand, s1_negative, s1_kind = (
            Signal.like(significand), Signal.like(negative), Signal(Kind))
        m.d.sync += [
            s1_rise.eq(exponent - self.anchor),
            s1_significand.eq(Mux(kind == Kind.FINITE, significand, 0)),
            s1_negative.eq(negative),
            s1_kind.eq(kind),
        ]

        # d = 8 group - fine.
        group = Signal(range(1 << (len(s1_rise) - 3)))
        m.d.comb += group.eq(-(s1_rise >> 3))
        clip = self.geometry.group_max
        m.d.sync += [
            self.o.significand.eq(shift_left(m, s1_significand, s1_rise[:3], width=self.frame + 7)),
            self.o.group.eq(Mux(group > clip, clip, group)),
            self.o.negative.eq(s1_negative),
            self.o.kind.eq(s1_kind),
        ]
        return m


def _kind(fmt, mantissa, biased):
    """The Kind of a value of the format, from its stored fields."""
    if fmt.ieee:
        special = Mux(mantissa.any(), Kind.NAN, Kind.INFINITE)
        return Mux(biased.all(), special, Mux((biased | mantissa).any(), Kind.FINITE, Kind.ZERO))
    is_nan = biased.all() & mantissa.all()
    return Mux(is_nan, Kind.NAN, Mux((biased | mantissa).any(), Kind.FINITE, Kind.ZERO))
