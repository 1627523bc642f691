"""Operand decoding: a value of any enabled format becomes what the multipliers take."""

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register, register_like, shift_left
from .formats import FormatCode
from .geometry import Kind

__all__ = ["Decoder"]


LOOKS = data.StructLayout({
    "exponent_all": 1, "exponent_any": 1, "mantissa_any": 1, "special": 1})
"""Of a value's fields: all ones, any ones; ``special``: with all ones in the exponent it is none of
the numbers."""


class Decoder(wiring.Component):
    """Turns a value into sign, significand on a byte grid under the anchor, and byte group.

    With e the value's exponent and d = anchor - e >= 0, the operand stands for
    significand * 2^(anchor + 1 - frame) * 256^-group, where group = ceil(d / 8) and significand is
    the value's own, left-aligned to the frame, times 2^(8 group - d). So the multiplier does the
    fine shift and only bytes are left to align. In an ``is_integer`` build group is 0 and
    significand is value / smallest subnormal.

    Parameters
    ----------
    geometry : Geometry
        Of the VPCU; the group is clipped at its ``group_max``.
    formats : sequence of Format
        Formats decoded; the frame is that of a geometry of these alone.

    Members
    -------
    value : In(width of the widest format)
        The bits, right-aligned; those above the format's width are ignored.
    format : In(FormatCode)
        One of ``formats``, else ``o`` is a zero.
    anchor : In(geometry.anchor_shape)
        Not below the exponent of a finite non-zero value.
    o : Out(geometry.operand(frame + geometry.fine, geometry.group_max))
        The operand; a zero, an Inf and a NaN have the significand 0.

    Timing
    ------
    Latency ``DECODE_LATENCY`` (4) cycles, one operand per cycle.

    Numerics
    --------
    Exact; subnormals are not normalised: they have the format's smallest exponent.
    """

    def __init__(self, *, geometry, formats):
        self.geometry = geometry
        self.formats = tuple(formats)
        self.frame = max(f.significand_width + (f.width == 32) for f in self.formats)
        super().__init__({
            "value": In(max(f.width for f in self.formats)),
            "format": In(FormatCode),
            "anchor": In(geometry.anchor_shape),
            "o": Out(geometry.operand(self.frame + geometry.fine, geometry.group_max)),
        })

    def elaborate(self, platform):
        m = Module()

        # Fields by format; the bias goes to the anchor, so that no two sums follow each other, and
        # so do the 7 of ceil(d / 8) = (d + 7) // 8, or the places less d that integers go up.
        negative = Signal()
        looks = Signal(LOOKS)
        significand = Signal(self.frame)
        exponent_width = max(f.exponent_width for f in self.formats)
        more = -self.geometry.fine if self.geometry.is_integer else 7
        # Of a zero the place does not matter: so where there is one format, nothing is chosen.
        exponent = Signal(exponent_width)
        bias_up = Signal(signed(exponent_width + 2), init=self.formats[0].bias + more)
        with m.Switch(self.format):
            for fmt in self.formats:
                with m.Case(fmt.code):
                    mantissa = self.value[:fmt.mantissa_width]
                    biased = self.value[fmt.mantissa_width:fmt.width - 1]
                    is_normal = biased.any()
                    hidden = Cat(mantissa, is_normal)
                    m.d.comb += [
                        negative.eq(self.value[fmt.width - 1]),
                        exponent.eq(Cat(biased[0] | ~is_normal, biased[1:])),
                        bias_up.eq(fmt.bias + more),
                        significand.eq(Cat(Const(0, self.frame - len(hidden)), hidden)),
                        looks.exponent_all.eq(biased.all()),
                        looks.exponent_any.eq(biased.any()),
                        looks.mantissa_any.eq(mantissa.any()),
                        # A special value: in a format without infinities only all ones.
                        looks.special.eq(1 if fmt.ieee else mantissa.all()),
                    ]
        s1_significand = register_like(significand)
        s1_exponent = register_like(exponent)
        # Biased; modulo 2^n, as is the distance that follows, which is below: d + 7 < 2^n.
        s1_anchor = register(signed(len(self.anchor) + 1))
        s1_negative = register()
        s1_looks = register(LOOKS)
        m.d.sync += [
            s1_significand.eq(significand),
            s1_exponent.eq(exponent),
            s1_anchor.eq(self.anchor + bias_up),
            s1_negative.eq(negative),
            s1_looks.eq(looks),
        ]

        s2_reach = register(len(s1_anchor))  # d + 7, or the fine shift of integers
        s2_significand = register_like(significand)
        s2_negative = register()
        s2_kind = register(Kind)
        kind = _kind(s1_looks)
        m.d.sync += [
            s2_reach.eq(s1_exponent - s1_anchor if self.geometry.is_integer
                        else s1_anchor - s1_exponent),
            s2_significand.eq(Mux(kind == Kind.FINITE, s1_significand, 0)),
            s2_negative.eq(s1_negative),
            s2_kind.eq(kind),
        ]

        # Half of the shift in each of two cycles.
        amount, group = self._places(m, s2_reach)
        half = len(amount) // 2
        s3 = register_like(self.o)
        o = register_like(self.o)
        s3_amount = register(half)
        width = len(o.significand)
        m.d.sync += [
            s3_amount.eq(amount),
            s3.significand.eq(shift_left(m, s2_significand, Cat(Const(0, half), amount[half:]),
                                         width=width)),
            s3.group.eq(group),
            s3.negative.eq(s2_negative),
            s3.kind.eq(s2_kind),
            o.eq(s3),
            o.significand.eq(shift_left(m, s3.significand, s3_amount, width=width)),
        ]
        m.d.comb += self.o.eq(o)
        return m

    def _places(self, m, reach):
        """The fine shift and the clipped byte group: d = 8 group - fine shift."""
        geometry = self.geometry
        if geometry.is_integer:
            return reach[:geometry.fine.bit_length()], Const(0)
        group, clip = reach[3:], geometry.group_max
        return ~reach[:3], Mux(group > clip, clip, group)


def _kind(looks):
    """The Kind of a value, from what its fields look like."""
    special = Mux(looks.mantissa_any, Kind.NAN, Kind.INFINITE)
    return Mux(looks.exponent_all & looks.special, special,
               Mux(looks.exponent_any | looks.mantissa_any, Kind.FINITE, Kind.ZERO))
