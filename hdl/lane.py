"""One lane: four multipliers, byte alignment into the window, accumulators and drain registers."""

from itertools import pairwise

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import negate_if, shift_right, tree_sum
from .geometry import Kind
from .multiplier import MULTIPLIER_LATENCY, Multiplier

__all__ = ["Lane", "broadcast"]


def broadcast(geometry):
    """The operand of A that all lanes get, and what they are to do with it.

    ``high`` is the factor of the multipliers 0 and 1, ``low`` that of 2 and 3: in fp32 mode
    (``wide``) the halves of the operand, else both all of it. ``valid``: add to the accumulators;
    ``clear``: from zero; ``present``: there is an element (else its product is nothing at all).
    """
    width = geometry.multiplier_width
    return data.StructLayout({
        "high": width, "low": width, "group": range(geometry.group_max + 1), "negative": 1,
        "kind": Kind, "wide": 1, "valid": 1, "clear": 1, "present": 1,
    })


def product_flags(group_max):
    """What goes with a product to its column."""
    return data.StructLayout({
        "group": range(2 * group_max + 1), "negative": 1, "nan": 1,
        "positive_infinity": 1, "negative_infinity": 1, "valid": 1, "clear": 1,
    })


class Column(wiring.Component):
    """Aligns products, adds them to one accumulator, and keeps a finished sum for the drain.

    ::

        product -> >> bytes -> +- -> (+) -> accumulator --capture--> drained -> next drained
                      |               ^--------'
                      `-> lost
    """

    def __init__(self, *, geometry, product_width):
        self.geometry = geometry
        self.product_width = product_width
        super().__init__({
            "product": In(product_width),
            "flags": In(product_flags(geometry.group_max)),
            "anchor": In(geometry.anchor_shape),
            "capture": In(1),
            "i_drained": In(geometry.drained),
            "drained": Out(geometry.drained),
        })

    def elaborate(self, platform):
        m = Module()
        width, headroom = self.geometry.accumulator_width, self.geometry.headroom
        flags = [self.flags]
        for number in (1, 2):
            stage_flags = Signal.like(self.flags, name=f"s{number}_flags")
            m.d.sync += stage_flags.eq(flags[-1])
            flags.append(stage_flags)

        # Place the product in the window; what falls out below is dropped, and said (rule N4).
        # Above, only the headroom and bits that no product reaches are cut off (product_top).
        placed = Cat(Const(0, self.geometry.product_top - self.product_width), self.product)
        shifted, lost = shift_right(m, placed, self.flags.group, unit=8)
        s1_magnitude, s1_lost = Signal(width - 1 - headroom), Signal()
        m.d.sync += [s1_magnitude.eq(shifted), s1_lost.eq(lost)]

        # Negate: the ones' complement here, the carry in the adder.
        addend, carry = negate_if(flags[1].negative, s1_magnitude)
        s2_addend, s2_carry, s2_lost = Signal(signed(width - headroom)), Signal(), Signal()
        m.d.sync += [s2_addend.eq(addend), s2_carry.eq(carry), s2_lost.eq(s1_lost)]

        # Accumulate; max_k products stay within the window.
        s3, new = Signal(self.geometry.drained), flags[2]
        with m.If(new.valid):
            m.d.sync += s3.sum.eq(Mux(new.clear, 0, s3.sum) + s2_addend + s2_carry)
            for name, value in (("nan", new.nan), ("lost", s2_lost),
                                ("positive_infinity", new.positive_infinity),
                                ("negative_infinity", new.negative_infinity)):
                m.d.sync += s3[name].eq((s3[name] & ~new.clear) | value)

        # The drain register: take the finished sum, else hand on the neighbour's.
        with m.If(self.capture):
            m.d.sync += [self.drained.eq(s3), self.drained.anchor.eq(self.anchor)]
        with m.Else():
            m.d.sync += self.drained.eq(self.i_drained)
        return m


