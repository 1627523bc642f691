"""The sums' logarithms of the compiled softmax unit equal those of log-softmax's golden model."""

import itertools
import random

import pytest
import torch

from exactum.benches.softmax_cases import (
    named_rows,
    pack_operations,
    random_rows,
    unpack_operations,
)
from exactum.benches.stalls import PATTERNS
from exactum.gen.config import preset
from exactum.gen.errors import SimulationError
from exactum.hdl.formats import FORMATS
from exactum.hdl.softmax_layouts import row_sum
from exactum.host import log_softmax
from exactum.host.native import NativeUnit
from exactum.host.numerics import decode, from_bits, quantize, to_bits
from exactum.host.softmax import exact_softmax, passed, softmax_cycles
from sim_tests.repository import ROOT

CONFIG = preset("small", {"softmax.logarithms": True})
LANES, MAX_LENGTH = CONFIG.softmax.lanes, CONFIG.softmax.max_length
INF, NAN = float("inf"), float("nan")


@pytest.fixture(scope="module")
def unit():
    with NativeUnit.of("softmax", CONFIG, ROOT / "build" / "native") as found:
        yield found


def wanted(row, format):
    """A row's item by the golden model: ln S as bits, the maximum, and whether it is undefined."""
    x = decode(from_bits(torch.tensor([row], dtype=torch.int64), format))
    (_, found), = passed(x, CONFIG)
    logs = torch.where(found.largest.isfinite(), log_softmax._log_sums(found), NAN)
    return int(to_bits(logs)), float(x.amax()), not bool(found.largest.isfinite())


def run(unit, operations, **options):
    """The items of operations (format, result, rows), and the run; probabilities are compared."""
    tokens, beats = pack_operations(operations, LANES, MAX_LENGTH)
    rows = [(row, f, r) for f, r, rows in operations for row in rows]
    count = sum(-(-len(part) // LANES) for row, _, _ in rows
                for part in (row[n:n + MAX_LENGTH] for n in range(0, len(row), MAX_LENGTH)))
    done = unit.run({"i_operation": tokens, "i": beats},
                    {"o": count, "o_sum": len(rows)}, **options)
    found = unpack_operations(as_ints(done.outputs["o"]), operations, LANES,
                              [MAX_LENGTH] * len(operations))
    for (row, f, r), bits in zip(rows, found, strict=True):
        x = from_bits(torch.tensor(row, dtype=torch.int64), f)
        assert bits == to_bits(exact_softmax(x, r, config=CONFIG)).tolist()
    return [row_sum.from_bits(item) for item in as_ints(done.outputs["o_sum"])], done


def as_ints(words):
    """Payloads as ints."""
    return [sum(int(word) << 64 * n for n, word in enumerate(item)) for item in words]


def check(unit, operations, **options):
    items, done = run(unit, operations, **options)
    rows = [(row, f) for f, _, rows in operations for row in rows]
    for item, (row, f) in zip(items, rows, strict=True):
        logarithm, maximum, undefined = wanted(row, f)
        assert (item.log_sum, item.undefined) == (logarithm, undefined)
        if not undefined:
            bits = torch.tensor([item.maximum >> 32 - FORMATS[f].width])
            assert float(decode(from_bits(bits, f))) == maximum
    return done


def bits_of(values, format):
    return to_bits(quantize(torch.tensor(values), format,
                            "overflow" if FORMATS[format].ieee else "saturate")).tolist()


@pytest.mark.parametrize("format", FORMATS)
def test_directed_rows_of_all_formats(unit, format):
    rows = [row for row in named_rows(format, MAX_LENGTH) if row]
    check(unit, [(format, "fp32", rows), (format, "bf16", rows[::-1])])


@pytest.mark.parametrize("format", ["fp32", "bf16", "fp16", "e5m2"])
def test_random_rows_of_1_to_4096_elements_some_in_blocks(unit, format):
    draw = random.Random(format)
    edges = {n + d for n in (1, 2, LANES, 64, MAX_LENGTH, 2 * MAX_LENGTH, 1024) for d in (-1, 0, 1)}
    lengths = [*(n for n in edges if n), 4095, 4096, *(draw.randint(1, 600) for _ in range(40))]
    draw.shuffle(lengths)
    check(unit, [(format, "fp32", random_rows(format, lengths, seed=len(format)))])


def test_masked_and_undefined_rows_also_in_blocks(unit):
    rows = [[-INF] * 5, [-INF] * 600, [-INF, 2.0, -INF], [*[-INF] * 300, 1.0, 3.0, *[-INF] * 300],
            [NAN], [1.0, NAN, 2.0], [*[1.0] * 400, NAN], [NAN, *[1.0] * 700], [1.0, INF],
            [*[0.5] * 300, INF, *[1.0] * 300], [0.0], [-0.0, 0.0], [7.0] * 1000]
    for format in ("fp32", "fp16"):
        bits = [bits_of(row, format) for row in rows]
        check(unit, [(format, "fp32", bits), (format, "fp32", bits[::-1])])


@pytest.mark.parametrize(("source", "sink", "sums"), list(itertools.product(PATTERNS, repeat=3)))
def test_stalls_lose_nothing(unit, source, sink, sums):
    lengths = [1, 2, 3, 40, 1, 1, 300, 5, 700, *[1] * 40, 256, 17]
    stalls = {name: list(itertools.islice(PATTERNS[pattern](seed), 4096)) for seed, (name, pattern)
              in enumerate({"i": source, "o": sink, "o_sum": sums}.items())}
    check(unit, [("bf16", "bf16", random_rows("bf16", lengths, seed=3))], stalls=stalls)


def test_items_that_wait_for_long_hold_the_unit_and_are_not_lost(unit):
    rows = random_rows("fp32", [3] * 60, seed=9)
    check(unit, [("fp32", "fp32", rows)], stalls={"o_sum": [True] * 700 + [False] * 3})


def test_without_room_for_items_the_unit_stops_after_15_rows(unit):
    rows = random_rows("fp32", [3] * 40, seed=4)
    tokens, beats = pack_operations([("fp32", "fp32", rows)], LANES, MAX_LENGTH)
    with pytest.raises(SimulationError, match="o gave 15 of 40"):
        unit.run({"i_operation": tokens, "i": beats}, {"o": 40}, patience=300)
    unit.reset()


def test_cycles_are_those_of_softmax_and_the_items_come_beside_it(unit):
    rows = random_rows("fp32", [64] * 30, seed=5)
    unit.reset()
    done = check(unit, [("fp32", "fp32", rows)])
    assert done.span("i", "o") == softmax_cycles(CONFIG, 30, 64)
    assert done.last["o_sum"] - done.last["o"] == 6 - (64 // LANES - 1)
