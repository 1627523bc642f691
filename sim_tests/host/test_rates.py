"""Products per cycle of the compiled engine: dense, over changes of format, and while it drains.

A small engine and short rows; benchmarks/vpcu.py measures the default preset with the same code.
"""

import itertools

import pytest

from benchmarks.vpcu import (
    GOAL,
    back_to_back,
    changes,
    every_change,
    measure,
    missed,
    prepare,
)
from exactum.benches.product_sweep import pairs_of_formats
from exactum.hdl.formats import lookup
from exactum.hdl.lane import COLUMNS
from exactum.host.tiling import tile_columns
from sim_tests.host.native_engine import CONFIG, engine

PAIRS = [tuple(fmt.name for fmt in pair) for pair in pairs_of_formats(CONFIG)]
SAME = [pair for pair in PAIRS if pair[0] == pair[1]]
SUMS = CONFIG.vpcu.lanes * COLUMNS  # elements of a row under which its drain would be waited for


def product(pair, m, k, tiles=2, **options):
    columns = tiles * tile_columns(CONFIG, tuple(map(lookup, pair)))
    return prepare(CONFIG, pair, (m, k, columns), **options)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_dense_products_back_to_back_keep_every_multiplier_busy(pair):
    row = measure("dense", engine(), product(pair, 6, 96))
    assert not row["faults"]
    assert not missed(row)
    assert row["lost"] == 0
    assert row["of_peak"] == 1
    assert row["cycles"] < row["alone"]


def test_block_scales_cost_nothing_back_to_back():
    row = measure("dense", engine(), product(("e4m3", "e4m3"), 6, 96, scaled=True))
    assert (row["faults"], row["of_peak"]) == ([], 1)


def test_a_change_of_format_costs_less_than_the_pipeline_is_deep():
    row = changes(engine(), PAIRS, 4, 64)
    assert not row["faults"]
    assert row["lost"] == 0
    assert row["of_peak"] == 1


@pytest.mark.parametrize("pair", SAME, ids="-".join)
@pytest.mark.parametrize("k", [SUMS, SUMS + 1, 64])
def test_dense_rows_of_as_many_elements_as_sums_never_wait_for_the_drain(pair, k):
    row = measure("drain", engine(), product(pair, 40, k, tiles=1))
    assert not row["faults"]
    assert not missed(row)


@pytest.mark.parametrize("pair", SAME, ids="-".join)
@pytest.mark.parametrize("density", [0.02, 0.1, 0.4])
def test_sparse_rows_cost_their_work_or_as_many_cycles_as_they_have_sums(pair, density):
    """0.02 of 320 elements are fewer than the sums: those rows wait, as the model has it."""
    row = measure("drain", engine(), product(pair, 96, 320, tiles=1, density=density))
    assert not row["faults"]
    assert (row["lost"] > 0) == (density < 0.1) == bool(missed(row))


@pytest.mark.parametrize(("stream", "pauses"), [("o", 30), ("i_values", 7), ("i_b", 15)])
def test_an_engine_that_waits_is_found(stream, pauses):
    """``pauses``: cycles before each transfer, so many that the stream is what decides."""
    row = measure("dense", engine(), product(("fp16", "fp16"), 6, 64),
                  stalls={stream: [True] * pauses + [False]})
    assert row["of_peak"] < GOAL
    assert any("cycles, " in fault for fault in row["faults"])
    assert len(missed(row)) == 1


def test_wrong_results_are_counted():
    right = product(("e4m3", "e4m3"), 3, 64)
    right.bits[1, 2] ^= 1
    right.lost[2, 0] ^= True
    assert back_to_back(engine(), [right] * 2)[1] == 4


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_change_comes_exactly_once(count):
    order = every_change(count)
    assert sorted(itertools.pairwise(order)) == list(itertools.product(range(count), repeat=2))
