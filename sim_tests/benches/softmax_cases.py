"""Rows for the softmax unit, their beats, and what the golden model says comes out."""

import random
from itertools import groupby
from types import SimpleNamespace

import torch

from ..hdl.formats import FORMATS
from ..hdl.softmax_layouts import Part, SoftmaxOperation, row_beat
from ..host.numerics import decode, from_bits, quantize, to_bits
from ..host.softmax import exact_softmax

__all__ = ["expected", "named_rows", "pack_operation", "pack_operations", "pack_row",
           "random_rows", "unpack_operations", "unpack_rows"]

INF, NAN = float("inf"), float("nan")

# Name, elements, and so why the row is there.
NAMED = (
    ("one element", [3.25]),
    ("one element masked", [-INF]),
    ("no elements", []),
    ("equal", [1.5] * 16),
    ("zeros of both signs", [0.0, -0.0, 0.0]),
    ("rising, a new maximum with every element", [i * 40.0 - 300 for i in range(16)]),
    ("falling", [300 - i * 40.0 for i in range(16)]),
    ("maximum in the middle, of both signs", [-3.0, 2.5, -0.25, 2.75, -2.75, 2.25]),
    ("down to the smallest subnormals", [-float(i) for i in range(70, 106, 3)] + [0.0]),
    ("narrow subnormals", [-float(i) / 2 for i in range(0, 40, 3)]),
    ("masked by -Inf", [-INF, 1.0, -INF, 2.0, -INF, -INF, -INF, -1.0, -INF]),
    ("masked by -Inf, the others far below zero", [-INF, -735.0, -735.0, -INF, -740.0]),
    ("masked by -Inf, the others lower than others are", [-INF, -1e9, -3e9, -INF, -1e9]),
    ("masked by -1e9", [-1e9, 1.0, 2.0, -1e9, -1e9, 0.5]),
    ("masked by the lowest fp32", [-3.4028235e38, 1.0, -3.4028235e38, 0.5]),
    ("all masked by -1e9", [-1e9] * 6),
    ("all masked by the lowest fp32", [-3.4028235e38] * 7),
    ("all -Inf", [-INF] * 5),
    ("+Inf", [1.0, 2.0, INF]),
    ("NaN in front", [NAN, 2.0, 1.0, -INF, 3.0]),
    ("NaN at the end", [2.0, 1.0, -INF, 3.0, NAN]),
    # What is 128 or more below the largest is zero, whatever the largest's exponent, and what is
    # 256 or more below would come round again.
    ("128 below 0", [0.0, -127.5, -128.0, -128.5, -255.5, -256.0, -256.5, -383.0, -512.0]),
    ("128 below -0", [-0.0, -103.0, -128.0, -256.0, -255.0, -512.0]),
    ("128 below one", [1.0, -102.0, -126.5, -127.0, -127.5, -254.5, -255.0, -256.0]),
    ("128 below the highest under 128", [127.5, 24.0, -0.25, -0.5, -1.0, -128.0, -128.5, -129.0]),
    ("128 below 128", [128.0, 25.0, 0.5, 0.0, -0.0, -0.5, -127.0, -128.0, -129.0]),
    ("128 below the highest under 256", [255.0, 152.0, 128.0, 127.0, 126.5, 0.0, -0.5, -1.0]),
    ("128 below 256", [256.0, 153.0, 129.0, 128.0, 127.5, 64.0, 32.0, 0.0, -1.0, -256.0]),
    ("128 below 300", [300.0, 200.0, 180.0, 172.5, 172.0, 171.5, 45.0, 44.0, 43.0]),
    ("128 below a low number", [-100.0, -200.0, -227.5, -228.0, -229.0, -255.5, -256.0, -357.0]),
    ("128 below the lowest above -128", [-127.5, -230.0, -255.0, -255.5, -256.0, -383.0]),
    ("128 below -128", [-128.0, -231.0, -255.0, -256.0, -257.0, -384.0, -385.0]),
    ("128 below -300", [-300.0, -400.0, -427.0, -428.0, -428.5, -555.0, -556.0, -557.0]),
    ("128 below 2^20", [1048576.0, 1048500.0, 1048448.125, 1048448.0, 1048447.0, 1048320.0]),
    ("128 below -2^20", [-1048576.0, -1048676.0, -1048703.0, -1048704.0, -1048832.0]),
    ("128 below 2^30", [1073741824.0, 1073741760.0, 1073741696.0, 1073741568.0, 1073741632.0]),
    ("128 below -2^30", [-1073741824.0, -1073741952.0, -1073742080.0, -1073742208.0]),
    ("where floats are 128 apart", [2147483520.0, 2147483392.0, 2147483648.0, -2147483648.0]),
    ("neighbours beyond", [2147483648.0, 2147483904.0, 2147483904.0, 3e9, 4e9, 4e9, 1.0]),
    ("the same below zero", [-3e9, -4e9, -2147483648.0, -1e30, -2147483904.0]),
    ("the terms' halves decide a bit", [0.0] + [-7.626708984375] * 15),
    ("in every octave", [2.0 ** n for n in range(-24, -8)]),
    ("in every octave above", [2.0 ** n for n in range(-8, 7)]),
    ("near the last bit", [2.0 ** -18, -(2.0 ** -18), 3 * 2.0 ** -19, 2.0 ** -30, -1e-38]),
    ("with bits to be cut off", [1.0, 1.0 + 2.0 ** -23, 1.0 - 2.0 ** -24, 0.75 + 2.0 ** -20]),
)


