"""What zeros make needless: against a plain reading of rules N2 and N3, element by element."""

import itertools

import pytest
import torch

from exactum.host import columns as module
from exactum.host.columns import Factor, empty_columns, kept, row_indices
from exactum.host.masks import NonZeros

VALUES = torch.tensor([0.0, 1.0, float("inf"), float("nan")]).double()


def factor(x):
    special = ~x.isfinite()
    return Factor(NonZeros(x), special if special.any() else None)


def matrices(count, shape, seed, specials=0.02):
    """Rows and columns of zeros are frequent in them; few elements are Inf or NaN."""
    random = torch.Generator().manual_seed(seed)
    x = (torch.rand(count, *shape, generator=random) < 0.4).double()
    x[torch.rand(count, shape[0], generator=random) < 0.3] = 0
    x.mT[torch.rand(count, shape[1], generator=random) < 0.3] = 0
    x[torch.rand(x.shape, generator=random) < specials] = torch.nan
    return x


def needed(a, b):
    """Which of M, K, N are needed for a [M, K] @ b.T, b [N, K]: by what each product is."""
    products = a[:, None] * b[None]                               # [M, N, K]; 0 * NaN is NaN
    inner = ~(products == 0).all(1).all(0)
    rows = ((a != 0) & inner).any(1) | (~b.isfinite()).any()
    columns = ((b != 0) & inner).any(1) | (~a.isfinite()).any()
    return rows, inner, columns


@pytest.mark.parametrize("specials", [0.0, 0.02])
def test_what_is_kept_is_what_some_result_needs(specials):
    seen = set()
    for a, b in zip(matrices(300, (4, 9), 1, specials), matrices(300, (3, 9), 2, specials),
                    strict=True):
        found, expected = kept(factor(a), factor(b)), needed(a, b)
        assert (found is None) == all(part.all() for part in expected)
        seen.add(found is None)
        for part, wanted in zip(found or (), expected, strict=found is not None):
            assert torch.equal(part, wanted)
    assert seen == {False}
    assert kept(*[factor(torch.ones(3, 9).double())] * 2) is None


def test_the_sum_of_what_is_kept_is_the_sum():
    for a, b in zip(matrices(200, (4, 9), 3), matrices(200, (3, 9), 4), strict=True):
        found = kept(factor(a), factor(b))
        if found is not None:
            rows, inner, columns = found
            whole = torch.zeros(4, 3).double()
            whole[rows[:, None] & columns] = (a[rows][:, inner] @ b[columns][:, inner].T).flatten()
            assert torch.equal(whole.nan_to_num(7), (a @ b.T).nan_to_num(7))


def test_a_batch_is_its_products():
    a, b = matrices(20, (5, 12), 5), matrices(20, (7, 12), 6)
    whole = kept(factor(a), factor(b))
    for index, pair in enumerate(zip(a, b, strict=True)):
        alone = kept(*map(factor, pair))
        for part, expected in zip(whole.at(index), alone or (), strict=alone is not None):
            assert torch.equal(part, expected)


def test_the_transposed_product_keeps_the_same():
    for a, b in zip(matrices(50, (4, 9), 7), matrices(50, (3, 9), 8), strict=True):
        one, other = kept(factor(a), factor(b)), kept(factor(b), factor(a))
        for part, expected in zip(one.turned if one else (), other or (), strict=True):
            assert torch.equal(part, expected)


@pytest.mark.parametrize("block", [2, 4, 64])
def test_scaled_blocks_are_kept_whole(block):
    for a, b in zip(matrices(50, (3, 70), 9), matrices(50, (3, 70), 10), strict=True):
        fine, coarse = kept(factor(a), factor(b)), kept(factor(a), factor(b), block)
        inner = torch.ones(70, dtype=torch.bool) if coarse is None else coarse.inner
        for start in range(0, 70, block):
            part = slice(start, start + block)
            assert inner[part].all() if fine.inner[part].any() else not inner[part].any()


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 200, 1100])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_columns_of_zeros_are_found_wherever_the_last_element_is(rows, batch):
    random = torch.Generator().manual_seed(rows)
    x = torch.zeros(*batch, rows, 40, dtype=torch.float64)
    for place in itertools.product(*map(range, batch)):
        for column in range(0, 40 if rows else 0, 2):
            row = int(torch.randint(rows, (), generator=random))
            x[(*place, row, column)] = VALUES[1 + column % 3]
    assert torch.equal(empty_columns(NonZeros(x)), (x == 0).all(-2))


def test_a_row_alone_needs_where_it_is_not_zero_and_where_the_other_factor_is_not_finite():
    a = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0]]).bool()
    special = torch.tensor([[False, False, True, False]])
    assert row_indices(a, None).tolist() == a.tolist()
    assert row_indices(a, special).tolist() == [[False, True, True, True],
                                                [True, False, True, False]]
    assert row_indices(a, None, 2).tolist() == [[True] * 4, [True, True, False, False]]


def forgotten_specials(monkeypatch):
    """A fault: 0 x NaN is taken for zero."""
    right = module.kept
    monkeypatch.setattr(module, "kept", lambda a, b: right(a._replace(special=None),
                                                           b._replace(special=None)))


def last_rows_unread(monkeypatch):
    """A fault: columns are judged by their first rows."""
    monkeypatch.setattr(module, "empty_columns", lambda x: empty_columns(
        NonZeros(x.values[..., :3, :])))


@pytest.mark.parametrize("fault", [forgotten_specials, last_rows_unread])
def test_the_tests_catch_faults(monkeypatch, fault):
    fault(monkeypatch)
    monkeypatch.setitem(globals(), "kept", module.kept)
    with pytest.raises((AssertionError, ValueError)):
        test_what_is_kept_is_what_some_result_needs(0.02)
