"""Single products of the cycle model: sparse weights, and attention probabilities in FP8."""

from collections.abc import Iterator

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
from exactum.host.tiling import tile_columns

__all__ = ["Probabilities", "attention", "sparse_weights"]

E4M3 = (lookup("e4m3"), lookup("e4m3"))
DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.37, 0.5)
SHAPES = ((512, 64, 128), (512, 512, 128), (768, 768, 512), (768, 3072, 512), (16, 768, 512))


def sparse_weights() -> Iterator[dict[str, object]]:
    """Weights [M, K], unstructured zeros, times dense activations [K, N]; default preset.

    ``of_ideal``: of cycles in which every multiplier has a product that counts. ``of_rows``: of the
    cycles that rows take which wait for the sums before them to leave. ``packing``: what would be
    won at most by merging columns, so that no window of a row is without an element; the rows of B
    that they multiply must be loaded all the same. None where K exceeds the tile buffer: rows go
    one by one there, each with its own indices, and have no such windows.
    """
    config = preset("default")
    width = tile_columns(config, E4M3)
    random = torch.Generator().manual_seed(1)
    for m, k, n in SHAPES:
        for density in DENSITIES:
            mask = torch.rand(m, k, generator=random) < density
            ones = NonZeros(torch.ones(n, k, dtype=torch.bool))
            cycles = tally(config, Factor(NonZeros(mask)), Factor(ones), E4M3).cycles
            packing = None
            if k <= config.vpcu.b_depth:
                used = mask[mask.any(1)][:, mask.any(0)]
                one_window = NonZeros(used, used.sum(1, keepdim=True))
                merged = gemm_cycles(config, one_window, None, E4M3, columns=n).cycles
                packing = round(cycles / min(cycles, merged) - 1, 3)
            tiles = -(-n // width)
            rows = int(mask[mask.any(1)].sum(1).clamp(min=width).sum()) * tiles
            yield {"case": f"{m} x {k} x {n}", "density": density, "cycles": cycles,
                   "of_ideal": round(int(mask.sum()) * n / width / cycles, 3),
                   "of_rows": round(rows / cycles, 3),
                   "packing": packing}


class Probabilities(EmulatorDevice):
    """An emulator that keeps what a causal attention over ``length`` multiplies with V."""

    length = 64

    def gemm(self, a: Tensor, b: Tensor, *arguments: object, **options: object) -> Tensor:
        if a.dim() == 3 and a.shape[1:] == (self.length, self.length) and not a.triu(1).any():
            self.found.append((a, b))
        return super().gemm(a, b, *arguments, **options)


def attention(model: nn.Module, batches: list[Tensor]) -> Iterator[dict[str, object]]:
    """Zeros among a trained model's attention probabilities in E4M3, and cycles of P x V."""
    device = Probabilities(preset("default"))
    device.found = []
    with torch.no_grad(), offload(device, "e4m3"):
        for batch in batches:
            model(batch)
    p, v = (torch.cat(x) for x in zip(*device.found, strict=True))
    largest = float(p.amax())
    assert largest == 256                               # a first row's only probability, times 2^8
    length = p.shape[-1]
    past = torch.ones(length, length, dtype=torch.bool).tril()
    values = Factor(NonZeros(decode(quantize(v, "e4m3")).mT != 0))
    for name, scale in (("scaled by 2^8", 1.0), ("unscaled", 1 / largest)):
        nonzero = decode(quantize(p * scale, "e4m3")) != 0
        for kind in ("default", "small"):
            config = preset(kind)
            found = tally(config, Factor(NonZeros(nonzero)), values, E4M3)
            yield {"case": f"P in E4M3 {name}, {kind}",
                   "zeros": round(1 - float(nonzero.double().mean()), 4),
                   "zeros_of_past": round(1 - float(nonzero[:, past].double().mean()), 4),
                   "products_fewer": round(found.products_skipped / (
                       found.products + found.products_skipped), 4),
                   "cycles_fewer": round(1 - found.cycles / found.cycles_dense, 4)}
