"""What docs/zce.md says of skipping by the cycle model, which the benches hold to the gateware."""

import torch

from exactum.gen.config import preset
from exactum.host.cycles import gemm_cycles
from sim_tests.repository import ROOT

TEXT = " ".join((ROOT / "docs" / "zce.md").read_text("utf-8").split())


def skipped(rows, density, tiles):
    """The ideal cycles and those of the model, of rows of K = 768 times so many tiles alone."""
    mask = torch.rand(rows, 768, generator=torch.Generator().manual_seed(1)) < density
    return int(mask.sum()) * tiles, gemm_cycles(
        preset("default"), mask, None, ("e4m3", "e4m3"), columns=32 * tiles).cycles


def test_what_one_product_of_eight_tiles_reaches():
    densities = (0.1, 0.25, 0.37, 0.5, 0.75, 1.0)
    goals = (0.93, 0.96, 0.97, 0.98, 0.99, 0.995)
    reached = [ideal / cycles for ideal, cycles in (skipped(256, x, 8) for x in densities)]
    assert all(found >= goal for found, goal in zip(reached, goals, strict=True))
    figures = ", ".join(f"{100 * found:.1f}" for found in reached[:-1])
    assert f"N = 256: {figures} and {100 * reached[-1]:.1f} %, by the" in TEXT


def test_how_many_rows_skipping_needs():
    shares = []
    for rows in (64, 32, 16):
        (ideal, cycles), (more, later) = (skipped(rows, 0.1, tiles) for tiles in (20, 30))
        shares.append(round(100 * (more - ideal) / (later - cycles)))
    left, fewer, least = shares
    assert (f"With 64 rows a tile {left} % of the ideal are left there, with 32 {fewer} %, "
            f"with 16 {least} %") in TEXT