class Lane(wiring.Component):
    """Adds the products of one operand of A with a word of B to the accumulators of its columns.

    Column n: sum_n += a * b_n, four columns; in fp32 mode only column 0, whose product is
    (a_high b_high << 32) + ((a_high b_low + a_low b_high) << 16) + a_low b_low, one product of
    four multipliers, summed before bits are dropped.

    Parameters
    ----------
    geometry : Geometry
        Of the VPCU.

    Members
    -------
    a : In(broadcast(geometry))
        Operand of A.
    b : In(ArrayLayout(geometry.slot, 4))
        Operands of B. In fp32 mode all have the sign, group and kind of the one operand, and the
        significands are its high, low, high and low half.
    anchors : In(ArrayLayout(geometry.anchor_shape, geometry.columns))
        Column anchors, for the drain.
    capture : In(1)
        Move the accumulators, as they are, to the drain registers.
    drain_wide : In(1)
        The drain registers hold column 0 only: pass on a lane, not a column, per cycle.
    i_drained, o_drained : In, Out(geometry.drained)
        Drain register of the next lane's, and of this lane's, column 0.

    Timing
    ------
    ``LANE_LATENCY`` (6) cycles from ``a`` and ``b`` to the accumulator. The drain registers shift
    in every cycle without ``capture``.

    Numerics
    --------
    Rule N4: product bits under the window are dropped toward zero and set ``lost``.
    """

    def __init__(self, *, geometry):
        self.geometry = geometry
        super().__init__({
            "a": In(broadcast(geometry)),
            "b": In(data.ArrayLayout(geometry.slot, 4)),
            "anchors": In(data.ArrayLayout(geometry.anchor_shape, geometry.columns)),
            "capture": In(1),
            "drain_wide": In(1),
            "i_drained": In(geometry.drained),
            "o_drained": Out(geometry.drained),
        })

    def elaborate(self, platform):
        m = Module()
        geometry = self.geometry

        products = []
        for number in range(4):
            m.submodules[f"multiplier_{number}"] = multiplier = Multiplier(
                width=geometry.multiplier_width)
            m.d.comb += [
                multiplier.a.eq(self.a.high if number < 2 else self.a.low),
                multiplier.b.eq(self.b[number].significand),
            ]
            products.append(multiplier.o)

        # Column 0 takes a narrow product as the upper bits of a wide one.
        wide_width, narrow_width = (2 * (n + 7) for n in (geometry.frame, geometry.narrow_frame))
        columns = []
        for number in range(geometry.columns):
            product_width = wide_width if number == 0 else narrow_width
            m.submodules[f"column_{number}"] = column = Column(
                geometry=geometry, product_width=product_width)
            s3_product = Signal(product_width)
            m.d.sync += s3_product[-narrow_width:].eq(products[number])
            if number == 0 and geometry.is_wide:
                with m.If(_delayed(m, self.a.wide, MULTIPLIER_LATENCY, "wide")):
                    m.d.sync += s3_product.eq(_joined(*products))
                with m.Else():
                    m.d.sync += s3_product[:-narrow_width].eq(0)
            flags = Signal(product_flags(geometry.group_max), name=f"flags_{number}")
            m.d.comb += [
                *self._flags(flags, self.b[number]),
                column.product.eq(s3_product),
                column.flags.eq(_delayed(m, flags, MULTIPLIER_LATENCY + 1, f"flags_{number}")),
                column.anchor.eq(self.anchors[number]),
                column.capture.eq(self.capture),
            ]
            columns.append(column)

        m.d.comb += self.o_drained.eq(columns[0].drained)
        for column, following in pairwise(columns):
            m.d.comb += column.i_drained.eq(following.drained)
        m.d.comb += columns[-1].i_drained.eq(self.i_drained)
        with m.If(self.drain_wide):
            m.d.comb += columns[0].i_drained.eq(self.i_drained)
        return m

    def _flags(self, flags, b):
        """Statements that say what goes with the product of ``a`` and an operand of B (rule N3)."""
        a, negative = self.a, self.a.negative ^ b.negative
        infinite = (a.kind == Kind.INFINITE) | (b.kind == Kind.INFINITE)
        zero = (a.kind == Kind.ZERO) | (b.kind == Kind.ZERO)
        nan = (a.kind == Kind.NAN) | (b.kind == Kind.NAN) | (infinite & zero)
        return [
            flags.group.eq(a.group + b.group),
            flags.negative.eq(negative),
            flags.nan.eq(a.present & nan),
            flags.positive_infinity.eq(a.present & infinite & ~negative),
            flags.negative_infinity.eq(a.present & infinite & negative),
            flags.valid.eq(a.valid),
            flags.clear.eq(a.clear),
        ]


def _joined(high, high_low, low_high, low):
    """One product from those of 16-bit halves."""
    return tree_sum([Cat(low[:32], high), (high_low + low_high) << 16])


def _delayed(m, value, cycles, name):
    """``value``, ``cycles`` later."""
    for number in range(1, cycles + 1):
        stage = Signal.like(value, name=f"s{number}_{name}")
        m.d.sync += stage.eq(value)
        value = stage
    return value
