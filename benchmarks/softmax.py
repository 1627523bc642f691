"""Accuracy of softmax in every result format, against float64: ``python benchmarks/softmax.py``.

Prints a table and writes benchmarks/results/softmax.json. ``tables``: entries of the tables of e^-x
and of 1/s, and their values' bits. ``rows``: what they are like; ``count``: how many. ``max_ulp``:
the largest error, in units of the result's last place at the exact value. ``bit_equal``: the share
of elements that are the correctly rounded ones. ``kl``: mean Kullback-Leibler divergence of the
rows, made to sum to 1, from the exact ones, in nats; ``kl_best``: that of correctly rounded rows.
``sum_error``: the largest |sum - 1| of a row, ``sum_best`` that of correctly rounded ones.
``relative``: the largest relative error of normal results.
"""

from collections.abc import Iterator

import torch
from common import report

from exactum.gen.config import Configuration, preset
from exactum.hdl.formats import FORMATS, Format
from exactum.host.numerics import decode, from_bits, quantize
from exactum.host.softmax import exact_softmax

LENGTHS = (1, 2, 3, 7, 8, 64, 100, 256, 1000, 1024, 2048, 4095, 4096)
TABLES = ((4096, 2048, 18), (16384, 16384, 22))
ELEMENTS = 200_000  # of each length
PARTNERS = 7


def every_input(name: str) -> Iterator[torch.Tensor]:
    """Rows with each finite number of a format, with normal partners and some around it."""
    generator = torch.Generator().manual_seed(16)
    x = decode(from_bits(torch.arange(1 << FORMATS[name].width), name))
    x = x[x.isfinite()].unsqueeze(-1)
    partners = torch.randn(len(x), PARTNERS, generator=generator) * 3
    partners[:, 3:] += x
    yield decode(quantize(torch.cat([x, partners], -1), name))


def normal(spread: float) -> Iterator[torch.Tensor]:
    """Normal logits."""
    for length in LENGTHS:
        generator = torch.Generator().manual_seed(length)
        yield torch.randn(ELEMENTS // length, length, generator=generator) * spread


def flat() -> Iterator[torch.Tensor]:
    """Equal logits, in rows of every length to 256, and some longer."""
    for length in (*range(1, 257), *(n for n in LENGTHS if n > 256)):
        yield torch.linspace(-90, 90, 4).unsqueeze(-1).expand(4, length)


def peaked() -> Iterator[torch.Tensor]:
    """One logit above equal ones, by 0 to 20; and above normal ones."""
    above = torch.linspace(0, 20, 161).unsqueeze(-1)
    for length in LENGTHS:
        x = torch.zeros(len(above), length)
        x[:, :1] = above
        yield x
        yield x + torch.randn(x.shape, generator=torch.Generator().manual_seed(length))


def masked() -> Iterator[torch.Tensor]:
    """Normal logits, half of them masked: by -Inf, by -1e9, by fp32's lowest."""
    for x in normal(2.0):
        generator = torch.Generator().manual_seed(x.shape[-1])
        mask = torch.rand(x.shape, generator=generator) < 0.5
        mask[:, 0] = False
        for low in (-torch.inf, -1e9, torch.finfo(torch.float32).min):
            yield x.masked_fill(mask, low)


KINDS = {
    "every bf16 number": lambda: every_input("bf16"),
    "every fp16 number": lambda: every_input("fp16"),
    **{f"normal, sigma {spread}": lambda spread=spread: normal(spread) for spread in (1, 2, 3, 8)},
    "flat": flat, "peaked": peaked, "masked": masked,
}


class Tally:
    """What rows of one kind come to in one format."""

    def __init__(self, fmt: Format, config: Configuration) -> None:
        self.fmt, self.config = fmt, config
        self.count = self.elements = self.equal = 0
        self.ulp = self.relative = self.sum_error = self.sum_best = self.kl = self.kl_best = 0.0

    def add(self, x: torch.Tensor) -> None:
        """Count some rows."""
        fmt = self.fmt
        exact = torch.softmax(x.double(), -1)
        p = exact_softmax(x, fmt.name, config=self.config).float().double()
        exponent = torch.frexp(exact).exponent.clamp(min=fmt.min_exponent + 1).double() - 1
        ulp = torch.exp2(exponent - fmt.mantissa_width)
        correct = torch.round(exact / ulp) * ulp
        error = (p - exact).abs()
        normal = exact >= 2.0 ** fmt.min_exponent
        self.count, self.elements = self.count + len(x), self.elements + x.numel()
        self.equal += int((p == correct).sum())
        self.ulp = max(self.ulp, float((error / ulp).max()))
        self.relative = max(self.relative, float(torch.where(normal, error / exact, 0.0).max()))
        self.sum_error = max(self.sum_error, float((p.sum(-1) - 1).abs().max()))
        self.sum_best = max(self.sum_best, float((correct.sum(-1) - 1).abs().max()))
        self.kl += divergence(p, exact)
        self.kl_best += divergence(correct, exact)


def divergence(p: torch.Tensor, exact: torch.Tensor) -> float:
    """The rows' divergences, added up; of q from p, since a q of 0 has none from an exact p > 0.

    A row of which nothing is left counts as none.
    """
    q = p / p.sum(-1, keepdim=True).clamp(min=2.0 ** -200)
    return float(torch.where(q > 0, q * (q / exact).log(), 0.0).sum())


def measure(name: str, kind: str, tables: tuple[int, int, int]) -> dict[str, object]:
    """The row of one result format and one kind of rows."""
    keys = ("softmax.exp_entries", "softmax.reciprocal_entries", "softmax.value_width")
    config = preset("default").replace(
        {"softmax.max_length": max(LENGTHS), **dict(zip(keys, tables, strict=True))})
    tally = Tally(FORMATS[name], config)
    for x in KINDS[kind]():
        tally.add(x)
    return {"format": name, "tables": "{}/{}/{}".format(*tables), "rows": kind,
            "count": tally.count, "max_ulp": float(f"{tally.ulp:.4g}"),
            "bit_equal": round(tally.equal / tally.elements, 6),
            "kl": float(f"{tally.kl / tally.count:.2g}"),
            "kl_best": float(f"{tally.kl_best / tally.count:.2g}"),
            "sum_error": float(f"{tally.sum_error:.2g}"),
            "sum_best": float(f"{tally.sum_best:.2g}"),
            "relative": float(f"{tally.relative:.3g}")}


def main() -> None:
    """Measure, print and write."""
    report("softmax", [measure(name, kind, tables)
                       for tables in TABLES for name in FORMATS for kind in KINDS])


if __name__ == "__main__":
    main()
