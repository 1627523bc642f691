"""Arithmetic shared by the units; every intermediate width is exact, nothing truncates silently.

Functions that need intermediate signals take the module ``m`` and add combinational logic to it.
"""

from functools import reduce
from operator import or_

from amaranth.hdl import *

__all__ = ["add", "any_of", "delayed", "normalise", "register", "register_like", "shift_left",
           "shift_right", "tree_sum"]


def register(shape=1, **options):
    """A signal for data, which say nothing by themselves: reset leaves it alone.

    A wire from the reset to every register is the longest of a design, and there is no need for it
    where something else says whether the data count.
    """
    return Signal(shape, reset_less=True, src_loc_at=1, **options)


def register_like(value, **options):
    """A `register` of the shape of a value."""
    return Signal.like(value, reset_less=True, src_loc_at=1, **options)


def add(a, b, carry):
    """a + b + carry, which Yosys maps to one carry chain."""
    return (Cat(Const(1, 1), a) + Cat(carry, b))[1:]


def any_of(values):
    """The OR of the bits, or of the values bit by bit; 0 of none."""
    return reduce(or_, values, Const(0, 1))


def delayed(m, value, cycles, name, *, reset_less=True):
    """``value``, ``cycles`` later; the registers are called ``s1_name``, ``s2_name``, ..."""
    for number in range(1, cycles + 1):
        stage = Signal.like(value, name=f"s{number}_{name}", reset_less=reset_less)
        m.d.sync += stage.eq(value)
        value = stage
    return value


def tree_sum(values):
    """The sum of a non-empty sequence, as a balanced tree."""
    values = list(values)
    while len(values) > 1:
        pairs = [a + b for a, b in zip(values[::2], values[1::2], strict=False)]
        values = pairs + values[len(values) & ~1:]
    return values[0]


def shift_right(m, value, amount, *, unit=1):
    """``value >> (amount * unit)`` for unsigned values: (shifted, whether a set bit dropped out).

    One level of multiplexers for each bit of ``amount``; the result is as wide as ``value``.
    """
    width, lost = len(value), Const(0, 1)
    for place, bit in enumerate(amount):
        step = min(unit << place, width)
        shifted = Signal(width)
        dropped = Signal()
        m.d.comb += [
            shifted.eq(Mux(bit, value[step:], value)),
            dropped.eq(lost | (bit & value[:step].any())),
        ]
        value, lost = shifted, dropped
    return value, lost


def shift_left(m, value, amount, *, width):
    """``value << amount`` in ``width`` bits; the bits above are dropped."""
    for place, bit in enumerate(amount):
        shifted = Signal(width)
        m.d.comb += shifted.eq(Mux(bit, Cat(Const(0, 1 << place), value), value))
        value = shifted
    return value


def normalise(m, value, steps):
    """Shift ``value`` left by each of ``steps`` that its leading zeros allow, in that order.

    Returns (shifted, by how much). The steps 2^n .. 2, 1 bring the leading one to the top of a
    value of at most 2^(n+1) bits, and the amount is its count of leading zeros; an all-zero value
    stays zero.
    """
    width, taken = len(value), []
    for step in steps:
        shifted = Signal(width)
        is_clear = Signal()
        if step < width:
            m.d.comb += [
                is_clear.eq(~value[width - step:].any()),
                shifted.eq(Mux(is_clear, Cat(Const(0, step), value), value)),
            ]
            value = shifted
            taken.append(Mux(is_clear, step, 0))
    return value, tree_sum(taken) if taken else Const(0)
