"""Accuracy of softmax in every result format, against float64: ``python benchmarks/softmax.py``.

Prints a table and writes benchmarks/results/softmax.json. ``tables``: segments of 2^f and of 1/s.
``max_ulp``: the largest error, in units of the result's last place at the exact value.
``bit_equal``: the share of elements that are the correctly rounded ones. ``kl``: mean
Kullback-Leibler divergence of the rows, made to sum to 1, from the exact ones, in nats;
``kl_best``: that of correctly rounded rows. ``relative``: the largest relative error of normal
results.
"""

import torch
from common import report

from exactum.gen.config import preset
from exactum.hdl.formats import FORMATS
from exactum.host.softmax import exact_softmax

LENGTHS = (2, 8, 64, 256, 1000)
ELEMENTS = 400_000


def logits(length: int) -> torch.Tensor:
    """Normal logits, row by row of another spread, from 1/8 to 16."""
    generator = torch.Generator().manual_seed(length)
    spread = torch.exp2(torch.rand(ELEMENTS // length, 1, generator=generator) * 7 - 3)
    return torch.randn(ELEMENTS // length, length, generator=generator) * spread


def measure(name: str, segments: tuple[int, int]) -> dict[str, object]:
    """The row of one result format."""
    fmt = FORMATS[name]
    config = preset("default").replace({"softmax.exp_segments": segments[0],
                                        "softmax.reciprocal_segments": segments[1]})
    rows = elements = equal = 0
    max_ulp = kl = kl_best = relative = 0.0
    for length in LENGTHS:
        x = logits(length)
        exact = torch.softmax(x.double(), -1)
        p = exact_softmax(x, name, config=config).float().double()
        exponent = torch.frexp(exact).exponent.clamp(min=fmt.min_exponent + 1).double() - 1
        ulp = torch.exp2(exponent - fmt.mantissa_width)
        correct = torch.round(exact / ulp) * ulp
        normal = exact >= 2.0 ** fmt.min_exponent
        error = (p - exact).abs()
        rows, elements = rows + len(x), elements + x.numel()
        max_ulp = max(max_ulp, float((error / ulp).max()))
        relative = max(relative, float((error / exact)[normal].max()))
        equal += int((p == correct).sum())
        kl, kl_best = kl + divergence(p, exact), kl_best + divergence(correct, exact)
    return {"format": name, "tables": "{}/{}".format(*segments), "rows": rows,
            "max_ulp": float(f"{max_ulp:.4g}"), "bit_equal": round(equal / elements, 5),
            "kl": float(f"{kl / rows:.2g}"), "kl_best": float(f"{kl_best / rows:.2g}"),
            "relative": float(f"{relative:.2g}")}


def divergence(p: torch.Tensor, exact: torch.Tensor) -> float:
    """The rows' divergences, added up; of q from p, since a q of 0 has none from an exact p > 0."""
    q = p / p.sum(-1, keepdim=True)
    return float(torch.where(q > 0, q * (q / exact).log(), 0.0).sum())


def main() -> None:
    """Measure, print and write."""
    report("softmax", [measure(name, segments)
                       for segments in ((64, 128), (128, 256)) for name in FORMATS])


if __name__ == "__main__":
    main()