def named_rows(format, max_length):
    """The directed rows as bits of ``format``, those with at most ``max_length`` elements.

    e4m3 has no infinity: its masked elements are its lowest.
    """
    fmt = FORMATS[format]
    overflow = "overflow" if fmt.ieee else "saturate"
    return [to_bits(quantize(torch.tensor(values), format, overflow)).tolist()
            for _, values in NAMED if len(values) <= max_length]


def random_rows(format, lengths, seed):
    """One row per length, as bits: ordinary logits, or any bits but NaN and Inf, in turn."""
    generator = torch.Generator().manual_seed(seed)
    scales = random.Random(seed)
    fmt, rows = FORMATS[format], []
    for number, length in enumerate(lengths):
        if number % 3 == 2:
            bits = torch.randint(0, 1 << fmt.width, (length,), generator=generator)
            rows.append(torch.where(decode(from_bits(bits, format)).isfinite(), bits, 0).tolist())
        else:
            x = torch.randn(length, generator=generator) * 2.0 ** scales.randint(-2, 5)
            rows.append(to_bits(quantize(x, format)).tolist())
    return rows


def expected(row, format, result, parameters):
    """The probabilities of a row of bits, as bits, from the golden model of a unit whose buffers
    hold the row."""
    longest = max(len(row), parameters["max_length"])
    config = SimpleNamespace(softmax=SimpleNamespace(**parameters | {"max_length": longest}))
    x = from_bits(torch.tensor(row, dtype=torch.int64), format)
    return to_bits(exact_softmax(x, result, config=config)).tolist()


def pack_operation(format, result, rows, part=Part.WHOLE, first=1):
    """The operation as a payload."""
    return SoftmaxOperation.const({
        "format": FORMATS[format].code, "result": FORMATS[result].code, "rows": rows,
        "part": part, "first": first}).as_bits()


def blocks(row, max_length):
    """The row cut into rows that fit."""
    return [row[start:start + max_length] for start in range(0, max(1, len(row)), max_length)]


def pack_operations(operations, lanes, max_length):
    """Operations (format, result, rows) as payloads: of operations, and of beats.

    A row that is longer than ``max_length`` is three operations, or six of a different number of
    blocks each: the first block by itself, then the others.
    """
    tokens, beats = [], []

    def put(format, result, rows, *part):
        tokens.append(pack_operation(format, result, len(rows), *part))
        beats.extend(beat for row in rows for beat in pack_row(row, lanes))

    for format, result, rows in operations:
        for is_long, group in groupby(rows, lambda row: len(row) > max_length):
            group = list(group)
            if not is_long:
                put(format, result, group)
                continue
            for number, row in enumerate(group):
                cut = blocks(row, max_length)
                for part in (Part.MAXIMUM, Part.SUM, Part.PROBABILITIES):
                    if number % 2:
                        put(format, result, cut[:1], part, 1)
                        put(format, result, cut[1:], part, 0)
                    else:
                        put(format, result, cut, part, part != Part.PROBABILITIES)
    return tokens, beats


def unpack_operations(received, operations, lanes, cuts):
    """The rows of bits that come out of operations, each cut into blocks of so many elements."""
    given = iter(unpack_rows(received, lanes))
    return [[bits for _ in blocks(row, cut) for bits in next(given)]
            for (_, _, rows), cut in zip(operations, cuts, strict=True) for row in rows]


def pack_row(row, lanes):
    """The row's beats as payloads; what is not there is all ones."""
    layout, beats = row_beat(lanes), []
    for start in range(0, max(1, len(row)), lanes):
        elements = row[start:start + lanes]
        beats.append(layout.const({
            "elements": elements + [(1 << 32) - 1] * (lanes - len(elements)),
            "count": len(elements), "last": start + lanes >= len(row)}).as_bits())
    return beats


def unpack_rows(beats, lanes):
    """The rows of bits that beats carry."""
    layout, rows, row = row_beat(lanes), [], []
    for beat in map(layout.from_bits, beats):
        row += [beat.elements[i] for i in range(beat.count)]
        if beat.last:
            rows.append(row)
            row = []
    assert not row, "the last row has no end"
    return rows
