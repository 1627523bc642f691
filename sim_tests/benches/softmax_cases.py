"""Rows for the softmax unit, their beats, and what the golden model says comes out."""

import random
from types import SimpleNamespace

import torch

from ..hdl.formats import FORMATS
from ..hdl.softmax_layouts import SoftmaxOperation, row_beat
from ..host.numerics import decode, from_bits, quantize, to_bits
from ..host.softmax import exact_softmax

__all__ = ["expected", "named_rows", "pack_operation", "pack_row", "random_rows", "unpack_rows"]

INF, NAN = float("inf"), float("nan")

# Name, elements, and so why the row is there.
NAMED = (
    ("one element", [3.25]),
    ("one element masked", [-INF]),
    ("no elements", []),
    ("equal", [1.5] * 16),
    ("zeros of both signs", [0.0, -0.0, 0.0]),
    ("rising, a new highest bin with almost every element", [i * 40.0 - 300 for i in range(16)]),
    ("falling", [300 - i * 40.0 for i in range(16)]),
    ("neighbouring bins", [22.0, 22.5, 22.1, 22.18, 22.2, 44.3, 44.4, 0.0, -0.1, 21.9]),
    ("down to the smallest subnormals", [-float(i) for i in range(70, 106, 3)] + [0.0]),
    ("narrow subnormals", [-float(i) / 2 for i in range(0, 40, 3)]),
    ("masked by -Inf", [-INF, 1.0, -INF, 2.0, -INF, -INF, -INF, -1.0, -INF]),
    ("masked by -Inf, the others far below zero", [-INF, -735.0, -735.0, -INF, -740.0]),
    ("the same, further down", [-INF, -2154.0, -2154.0, -INF]),
    ("the same, among codes", [-INF, -1e9, -3e9, -INF, -1e9]),
    ("masked by -1e9", [-1e9, 1.0, 2.0, -1e9, -1e9, 0.5]),
    ("masked by the lowest fp32", [-3.4028235e38, 1.0, -3.4028235e38, 0.5]),
    ("all masked by -1e9", [-1e9] * 6),
    ("all masked by the lowest fp32", [-3.4028235e38] * 7),
    ("all -Inf", [-INF] * 5),
    ("+Inf", [1.0, 2.0, INF]),
    ("NaN in front", [NAN, 2.0, 1.0, -INF, 3.0]),
    ("NaN at the end", [2.0, 1.0, -INF, 3.0, NAN]),
    ("large, still computed", [2147483520.0, 2147483392.0, 2147483520.0, -2147483520.0]),
    ("across the first code", [2147483648.0, 2147483520.0, 2147483904.0, 2147483904.0]),
    ("codes of both signs", [3e9, 4e9, -4e9, 1e30, 1e38, -1e38]),
    ("negative codes", [-3e9, -4e9, -2147483648.0, -1e30, -2147483904.0]),
    ("rounds in the tail of t", [2.0 ** -21, -(2.0 ** -21), 3 * 2.0 ** -22, 2.0 ** -30, -1e-38]),
    ("only bits in the shifter break a tie, in e5m2", [0.0, -4.75, -0.125]),
    ("the same in fp16", [0.0, -13.34375, -13.375]),
    ("the same in bf16", [0.0, -10.6875, -0.640625]),
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
    """The probabilities of a row of bits, as bits, from the golden model."""
    config = SimpleNamespace(softmax=SimpleNamespace(**parameters))
    x = from_bits(torch.tensor(row, dtype=torch.int64), format)
    return to_bits(exact_softmax(x, result, config=config)).tolist()


def pack_operation(format, result, rows):
    """The operation as a payload."""
    return SoftmaxOperation.const({
        "format": FORMATS[format].code, "result": FORMATS[result].code, "rows": rows}).as_bits()


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
