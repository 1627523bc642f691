"""What the products of one call cost, added up: a batch is its products, whatever way each goes."""

import pytest
import torch

from exactum.hdl.formats import lookup
from exactum.host import tally as module
from exactum.host.columns import Factor
from exactum.host.cycles import GemmWork, gemm_cycles
from exactum.host.masks import NonZeros
from exactum.host.orientation import choose
from exactum.host.plan import plan_gemm
from exactum.host.tally import Tally, tally
from sim_tests.host.test_orientation import CONFIG, E4M3, PAIRS, factors, product


@pytest.mark.parametrize("share", [0.0, 0.02])
@pytest.mark.parametrize("k", [64, 70, 200])
def test_a_batch_adds_up_its_products(k, share):
    a, b = (torch.stack(x) for x in zip(*(product((9, k, 12), PAIRS[0], seed, specials=share,
                                                  empty=seed % 3 == 0) for seed in range(9)),
                                        strict=True))
    left, right = factors(a, b, PAIRS[0])
    whole, parts = tally(CONFIG, left, right, E4M3), Tally()
    for index in range(9):
        parts.add(tally(CONFIG, *factors(a[index], b[index], PAIRS[0]), E4M3))
    assert whole == parts
    assert whole.products + whole.products_skipped == 9 * 9 * k * 12


def test_tall_products_of_a_dense_operand_are_turned_and_counted():
    dense, sparse = torch.ones(64, 64).bool(), torch.eye(64).bool()
    for a, b, turned in ((dense, sparse, 1), (sparse, dense, 0)):
        found = tally(CONFIG, Factor(NonZeros(a)), Factor(NonZeros(b)), E4M3)
        assert found.transposed == turned
        assert found.products == 64 * 64
        assert found.products_skipped == 63 * 64 * 64


def test_an_empty_product_costs_nothing():
    zero = torch.zeros(3, 4, dtype=torch.int64)
    assert choose(CONFIG, *factors(zero, zero.mT, PAIRS[0]), E4M3).work == GemmWork(0, 0, 0)
    found = tally(CONFIG, *factors(zero, zero.mT, PAIRS[0]), E4M3)
    assert (found.cycles, found.products_skipped, found.results, found.bytes_in) == (0, 36, 0, 0)
    plan = plan_gemm(zero, zero.mT, PAIRS[0], "fp32", config=CONFIG)
    assert plan.operations == []
    assert plan.gather([])[0].tolist() == [[0] * 3] * 3


@pytest.mark.parametrize("shape", [(64, 64, 64), (10, 70, 33), (33, 70, 10), (5, 300, 9)])
@pytest.mark.parametrize("formats", PAIRS, ids="-".join)
def test_cycles_of_dense_products_are_known_from_their_sizes(shape, formats):
    m, k, n = shape
    pair = tuple(map(lookup, formats))
    ones = Factor(NonZeros(torch.ones(m, k).bool())), Factor(NonZeros(torch.ones(n, k).bool()))
    found = tally(CONFIG, *ones, pair)
    assert found.cycles_dense == found.cycles == choose(CONFIG, *ones, pair).work.cycles
    as_it_stands = tally(CONFIG, *ones, pair, orientation="a")
    assert as_it_stands.cycles_dense == gemm_cycles(CONFIG, ones[0].nonzero, None, formats,
                                                    columns=n).cycles >= found.cycles
    sparse = tally(CONFIG, Factor(NonZeros(torch.eye(m, k).bool())), ones[1], pair)
    assert sparse.cycles_dense == found.cycles_dense


def test_a_tally_has_the_cycles_of_the_way_that_is_chosen():
    for seed in range(27):
        a, b = product((40, 70, 5), PAIRS[0], seed, empty=seed > 18)
        assert tally(CONFIG, *factors(a, b, PAIRS[0]), E4M3).cycles == choose(
            CONFIG, *factors(a, b, PAIRS[0]), E4M3).work.cycles


def test_the_tests_catch_a_bound_that_is_too_high(monkeypatch):
    """A fault: the second way is never tried."""
    monkeypatch.setattr(module, "fewest_cycles", lambda *_: 1 << 60)
    with pytest.raises(AssertionError):
        test_a_tally_has_the_cycles_of_the_way_that_is_chosen()
