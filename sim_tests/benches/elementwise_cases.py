"""Operations for the elementwise unit, their payloads, and what the golden model says comes out.

Beats are packed by their layout's offsets: ten times faster than by the layout itself.
"""

import random
from array import array
from dataclasses import dataclass

import torch

from ..hdl.elementwise import ElementwiseOperation, ElementwiseRow, elementwise_beat
from ..hdl.formats import FORMATS
from ..hdl.softmax_layouts import row_beat
from ..host.elementwise import exact_elementwise
from ..host.numerics import from_bits, to_bits

__all__ = ["HARD", "MODES", "Operation", "Row", "expected", "pack_beats", "pack_operation",
           "pack_rows", "random_operation", "unpack_rows"]

# Magnitudes in fp32, each with its neighbours: zero, subnormals, the smallest normal, one and what
# is near it, where bits fall off, the largest, Inf, NaNs.
HARD = tuple(sorted({min(max(bits + d, 0), 0x7FFFFFFF) for d in (-1, 0, 1) for bits in (
    0x00000000, 0x00000001, 0x00400000, 0x007FFFFF, 0x00800000, 0x00FFFFFF, 0x01000000, 0x0C000000,
    0x1A000000, 0x20000000, 0x20400000, 0x33800000, 0x34000000, 0x3F000000, 0x3F7FFFFF, 0x3F800000,
    0x3FC00000, 0x3FFFFFFF, 0x40000000, 0x4B000000, 0x4B800000, 0x5F000000, 0x7E800000, 0x7F000000,
    0x7F7FFFFF, 0x7F800000, 0x7FC00000)}))

MODES = tuple((bool(n & 1), bool(n & 2), bool(n & 4)) for n in range(8))
"""Whether q and t are numbers of the row, and whether to negate."""


@dataclass(frozen=True)
class Row:
    """One row's bits: elements, and the row's numbers; of q and t one of the two counts."""

    x: list
    q: list
    t: list
    numbers: tuple


@dataclass(frozen=True)
class Operation:
    """Rows, the formats of x, q and t, and one of `MODES`."""

    rows: list
    formats: tuple = ("fp32", "fp32", "fp32")
    mode: tuple = (False, False, False)


def random_bits(format, count, draw):
    """Bits of a format: any, small exponents, ordinary numbers and hard ones, in turn."""
    fmt = FORMATS[format]
    found = []
    for _ in range(count):
        kind = draw.randrange(4)
        if kind == 0:
            bits = draw.getrandbits(fmt.width)
        elif kind == 1:
            bits = draw.getrandbits(fmt.mantissa_width + 1) | draw.getrandbits(1) << fmt.width - 1
        elif kind == 2:
            exponent = fmt.bias + draw.randint(-3, 3)
            bits = exponent << fmt.mantissa_width | draw.getrandbits(fmt.mantissa_width)
            bits |= draw.getrandbits(1) << fmt.width - 1
        else:
            sign = draw.getrandbits(1)
            bits = (draw.choice(HARD) | sign << 31) >> 32 - fmt.width
        found.append(bits)
    return found


def random_operation(lengths, formats=("fp32", "fp32", "fp32"), mode=(False, False, False), seed=1):
    """An operation with a row of each length; a row in three has numbers that cancel."""
    draw = random.Random(seed)
    rows = []
    for number, length in enumerate(lengths):
        x, q, t = (random_bits(format, length, draw) for format in formats)
        numbers = tuple(random_bits("fp32", 3, draw))
        if number % 3 == 2:  # differences close to zero, and products of one
            near = random_bits("fp32", 1, draw)[0]
            numbers = (near, 0x3F800000, draw.choice((0, near ^ draw.getrandbits(2))))
            if formats[0] == "fp32":
                x = [near ^ draw.getrandbits(draw.randrange(1, 25)) for _ in x]
        rows.append(Row(x, q, t, numbers))
    return Operation(rows, tuple(formats), tuple(mode))


def expected(operation):
    """The rows of results as bits, from the golden model."""
    def tensor(bits, format):
        return from_bits(torch.tensor(bits, dtype=torch.int64), format)

    found = []
    for row in operation.rows:
        s, *numbers = (tensor([bits], "fp32") for bits in row.numbers)
        x = tensor(row.x, operation.formats[0])
        q, t = (number if is_scalar else tensor(bits, format) for number, is_scalar, bits, format in
                zip(numbers, operation.mode, (row.q, row.t), operation.formats[1:], strict=False))
        found.append(to_bits(exact_elementwise(x, s, q, t, negate=operation.mode[2])).tolist())
    return found


def pack_operation(operation):
    """The operation as a payload."""
    names = ("q_is_scalar", "t_is_scalar", "negate")
    return ElementwiseOperation.const({
        **{name: FORMATS[format].code
           for name, format in zip("xqt", operation.formats, strict=True)},
        **dict(zip(names, operation.mode, strict=True)), "rows": len(operation.rows)}).as_bits()


def pack_rows(operation):
    """The rows' numbers as payloads; one that does not count is a NaN."""
    found = []
    for row in operation.rows:
        s, q, t = row.numbers
        found.append(ElementwiseRow.const({
            "s": s, "q": q if operation.mode[0] else 0x7FFFFFFF,
            "t": t if operation.mode[1] else 0x7FFFFFFF}).as_bits())
    return found


def pack_beats(operation, lanes):
    """The rows' beats as payloads; what is not there, or above an element, is all ones."""
    layout, beats = elementwise_beat(lanes), []
    above = [0xFFFFFFFF >> FORMATS[name].width << FORMATS[name].width
             for name in operation.formats]
    absent = [0xFFFFFFFF] * lanes
    for row in operation.rows:
        for start in range(0, max(1, len(row.x)), lanes):
            count = min(lanes, len(row.x) - start)
            beat = count << layout["count"].offset
            beat |= (start + lanes >= len(row.x)) << layout["last"].offset
            for name, ones in zip("xqt", above, strict=True):
                part = [bits | ones for bits in getattr(row, name)[start:start + lanes]]
                words = array("I", (part + absent)[:lanes])
                beat |= int.from_bytes(words.tobytes(), "little") << layout[name].offset
            beats.append(beat)
    return beats


def unpack_rows(beats, lanes):
    """The rows of bits that beats of results carry."""
    layout, rows, row = row_beat(lanes), [], []
    for beat in beats:
        count = beat >> layout["count"].offset & (1 << lanes.bit_length()) - 1
        elements = beat >> layout["elements"].offset
        row += [elements >> 32 * lane & 0xFFFFFFFF for lane in range(count)]
        if beat >> layout["last"].offset & 1:
            rows.append(row)
            row = []
    assert not row, "the last row has no end"
    return rows
