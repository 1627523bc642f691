"""Arithmetic shared by the units; every intermediate width is exact, nothing truncates silently.

Functions that need intermediate signals take the module ``m`` and add combinational logic to it.
"""

from functools import reduce
from operator import or_

from amaranth.hdl import *

__all__ = ["add", "any_of", "delayed", "register", "register_like", "shift_left", "tree_sum"]


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


def shift_left(m, value, amount, *, width):
    """``value << amount`` in ``width`` bits; the bits above are dropped."""
    for place, bit in enumerate(amount):
        shifted = Signal(width)
        m.d.comb += shifted.eq(Mux(bit, Cat(Const(0, 1 << place), value), value))
        value = shifted
    return value
