"""The compiled elementwise unit: sums and products against exact ones in bulk; formats, modes,
stalls and resets against the golden model.

It is compiled with the multipliers of an ECP5, whose registers a stall must hold by themselves.
"""

from itertools import islice, product

import numpy as np
import pytest

from exactum.benches.elementwise_cases import (
    MODES,
    expected,
    pack_beats,
    pack_operation,
    pack_rows,
    random_operation,
    unpack_rows,
)
from exactum.benches.stalls import PATTERNS
from exactum.gen.config import preset
from exactum.gen.errors import SimulationError
from exactum.hdl.elementwise import (
    ELEMENTWISE_LATENCY,
    ElementwiseOperation,
    ElementwiseRow,
    elementwise_beat,
)
from exactum.hdl.formats import FORMATS, FormatCode
from exactum.hdl.softmax_layouts import row_beat
from exactum.host.elementwise import elementwise_cycles
from exactum.host.native import NativeUnit
from sim_tests.float_cases import (
    close_pairs,
    hard_pairs,
    near_smallest_pairs,
    random_pairs,
    tie_pairs,
)
from sim_tests.oracle import add, multiply
from sim_tests.repository import ROOT

LANES = 1
CONFIG = preset("tiny").replace({"elementwise.lanes": LANES, "target": "ecp5"})
ONE, MINUS = 0x3F800000, 1 << 31


@pytest.fixture(scope="module")
def compiled():
    with NativeUnit.of("elementwise", CONFIG, ROOT / "build" / "native") as found:
        yield found


@pytest.fixture
def unit(compiled):
    compiled.reset()
    return compiled


def payloads(operations):
    return {"i_operation": [pack_operation(one) for one in operations],
            "i_row": [row for one in operations for row in pack_rows(one)],
            "i": [beat for one in operations for beat in pack_beats(one, LANES)]}


def check(unit, operations, **options):
    """Run operations and compare every bit; the run."""
    inputs = payloads(operations)
    run = unit.run(inputs, {"o": len(inputs["i"])}, **options)
    outputs = [int.from_bytes(item.tobytes(), "little") for item in run.outputs["o"]]
    wanted = [row for one in operations for row in expected(one)]
    assert unpack_rows(outputs, LANES) == wanted
    assert set(unit.pending.values()) == {0}
    return run


def results(unit, pairs, place):
    """What becomes of x and another element, in one row: x - t, or x * q."""
    row, operation = {"s": 0, "q": ONE, "t": 0}, {"q_is_scalar": 1, "t_is_scalar": 1}
    del operation[f"{place}_is_scalar"]
    fp32 = dict.fromkeys("xqt", FormatCode.FP32)
    layout, beats = elementwise_beat(LANES), -(-len(pairs) // LANES)
    words = np.zeros((beats, -(-layout.size // 64)), np.uint64)
    halves = words.view(np.uint32)
    for column, name in enumerate(("x", place)):
        first = layout[name].offset // 32
        halves[:, first:first + LANES] = pairs[:, column].reshape(beats, LANES)
    words[:, layout["count"].offset // 64] |= np.uint64(
        LANES << layout["count"].offset % 64)
    words[-1, layout["last"].offset // 64] |= np.uint64(1 << layout["last"].offset % 64)
    run = unit.run({"i_operation": [ElementwiseOperation.const(
                        fp32 | operation | {"rows": 1}).as_bits()],
                    "i_row": [ElementwiseRow.const(row).as_bits()], "i": words}, {"o": beats})
    first = row_beat(LANES)["elements"].offset // 32
    found = run.outputs["o"].reshape(beats, -1).view(np.uint32)
    return found[:, first:first + LANES].reshape(-1).tolist()


def compare(unit, place, exact, *kinds):
    pairs = [pair for kind in kinds for pair in kind]
    pairs += pairs[:-len(pairs) % LANES]
    found = results(unit, np.array(pairs, np.uint32), place)
    wrong = [(hex(a), hex(b), hex(got)) for (a, b), got in zip(pairs, found, strict=True)
             if got != exact(a, b)]
    assert not wrong, f"{len(wrong)} of {len(pairs)}: {wrong[:5]}"
    return len(pairs)


def test_sums_are_the_exact_ones_rounded_once(unit):
    assert compare(unit, "t", lambda a, b: add(a, b ^ MINUS), hard_pairs(), tie_pairs(30_000, 1),
                   close_pairs(30_000, 2), random_pairs(24_000, 3)) > 100_000


def test_products_are_the_exact_ones_rounded_once(unit):
    assert compare(unit, "q", multiply, hard_pairs(), near_smallest_pairs(54_000, 1),
                   random_pairs(30_000, 2)) > 100_000


def test_every_combination_of_formats_and_modes(unit):
    triples = list(product(FORMATS, repeat=3))
    check(unit, [random_operation([0, 1, 2, 3, 40], formats, MODES[number % 8], seed=number)
                 for number, formats in enumerate(triples)])
    check(unit, [random_operation([50, 51, 50], triples[7 * number], mode, seed=number)
                 for number, mode in enumerate(MODES)])


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (5, 1), (5, LANES), (7, 13), (3, 100)])
def test_cycles_are_those_of_the_formula(unit, rows, length):
    run = check(unit, [random_operation([length] * rows)])
    assert run.span("i", "o") == elementwise_cycles(CONFIG, rows, length)
    assert run.first["o"] - run.first["i"] == ELEMENTWISE_LATENCY


def test_operations_follow_without_a_bubble(unit):
    run = check(unit, [random_operation([4, 1, 0], mode=mode, seed=1) for mode in MODES])
    assert run.span("i", "o") == 8 * (-(-4 // LANES) + 2) + ELEMENTWISE_LATENCY


@pytest.mark.parametrize("drain", PATTERNS)
@pytest.mark.parametrize("stall", PATTERNS)
def test_stalls_of_all_streams_change_nothing(unit, stall, drain):
    names = list(FORMATS)
    operations = [random_operation([0, 1, 7, LANES, 30, 0, 3], [names[(n + i) % 5] for i in
                                   range(3)], mode, seed=n) for n, mode in enumerate(MODES)]
    patterns = {"i": stall, "o": drain, "i_row": drain, "i_operation": stall}
    check(unit, operations, stalls={
        name: list(islice(PATTERNS[pattern](seed), 999))
        for seed, (name, pattern) in enumerate(patterns.items())})


@pytest.mark.parametrize("cycles", [1, 5, 10, 44, 60])
def test_a_reset_in_the_middle_forgets_all(unit, cycles):
    operations = [random_operation([9, 0, 30], mode=mode, seed=2) for mode in MODES]
    inputs = payloads(operations)
    with pytest.raises(SimulationError, match=f"{cycles} cycles are over"):
        unit.run(inputs, {"o": len(inputs["i"])}, limit=cycles)
    unit.reset()
    check(unit, operations)


def test_pack_and_layout_agree():
    operation = random_operation([3], seed=5)
    (row,), layout = operation.rows, elementwise_beat(2)
    full, rest = map(layout.from_bits, pack_beats(operation, 2))
    assert [[one.x[0], one.q[0], one.t[0]] for one in (full, rest)] == [
        [row.x[n], row.q[n], row.t[n]] for n in (0, 2)]
    assert [full.x[1], full.q[1], full.t[1]] == [row.x[1], row.q[1], row.t[1]]
    assert (full.count, full.last, rest.count, rest.last) == (2, 0, 1, 1)
