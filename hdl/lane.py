"""One lane: four multipliers, byte alignment into the window, accumulators."""

from itertools import pairwise

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .accumulate import Accumulate
from .arithmetic import any_of, delayed
from .geometry import Kind
from .multiplier import MULTIPLIER_LATENCY, Multiplier

__all__ = ["COLUMNS", "Lane", "broadcast"]

COLUMNS = 4
"""Accumulators of a lane: one for each of its multipliers."""

STEP = 32
"""Bits between the places of the second step of alignment; the first one is by 0 to 3 bytes."""


def broadcast(geometry):
    """The operand of A that all lanes get, and what they are to do with it.

    ``high`` is the factor of the multipliers 0 and 1, ``low`` that of 2 and 3: in fp32 mode the
    halves of the operand, else both all of it. ``clear``: the accumulators start from zero;
    ``present``: there is an element (else the factors are zero, and its product nothing at all).
    """
    width = geometry.multiplier_width
    return data.StructLayout({
        "high": width, "low": width, "group": range(geometry.group_max + 1), "negative": 1,
        "kind": Kind, "clear": 1, "present": 1,
    })


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
    is one in each cycle: where nothing is to be added, it is zero.
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
        s2_magnitude, s2_flags = Signal(width), Signal.like(s1_flags)
        m.d.sync += [s2_magnitude.eq(self._place(m, s1_product, s1_flags.group[2:])),
                     s2_flags.eq(s1_flags)]
        s2_lost = self._lost(m, s1_product, s2_flags.group[2:])

        # Accumulate; max_k products stay within the window.
        m.submodules.adder = adder = Accumulate(
            width=geometry.accumulator_width, magnitude_width=width, target=geometry.target)
        s3 = Signal(geometry.drained)
        m.d.comb += [
            adder.sum.eq(s3.sum), adder.clear.eq(self.clear),
            adder.magnitude.eq(s2_magnitude), adder.negative.eq(s2_flags.negative),
        ]
        m.d.sync += s3.sum.eq(adder.o)
        for name, value in (("nan", s2_flags.nan), ("lost", s2_lost),
                            ("positive_infinity", s2_flags.positive_infinity),
                            ("negative_infinity", s2_flags.negative_infinity)):
            m.d.sync += s3[name].eq((s3[name] & ~self.clear) | value)

        with m.If(self.capture):
            m.d.sync += self.drained.eq(s3)
        return m

    def _shift_bytes(self, m):
        """The product with three bytes below it, shifted right by the group modulo 4."""
        s1_flags, product = Signal.like(self.flags), self.product
        m.d.sync += s1_flags.eq(self.flags)
        if self.geometry.is_integer:
            s1_product = Signal.like(product)
            m.d.sync += s1_product.eq(product)
            return s1_product, s1_flags
        s1_product = Signal(len(product) + 24)
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
        parts = Signal(len(ends) - 1, name="s2_dropped")
        m.d.sync += parts.eq(Cat(product[low:high].any()
                                 for low, high in pairwise(ends)))
        return any_of((step == number) & parts[:ends.index(end)].any()
                      for number, end in drops.items() if end)

    def _lowest(self, step):
        """The place of the product's lowest bit at a step."""
        return self.geometry.product_place - 24 - STEP * step


class Lane(wiring.Component):
    """Adds the products of one operand of A with a word of B to the accumulators of its columns.

    Column n: sum_n += a * b_n. In fp32 mode the four columns together are one: they sum the
    products high * high, high * low, low * high and low * low of the operands' 16-bit halves; the
    groups of the slots place them, and the drain adds the four sums.

    Parameters
    ----------
    geometry : Geometry
        Of the VPCU.

    Members
    -------
    a : In(broadcast(geometry))
        Operand of A.
    b : In(ArrayLayout(geometry.slot, 4))
        Operands of B. In fp32 mode all have the sign and kind of the one operand, and the
        significands are its high, low, high and low half, two zeros below.
    capture : In(1)
        Move the accumulators, as they are, to the drain registers.
    drained : Out(ArrayLayout(geometry.drained, 4))
        The drain registers.

    Timing
    ------
    ``LANE_LATENCY`` (6) cycles from ``a`` and ``b`` to the accumulator.

    Numerics
    --------
    Rule N4: bits of a product under the window are dropped toward zero and set ``lost``; in fp32
    mode, of each of the four.
    """

    def __init__(self, *, geometry):
        self.geometry = geometry
        super().__init__({
            "a": In(broadcast(geometry)),
            "b": In(data.ArrayLayout(geometry.slot, COLUMNS)),
            "capture": In(1),
            "drained": Out(data.ArrayLayout(geometry.drained, COLUMNS)),
        })

    def elaborate(self, platform):
        m = Module()
        geometry = self.geometry
        clear = delayed(m, self.a.clear, MULTIPLIER_LATENCY + 1, "clear")
        for number in range(COLUMNS):
            m.submodules[f"multiplier_{number}"] = multiplier = Multiplier(
                width=geometry.multiplier_width, target=geometry.target)
            m.submodules[f"column_{number}"] = column = Column(geometry=geometry)
            flags = self._flags(m, number)
            # A register for each column: it has a load for each bit of the accumulator. Were they
            # not told apart by what reset does to them, Yosys would make one of all four.
            column_clear = Signal(init=number % 2, reset_less=number > 1, name=f"clear_{number}")
            m.d.sync += column_clear.eq(clear)
            m.d.comb += [
                multiplier.a.eq(self.a.high if number < 2 else self.a.low),
                multiplier.b.eq(self.b[number].significand),
                column.product.eq(multiplier.o),
                column.flags.eq(delayed(m, flags, MULTIPLIER_LATENCY - 1, f"flags_{number}")),
                column.clear.eq(column_clear),
                column.capture.eq(self.capture),
                self.drained[number].eq(column.drained),
            ]
        return m

    def _flags(self, m, number):
        """What goes with the product of ``a`` and that operand of B, a cycle later (rule N3)."""
        a, b, present = self.a, self.b[number], Signal(name=f"s1_present_{number}")
        flags = Signal(product_flags(self.geometry), name=f"flags_{number}")
        group, negative, nan, infinite, zero = (
            Signal.like(flags.group, name=f"s1_group_{number}"),
            *(Signal(name=f"s1_{name}_{number}") for name in (
                "negative", "nan", "infinite", "zero")))
        m.d.sync += [
            present.eq(a.present),
            group.eq(a.group + b.group),
            negative.eq(a.negative ^ b.negative),
            nan.eq((a.kind == Kind.NAN) | (b.kind == Kind.NAN)),
        ]
        if self.geometry.has_infinity:
            m.d.sync += [
                infinite.eq((a.kind == Kind.INFINITE) | (b.kind == Kind.INFINITE)),
                zero.eq((a.kind == Kind.ZERO) | (b.kind == Kind.ZERO)),
            ]
        m.d.comb += [
            flags.group.eq(group),
            flags.negative.eq(negative),
            flags.nan.eq(present & (nan | (infinite & zero))),
            flags.positive_infinity.eq(present & infinite & ~negative),
            flags.negative_infinity.eq(present & infinite & negative),
        ]
        return flags
