"""Softmax, third pass: powers times the reciprocal of their sum, rounded once (rules S5 and S6)."""

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import delayed, register, register_like
from .formats import FORMATS, FP32, FormatCode
from .multiplier import Product
from .softmax_layouts import power
from .softmax_memories import shared_lookups
from .softmax_tables import OCTAVE_WIDTH

__all__ = ["UNDEFINED", "Probabilities"]

UNDEFINED = 0  # the height of a row's NaNs, to which registers are reset without logic

TOP = FP32.mantissa_width + 2   # place of the product's highest bit, over the lowest result's
FIELD_PLACES = (*range(15), *range(22, 31))  # of results: those of exponents and of NaNs
FAR_SHIFT = 31                  # leaves nothing

FIELD = data.StructLayout({
    "field": len(FIELD_PLACES), "shift": 3, "lowest": data.ArrayLayout(2, 3), "normals": 2})


def field(index):
    """How to round a product, of 11 bits: format, and q + 1 of 2^-q, the weight of its highest bit.

    ``shift``: how far the product goes down if its highest bit is its lead, in fours. ``lowest``:
    by how much further, if the lead is below its two highest bits, the second, the first: the less,
    as long as the result is normal; then its exponent falls instead, by up to ``normals``.
    ``field``: the result but for what the product adds.
    """
    fmt = next((f for f in FORMATS.values() if f.code.value == index >> OCTAVE_WIDTH), None)
    octave = (index & (1 << OCTAVE_WIDTH) - 1) - 1
    if fmt is None:
        return 0
    above = -fmt.min_exponent - octave  # octaves of normal numbers, the lowest excepted
    normals = min(max(above, 0), 2)
    bits = (above - normals << fmt.mantissa_width) if above > 0 else 0
    shift = min(TOP - fmt.mantissa_width + max(-above, 0), FAR_SHIFT)
    if octave + 1 == UNDEFINED:
        bits, shift, normals = fmt.nan_bits, FAR_SHIFT, 0
    if normals > shift & 3:
        raise AssertionError(f"a shift of {shift} less {normals} borrows")
    packed = sum((bits >> place & 1) << n for n, place in enumerate(FIELD_PLACES))
    return FIELD.const({
        "field": packed, "shift": shift >> 2, "normals": normals,
        "lowest": [(shift & 3) - less for less in (normals, min(normals, 1), 0)]}).as_bits()


class Probabilities(wiring.Component):
    """Multiplies a beat of powers by their row's reciprocal and rounds to the result's format.

    probability = value * reciprocal * 2^(1 - 2 value_width - octave - place), cut off after
    value_width bits, with ones for the two bits after them; rounded

    Parameters
    ----------
    lanes, value_width : int
        Of the powers.
    target : str
        Primitives, see ``Rom``.

    Members
    -------
    moves : In(1)
        The clock enable of all of this, which primitives need beside it.
    powers : In(ArrayLayout(power(value_width), lanes)), place : In, result : In(FormatCode)
        A beat, its row's place and format. Octave + place is at most ``UNDEFINED`` = 254, the
        octave of rows of NaN, whose place is 0.
    reciprocal : In(value_width)
        A cycle later.
    o : Out(ArrayLayout(32, lanes))
        The probabilities, right-aligned.

    Timing
    ------
    Latency 3 cycles, one beat per cycle; ``o`` is combinational from an addition's registers.

    Numerics
    --------
    One rounding to nearest even. With ones below it no product is half-way between two results
    unless the lower is odd, so that the first bit left over decides.
    """

    def __init__(self, *, lanes, value_width, place_width, target="generic"):
        self.lanes, self.value_width, self.target = lanes, value_width, target
        super().__init__({
            "moves": In(1),
            "powers": In(data.ArrayLayout(power(value_width), lanes)), "place": In(place_width),
            "result": In(FormatCode), "reciprocal": In(value_width),
            "o": Out(data.ArrayLayout(32, lanes)),
        })

    def elaborate(self, platform):
        m = Module()
        downs = []
        for lane in range(self.lanes):
            # octave + place + 1, and 0 of what is undefined.
            down = Signal(OCTAVE_WIDTH, name=f"down{lane}")
            m.d.comb += down.eq(self.place - self.powers[lane].height)
            downs.append(down)
        fields = shared_lookups(m, "fields", [field(n) for n in range(8 << OCTAVE_WIDTH)],
                                FIELD.size, [Cat(down, self.result) for down in downs],
                                target=self.target, read=self.moves)
        for lane in range(self.lanes):
            width = self.value_width
            s1_value = delayed(m, self.powers[lane].value, 1, f"value{lane}")
            m.submodules[f"product{lane}"] = product = Product(
                a_width=width, b_width=width, latency=1, target=self.target)
            s2 = FIELD(fields[lane])
            m.d.comb += [
                product.a.eq(s1_value), product.b.eq(self.reciprocal),
                product.enable.eq(self.moves),
            ]
            moved = self._moved(m, Cat(Const(3, 2), product.o[width:]), s2)
            s3_moved = register_like(moved, name=f"s3_moved{lane}")
            s3_field = register( len(FIELD_PLACES), name=f"s3_field{lane}")
            m.d.sync += [s3_moved.eq(moved), s3_field.eq(s2.field)]
            placed = Signal(31, name=f"placed{lane}")
            m.d.comb += [
                *(placed[place].eq(s3_field[n]) for n, place in enumerate(FIELD_PLACES)),
                self.o[lane].eq(placed + s3_moved[1:] + s3_moved[0]),
            ]
        return m

    def _moved(self, m, product, place):
        """The product on the result's grid, over the bit to round by.

        Above its lead it has what the exponent field is to grow by: 2 for the highest bit, 1 for
        the next, if that many octaves are normal; and the lead itself adds one more.
        """
        one, two = product[-1], product[-2]
        normals = place.normals
        grown = Cat(Mux(one, two, two & ~normals[1]),
                    Mux(one, ~normals[0], two & normals[1]),
                    one & normals.any())
        lowest = Mux(one, place.lowest[2], Mux(two, place.lowest[1], place.lowest[0]))
        amount = Cat(lowest, place.shift)
        # The lowest bits of the amount come last: they wait for the lead.
        moved = Cat(Const(0, TOP + 2 - len(product)), product[:-2], grown)
        for bit in reversed(range(len(amount))):
            following = Signal(TOP + 3, name=f"moved{1 << bit}")
            m.d.comb += following.eq(Mux(amount[bit], moved[1 << bit:], moved))
            moved = following
        return moved[:TOP + 1]
