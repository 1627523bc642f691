"""What fp32 arithmetic shares: fields, shifts that lose nothing unseen, and the one rounding."""

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register
from .formats import FP32

__all__ = ["FLOAT", "PACK_LATENCY", "UNROUNDED", "FloatPack", "effective", "shift_right",
           "skip_zeros"]

PACK_LATENCY = 2

FLOAT = data.StructLayout({
    "mantissa": FP32.mantissa_width, "exponent": FP32.exponent_width, "negative": 1})
"""An fp32 value by its fields."""

UNROUNDED = data.StructLayout({
    "sticky": 1, "guard": 1, "significand": FP32.significand_width,
    "exponent": FP32.exponent_width, "negative": 1, "nan": 1, "infinite": 1})
"""A result on fp32's grid, with the next bit and whether any bit follows that.

``exponent``: biased; without the significand's upper bit, which says that the value is normal, it
means nothing. Neither do the numbers of a NaN and of an infinity.
"""


def effective(exponent):
    """The biased exponent that a value's bits have: a subnormal's is 1."""
    return Cat(exponent[0] | ~exponent.any(), exponent[1:])


def shift_right(m, value, sticky, amount):
    """(the value moved down, ``sticky`` or whether a bit dropped out of it).

    ``amount``: its bits, each with how far it moves, the farthest first.
    """
    for step, bit in amount:
        moved = Signal(len(value), name=f"moved{step}")
        m.d.comb += moved.eq(Mux(bit, value[step:], value))
        sticky |= bit & value[:step].any()
        value = moved
    return value, sticky


def skip_zeros(m, value, room, step):
    """(the value without ``step`` leading zeros if it has them, the room left, whether it had).

    ``room``: how many may be skipped, below 2 * ``step``; as many bits as that takes.
    """
    place = step.bit_length() - 1
    skips = Signal(name=f"skips{step}")
    skipped = Signal(len(value), name=f"skipped{step}")
    m.d.comb += [
        skips.eq(room[place] & ~value[-step:].any()),
        skipped.eq(Mux(skips, value << step, value)),
    ]
    # Who could have skipped more than is left to do may do all that is left.
    return skipped, room[:place] | (room[place] & ~skips).replicate(place), skips


class FloatPack(wiring.Component):
    """Rounds a result to fp32.

    Members
    -------
    i : In(UNROUNDED)
        The result.
    o : Out(32)
        The value's bits.

    Timing
    ------
    Latency ``PACK_LATENCY`` (2) cycles, one value per cycle.

    Numerics
    --------
    To nearest, ties to even; beyond the largest finite value Inf. A NaN is the canonical one.
    """

    i: In(UNROUNDED)
    o: Out(FP32.width)

    def elaborate(self, platform):
        m = Module()
        # Exponent and mantissa side by side: a carry out of the mantissa is the exponent's.
        hidden = self.i.significand[-1]
        fields = Cat(self.i.significand[:-1], self.i.exponent & hidden.replicate(
            FP32.exponent_width))
        s1_fields = register(FP32.width - 1)
        s1_negative = register()
        s1_nan = register()
        s1_infinite = register()
        m.d.sync += [
            s1_fields.eq(fields + (
                self.i.guard & (self.i.sticky | self.i.significand[0]))),
            s1_negative.eq(self.i.negative & ~self.i.nan),
            s1_nan.eq(self.i.nan), s1_infinite.eq(self.i.infinite),
        ]
        o = register(FLOAT)
        exponent = s1_fields[FP32.mantissa_width:]
        special = s1_nan | s1_infinite
        m.d.sync += [
            o.negative.eq(s1_negative),
            o.exponent.eq(exponent | special.replicate(FP32.exponent_width)),
            o.mantissa.eq(s1_fields),
        ]
        with m.If(special | exponent.all()):
            m.d.sync += o.mantissa.eq(s1_nan << (FP32.mantissa_width - 1))
        m.d.comb += self.o.eq(o)
        return m
