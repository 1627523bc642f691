"""Single products of the cycle model: sparse weights, and attention probabilities in FP8."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from exactum.gen.config import preset
from exactum.hdl.formats import lookup
from exactum.host import offload
from exactum.host.columns import Factor
from exactum.host.cycles import gemm_cycles
from exactum.host.device import EmulatorDevice
from exactum.host.masks import NonZeros
from exactum.host.numerics import decode, quantize
from exactum.host.tally import tally
from exactum.host.tiling import tile_columns, tile_words

__all__ = ["Probabilities", "attention", "sparse_weights"]

E4M3 = (lookup("e4m3"), lookup("e4m3"))
DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.37, 0.5)
SHAPE = (512, 512, 128)
LIMITS = ((512, 64, 128), (768, 3072, 512), (16, 768, 512))
TILES = (8, 32)
CONFIG = preset("default")


def sparse_weights(trained: dict[str, Tensor]) -> Iterator[dict[str, object]]:
    """Weights [M, K] times dense activations [K, N]: unstructured zeros, one element in each 8 or
    16 of a row, and ``trained`` weights; then shapes for which the engine is not made.

    ``of_ideal``: the cycles in which every multiplier has a product that counts, of all cycles.
    ``packed``: the same with columns packed by first fit (`packed_groups`).
    """
    random = torch.Generator().manual_seed(1)
    m, k, n = SHAPE
    masks = {f"unstructured, {density:.0%}": torch.rand(m, k, generator=random) < density
             for density in DENSITIES}
    for one_of in (8, 16):
        places = torch.randint(one_of, (m, k // one_of, 1), generator=random)
        masks[f"one of {one_of} in a row"] = (torch.arange(one_of) == places).flatten(1)
    masks |= {name: weight.detach() != 0 for name, weight in trained.items()}
    for name, mask in masks.items():
        yield {"case": f"{m} x {k} x {n}, {name}", "density": round(float(mask.double().mean()), 4),
               **shares(mask, n)}
    for m, k, n in LIMITS:
        mask = torch.rand(m, k, generator=random) < 0.1
        yield {"case": f"{m} x {k} x {n}, unstructured, 10%", "density": 0.1, **shares(mask, n)}


def shares(mask: Tensor, n: int) -> dict[str, float]:
    """What is reached of the ideal, by the engine and with columns packed."""
    return {"of_ideal": of_ideal(mask, n, engine_cycles(mask, n))} | {
        f"packed_by_{rows}_rows": of_ideal(mask, n, packed_cycles(mask, n, rows)) for rows in TILES}


def of_ideal(mask: Tensor, n: int, cycles: int) -> float:
    """The cycles that the products which count fill, of ``cycles``."""
    return round(int(mask.sum()) * n / tile_columns(CONFIG, E4M3) / cycles, 4)


def engine_cycles(mask: Tensor, n: int) -> int:
    """Of the engine as it is."""
    dense = torch.ones(n, mask.shape[1], dtype=torch.bool)
    return tally(CONFIG, Factor(NonZeros(mask)), Factor(NonZeros(dense)), E4M3).cycles


def packed_cycles(mask: Tensor, n: int, rows: int) -> int:
    """Of an engine that loads and drains as ours does and takes a cycle for each group of columns,
    which are packed anew for each tile of ``rows``. Lines of zeros are left out, as by ours.

    Rows longer than the tile buffer load B for their own elements, as ours do. That takes longer
    than any row's groups, so only those of the last row are waited for.
    """
    mask = mask[mask.any(1)][:, mask.any(0)]
    groups = torch.cat([packed_groups(tile).expand(len(tile)) for tile in mask.split(rows)])
    if mask.shape[1] <= CONFIG.vpcu.b_depth:
        return gemm_cycles(CONFIG, NonZeros(mask, groups[:, None]), None, E4M3, columns=n).cycles
    elements = mask.sum(1)
    assert int(elements.max()) <= CONFIG.vpcu.b_depth
    assert int(groups.max()) < tile_words(CONFIG, int(elements.min()), False)
    own = gemm_cycles(CONFIG, mask, None, E4M3, columns=n, indices=mask).cycles
    return own + int(groups[-1] - elements[-1])


def packed_groups(tile: Tensor) -> Tensor:
    """How many groups the columns of bool [R, K] make, int64 []; R is at most 62. First fit: each
    column, those with most elements first, goes to the first group with whose elements none of its
    own collides. No packing makes fewer groups than its longest row has elements."""
    bits = (tile.long() << torch.arange(len(tile))[:, None]).sum(0)
    columns = bits[tile.sum(0).argsort(descending=True)]
    groups, used = np.zeros(len(columns) + 1, np.int64), 0
    for column in columns[columns != 0].tolist():
        place = int((groups[:used + 1] & column == 0).argmax())
        groups[place] |= column
        used = max(used, place + 1)
    return torch.tensor(used)


class Probabilities(EmulatorDevice):
    """An emulator that keeps what a causal attention over ``length`` multiplies with V."""

    length = 64

    def gemm(self, a: Tensor, b: Tensor, *arguments: object, **options: object) -> Tensor:
        if a.dim() == 3 and a.shape[1:] == (self.length, self.length) and not a.triu(1).any():
            self.found.append((a, b))
        return super().gemm(a, b, *arguments, **options)


def attention(model: nn.Module, batches: list[Tensor]) -> Iterator[dict[str, object]]:
    """Zeros among a trained model's attention probabilities in FP8, and cycles of P x V."""
    device = Probabilities(CONFIG)
    device.found = []
    with torch.no_grad(), offload(device, "e4m3"):
        for batch in batches:
            model(batch)
    p, v = (torch.cat(x) for x in zip(*device.found, strict=True))
    scale_of_p = 256                                    # of the offload; a first row has one, of 1
    assert (1 - 2 ** -14) * scale_of_p <= float(p.amax()) <= scale_of_p
    length = p.shape[-1]
    past = torch.ones(length, length, dtype=torch.bool).tril()
    values = Factor(NonZeros(decode(quantize(v, "e4m3")).mT != 0))
    before = tally(CONFIG, Factor(NonZeros(past.expand(p.shape))), values, E4M3)
    for fmt in ("e4m3", "e5m2"):
        pair = (lookup(fmt), lookup("e4m3"))
        for name, scale in (("scaled by 2^8", 1.0), ("unscaled", 1 / scale_of_p)):
            nonzero = decode(quantize(p * scale, fmt)) != 0
            for kind in ("default", "small"):
                if kind == "small" and fmt != "e4m3":
                    continue
                found = tally(preset(kind), Factor(NonZeros(nonzero)), values, pair)
                yield {"case": f"P in {fmt.upper()} {name}, {kind}",
                       "zeros": round(1 - float(nonzero.double().mean()), 4),
                       "zeros_of_past": round(1 - float(nonzero[:, past].double().mean()), 4),
                       "products_fewer": round(found.products_skipped / (
                           found.products + found.products_skipped), 4),
                       "cycles_fewer": round(1 - found.cycles / found.cycles_dense, 4)}
    yield {"case": "causal mask alone, default", "zeros": round(1 - float(past.double().mean()), 4),
           "zeros_of_past": 0.0, "cycles_fewer": round(1 - before.cycles / before.cycles_dense, 4)}
