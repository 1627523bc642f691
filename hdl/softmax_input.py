"""Softmax, first pass: elements of any format become keys and fixed-point magnitudes (rule S2)."""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import any_of, delayed, register
from .formats import FORMATS, FormatCode
from .softmax_layouts import KEY_WIDTH, KIND_WIDTH, fixed_width, number, row_beat
from .softmax_memories import shared_lookups

__all__ = ["INPUT_LATENCY", "KINDS", "SIGNIFICAND_WIDTH", "InputStage", "places"]

INPUT_LATENCY = 5

MAGNITUDE_WIDTH = KEY_WIDTH - 1
SIGNIFICAND_WIDTH = 28  # a magnitude without its exponent, which has 4 bits at least
HEAD_WIDTH = 8          # upper bits of a magnitude that say all about its exponent
LOW_WIDTH = MAGNITUDE_WIDTH - HEAD_WIDTH
CHUNK_WIDTH = 7         # bits of the significand that are shifted together, by up to as many
GROUPS = 4              # of bits of a fixed-point number, by the bytes they come from

# A group's bits come from one of four bytes, or are zero; in two LUTs each: ``choose`` has the use.
CODES = (0b000, 0b001, 0b110, 0b111)
CODE_ZERO = 0b010

HEAD = data.StructLayout({
    "significand": SIGNIFICAND_WIDTH - LOW_WIDTH, "fine": 3, "codes": data.ArrayLayout(3, GROUPS),
    "beyond": 2, "special": 1})


KINDS = tuple(sorted({fmt.exponent_width: fmt for fmt in FORMATS.values()}.items()))
"""Each width of an exponent and one format of it; a key's kind is the number of its pair."""


def kind_of(fmt):
    """The kind of a format's keys."""
    return [width for width, _ in KINDS].index(fmt.exponent_width)


def places(fmt):
    """How far a significand of biased exponent 1, moved up 2^8 above its lowest place, goes down,
    plus 1: its shift is ``places(fmt) - max(exponent, 1)``."""
    return 7 + fmt.bias + MAGNITUDE_WIDTH - fmt.exponent_width


def head(index):
    """The entry of the table of exponents for 10 bits: kind of exponent, a magnitude's upper bits.

    ``beyond``: a bit comes from a fifth byte, in groups 0 and 1 (in group 2 only zeros would).
    ``special``: it is a NaN if the significand is not zero.
    """
    kind, upper = divmod(index, 1 << HEAD_WIDTH)
    if kind >= len(KINDS):
        return 0
    width, fmt = KINDS[kind]
    rest = HEAD_WIDTH - width
    exponent, mantissa = upper >> rest, upper & (1 << rest) - 1
    shift = places(fmt) - max(exponent, 1)
    coarse = shift >> 3 if 0 <= shift < 56 else -1
    is_top = exponent == (1 << width) - 1
    if is_top and width == 4:
        is_top = mantissa >> 1 == 7
    return HEAD.const({
        "significand": mantissa | (exponent > 0 and not (is_top and width > 4)) << rest,
        "fine": shift & 7,
        "codes": [CODES[coarse - group] if group <= coarse < group + 4 else CODE_ZERO
                  for group in range(GROUPS)],
        "beyond": sum((coarse == group + 4) << group for group in range(2)),
        "special": is_top}).as_bits()


def choose(sources, code):
    """One of four bits, or zero, by a code of `CODES`."""
    lower = Mux(code[1], code[0], Mux(code[0], sources[1], sources[0]))
    return Mux(code[2], Mux(lower, sources[3], sources[2]), lower)


