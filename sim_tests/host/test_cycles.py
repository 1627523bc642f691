"""The cycle model over batches, with and without infinities in B."""

import pytest
import torch

from exactum.gen.config import load
from exactum.host.cycles import gemm_cycles

FORMATS = [("e4m3", "e4m3"), ("e5m2", "fp16"), ("fp32", "bf16")]


@pytest.mark.parametrize("formats", FORMATS)
@pytest.mark.parametrize("preset", ["small", "default"])
@pytest.mark.parametrize(("m", "k", "n"), [
    (5, 130, 40), (1, 64, 3), (17, 0, 5), (0, 7, 5), (3, 7, 0), (4, 1500, 17)])
@pytest.mark.parametrize("special_share", [None, 0.0, 0.01, 0.4])
def test_a_batch_costs_what_its_products_cost(formats, preset, m, k, n, special_share):
    generator = torch.Generator().manual_seed(m + k + n)
    config = load(preset)
    nonzero = torch.rand(3, m, k, generator=generator) < 0.4
    special = None
    if special_share is not None:
        special = torch.rand(3, k, n, generator=generator) < special_share
    whole = gemm_cycles(config, nonzero, special, formats, columns=n)
    parts = [gemm_cycles(config, nonzero[i], None if special is None else special[i], formats,
                         columns=n) for i in range(3)]
    for name in ("cycles", "products", "products_skipped"):
        assert getattr(whole, name) == sum(getattr(part, name) for part in parts)
    assert whole.products + whole.products_skipped == 3 * m * k * n


def test_an_infinity_in_b_spares_no_product():
    nonzero = torch.zeros(2, 100, dtype=torch.bool)
    special = torch.zeros(100, 16, dtype=torch.bool)
    special[70, 3] = True
    work = gemm_cycles(load("small"), nonzero, special, ("e5m2", "e5m2"))
    assert work.products == 2 * 16
