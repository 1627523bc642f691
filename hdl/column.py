"""One column of a lane: a multiplier's products, aligned by bytes, into one accumulator."""

from itertools import pairwise

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .accumulate import Accumulate
from .arithmetic import any_of, delayed, register, register_like

__all__ = ["Column", "product_flags"]

STEP = 32
"""Bits between the places of the second step of alignment; the first one is by 0 to 3 bytes."""


def product_flags(geometry):
    """What goes with a product to its column."""
    return data.StructLayout({
        "group": range(geometry.group_max + geometry.slot_group_max + 1), "negative": 1,
        "nan": 1, "positive_infinity": 1, "negative_infinity": 1,
    })


class Column(wiring.Component):
    """Aligns products, adds them to one accumulator, and keeps a finished sum for the drain.

    ::

        product -> >> 0..3 bytes -> >> 0, 32, .. bits -> (+-) -> accumulator --capture--> drained
                                      `-> lost             ^---------'

    ``product`` and ``flags`` come together, ``clear`` two cycles later, with the addition. There
    is one in each cycle: where nothing is to be added, it is zero. The upper half adds two cycles
    after the lower one; the lower sum then waits for a cycle, so that of ``drained`` the upper half
    is a cycle behind the rest.
    """

    def __init__(self, *, geometry):
        self.geometry = geometry
        super().__init__({
            "product": In(2 * geometry.multiplier_width),
            "flags": In(product_flags(geometry)),
            "clear": In(1), "capture": In(1),
            "drained": Out(geometry.drained),
        })

    def elaborate(self, platform):
        m = Module()
        geometry = self.geometry
        width = geometry.magnitude_width

        # Place the product in the window; what falls out below is dropped, and said (rule N4).
        # Above, only the headroom and bits that no product reaches are cut off (product_place).
        s1_product, s1_flags = self._shift_bytes(m)
        s2_magnitude = register(width)
        s2_flags = register_like(s1_flags)
        m.d.sync += [s2_magnitude.eq(self._place(m, s1_product, s1_flags.group[2:])),
                     s2_flags.eq(s1_flags)]
        s2_lost = self._lost(m, s1_product, s2_flags.group[2:])

        # Accumulate; max_k products stay within the window. The upper half adds two cycles later:
        # its chain may be placed far away, and so the carry has a register at either end.
        half = geometry.lower_width
        s3 = register(geometry.drained)
        s4 = register(geometry.drained)
        drained = register(geometry.drained)
        s3_carry = register()
        s4_capture = register()
        lower = self._add(m, "lower", s3.sum[:half], self.clear, s2_magnitude[:half],
                          s2_flags.negative, s2_flags.negative)
        upper = self._add(m, "upper", s4.sum[half:], *(
            delayed(m, value, cycles, f"upper_{name}") for name, value, cycles in (
                ("clear", self.clear, 2), ("magnitude", s2_magnitude[half:], 2),
                ("negative", s2_flags.negative, 2), ("carry", s3_carry, 1))))
        m.d.sync += [
            Cat(s3.sum[:half], s3_carry).eq(lower), s4.sum[:half].eq(s3.sum[:half]),
            s4.sum[half:].eq(upper), s4_capture.eq(self.capture),
        ]
        for name, value in (("nan", s2_flags.nan), ("lost", s2_lost),
                            ("positive_infinity", s2_flags.positive_infinity),
                            ("negative_infinity", s2_flags.negative_infinity)):
            m.d.sync += [s3[name].eq((s3[name] & ~self.clear) | value), s4[name].eq(s3[name])]
            with m.If(self.capture):
                m.d.sync += drained[name].eq(s4[name])
        for part, captures in ((slice(0, half), self.capture), (slice(half, None), s4_capture)):
            with m.If(captures):
                m.d.sync += drained.sum[part].eq(s4.sum[part])
        m.d.comb += self.drained.eq(drained)
        return m

    def _add(self, m, name, total, clear, magnitude, negative, carry):
        """Half of an addition: its sum, and the carry above."""
        m.submodules[name] = adder = Accumulate(
            width=len(total), magnitude_width=len(magnitude), target=self.geometry.target)
        m.d.comb += [
            adder.sum.eq(total), adder.clear.eq(clear), adder.magnitude.eq(magnitude),
            adder.negative.eq(negative), adder.carry.eq(carry),
        ]
        return adder.o

    def _shift_bytes(self, m):
        """The product with three bytes below it, shifted right by the group modulo 4."""
        s1_flags = register_like(self.flags)
        product = self.product
        m.d.sync += s1_flags.eq(self.flags)
        if self.geometry.is_integer:
            s1_product = register_like(product)
            m.d.sync += s1_product.eq(product)
            return s1_product, s1_flags
        s1_product = register(len(product) + 24)
        with m.Switch(self.flags.group[:2]):
            for bytes_down in range(4):
                with m.Case(bytes_down):
                    m.d.sync += s1_product.eq(product << (24 - 8 * bytes_down))
        return s1_product, s1_flags

    def _place(self, m, product, step):
        """``product`` moved down by 32 bits for each ``step``."""
        geometry = self.geometry
        width = geometry.magnitude_width
        if geometry.is_integer:
            return Cat(Const(0, geometry.product_place), product)[:width]
        # A place of the window sees one bit of the product for each step: at most two of 60 bits.
        sources = [[] for _ in range(width)]
        for number in range(1 << len(step)):
            selected = Signal(name=f"is_step_{number}")
            m.d.comb += selected.eq(step == number)
            low = self._lowest(number)
            for place in range(max(0, low), min(width, low + len(product))):
                sources[place].append(selected & product[place - low])
        return Cat(any_of(bits) for bits in sources)

    def _lost(self, m, product, step):
        """Whether bits fall out below; of the product before a register, the step behind it."""
        if self.geometry.is_integer:
            return Const(0)
        drops = {number: min(max(0, -self._lowest(number)), len(product))
                 for number in range(1 << len(step))}
        ends = sorted({0, *drops.values()})
        # Bits that drop out at one step do so at every later one: or them once.
        parts = register(len(ends) - 1, name="s2_dropped")
        m.d.sync += parts.eq(Cat(product[low:high].any()
                                 for low, high in pairwise(ends)))
        return any_of((step == number) & parts[:ends.index(end)].any()
                      for number, end in drops.items() if end)

    def _lowest(self, step):
        """The place of the product's lowest bit at a step."""
        return self.geometry.product_place - 24 - STEP * step