class InputStage(wiring.Component):
    """Turns beats of elements into beats of numbers.

    Parameters
    ----------
    lanes : int
        Elements of a beat.
    value_width : int
        Fraction bits of the fixed-point magnitudes.
    target : str
        Primitives, see ``Rom``.

    Members
    -------
    i : In(stream of row_beat(lanes), always ready)
        Elements of ``format``.
    kind : Out(KIND_WIDTH)
        The kind of keys that ``format`` has: combinational.
    keys : Out(ArrayLayout(KEY_WIDTH, lanes))
        Their bits, left-aligned, a cycle later. Where there is no element: below all others.
    o : Out(stream of beats of number(value_width), and whether one is NaN; always ready)
        Keys and magnitudes, ``INPUT_LATENCY`` (5) cycles later.

    Timing
    ------
    One beat per cycle.

    Numerics
    --------
    The magnitude is cut off after ``value_width`` fraction bits, and taken modulo 2^8.
    """

    def __init__(self, *, lanes, value_width, target="generic"):
        self.lanes, self.value_width, self.target = lanes, value_width, target
        super().__init__({
            "i": In(stream.Signature(row_beat(lanes), always_ready=True)),
            "format": In(FormatCode), "kind": Out(KIND_WIDTH),
            "keys": Out(data.ArrayLayout(KEY_WIDTH, lanes)),
            "o": Out(stream.Signature(data.StructLayout({
                "numbers": data.ArrayLayout(number(value_width), lanes), "nan": 1}),
                always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        with m.Switch(self.format):
            for fmt in FORMATS.values():
                with m.Case(fmt.code):
                    m.d.comb += self.kind.eq(kind_of(fmt))
        keys = [self._aligned(m, lane) for lane in range(self.lanes)]

        # The exponent's table, then the chunks of the significand, shifted by tables.
        heads = [HEAD(entry) for entry in shared_lookups(
            m, "heads", [head(n) for n in range(4 << HEAD_WIDTH)], HEAD.size,
            [Cat(key[LOW_WIDTH:MAGNITUDE_WIDTH], self.kind) for key, _ in keys],
            target=self.target)]
        layout = data.StructLayout({"shifted": 2 * CHUNK_WIDTH, "any": 1})
        contents = [layout.const({"shifted": (n & 127) << CHUNK_WIDTH >> (n >> CHUNK_WIDTH),
                                  "any": n & 127 > 0}).as_bits() for n in range(1024)]
        chunks = []
        low = delayed(m, Cat(key[:LOW_WIDTH] for key in self.keys), 1, "low")
        for lane, entry in enumerate(heads):
            significand = Cat(low.word_select(lane, LOW_WIDTH), entry.significand)
            chunks += [Cat(significand.word_select(n, CHUNK_WIDTH), entry.fine)
                       for n in range(SIGNIFICAND_WIDTH // CHUNK_WIDTH)]
        count = len(chunks) // self.lanes
        found = [layout(entry) for entry in shared_lookups(m, "chunks", contents, layout.size, [
            chunks[lane * count + n] for n in range(count) for lane in range(self.lanes)],
            target=self.target)]

        keys = delayed(m, self.keys, INPUT_LATENCY - 1, "key")
        s4_count = delayed(m, self.i.payload.count, 4, "count")
        s5_nan = register()
        nans = []
        for lane in range(self.lanes):
            place = delayed(m, heads[lane], 2, f"place{lane}")
            chunks = found[lane::self.lanes]
            fixed = register(fixed_width(self.value_width), name=f"s5_fixed{lane}")
            m.d.sync += fixed.eq(self._placed([entry.shifted for entry in chunks], place))
            nans.append((s4_count > lane) & place.special & any_of(entry.any for entry in chunks))
            m.d.comb += [
                self.o.payload.numbers[lane].key.eq(keys[lane]),
                self.o.payload.numbers[lane].fixed.eq(fixed),
            ]
        m.d.sync += s5_nan.eq(any_of(nans))
        m.d.comb += [
            self.o.valid.eq(delayed(m, self.i.valid, INPUT_LATENCY, "valid", reset_less=False)),
            self.o.payload.nan.eq(s5_nan),
        ]
        return m

    def _aligned(self, m, lane):
        """The element's bits at the top, and its key's register; what is absent loses to all."""
        element = self.i.payload.elements[lane]
        is_wide = Signal()
        is_byte = Signal()
        m.d.comb += [
            is_wide.eq(self.format == FormatCode.FP32),
            is_byte.eq((self.format == FormatCode.E4M3) | (self.format == FormatCode.E5M2)),
        ]
        key = Signal(KEY_WIDTH, name=f"aligned{lane}")
        m.d.comb += key.eq(Cat(
            element[:16],
            Mux(is_wide, element[16:24], Mux(is_byte, 0, element[:8])),
            Mux(is_wide, element[24:], Mux(is_byte, element[:8], element[8:16]))))
        low = register(16, name=f"s1_low{lane}")
        upper = register(16, name=f"s1_upper{lane}")
        m.d.sync += [low.eq(key[:16]), upper.eq(key[16:])]
        with m.If(~is_wide):
            m.d.sync += low.eq(0)
        with m.If(self.i.payload.count <= lane):
            m.d.sync += upper.eq(~0)
        m.d.comb += self.keys[lane].eq(Cat(low, upper))
        return key, self.keys[lane]

    def _placed(self, chunks, place):
        """The chunks put together and moved by whole bytes."""
        fine = [any_of([chunk[bit - CHUNK_WIDTH * n] for n, chunk in enumerate(chunks)
                        if 0 <= bit - CHUNK_WIDTH * n < 2 * CHUNK_WIDTH])
                for bit in range(CHUNK_WIDTH * (len(chunks) + 1))]
        width = fixed_width(self.value_width)
        moved = []
        for bit in range(width):
            group, lowest = divmod(bit - (width - 1 - CHUNK_WIDTH), 8)
            group = -group
            bits = [fine[lowest + 8 * n] for n in range(4)]
            chosen = choose(bits, place.codes[group])
            if group < 2 and lowest + 32 < len(fine):
                chosen |= fine[lowest + 32] & place.beyond[group]
            moved.append(chosen)
        return Cat(moved)
