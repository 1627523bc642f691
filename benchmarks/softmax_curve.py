"""The softmax unit's error over its input: ``python benchmarks/softmax_curve.py``.

Draws docs/images/softmax-error.svg: rows of a 0 and an x from -104 to 0, in fp32; the relative
error of x's probability, smallest and largest in each half, with both sets of tables.
"""

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot

from exactum.gen.config import preset
from exactum.hdl.softmax_tables import probability_error
from exactum.host.softmax import exact_softmax

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "softmax-error.svg"
TABLES = ((4096, 2048, 18), (16384, 16384, 22))
STEP, SAMPLES, LOWEST = 0.5, 2048, -87  # below, results are subnormal


def errors(tables: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Places, and the smallest and the largest relative error around each."""
    keys = ("softmax.exp_entries", "softmax.reciprocal_entries", "softmax.value_width")
    config = preset("default").replace(dict(zip(keys, tables, strict=True)))
    x = torch.arange(LOWEST / STEP * SAMPLES, 0) * (STEP / SAMPLES)
    rows = torch.stack([torch.zeros_like(x), x], -1)
    p = exact_softmax(rows, "fp32", config=config)[:, 1].double()
    error = (p / torch.softmax(rows.double(), -1)[:, 1] - 1).view(-1, SAMPLES)
    return x[SAMPLES // 2::SAMPLES], error.amin(-1), error.amax(-1)


def main() -> None:
    """Draw and write."""
    mpl.rcParams |= {"svg.hashsalt": "exactum", "svg.fonttype": "none", "font.size": 9}
    figure, axes = pyplot.subplots(2, figsize=(8, 5), sharex=True)
    for axis, tables in zip(axes, TABLES, strict=True):
        x, low, high = errors(tables)
        bound = float(probability_error(*tables, 2))
        axis.fill_between(x, low, high, step="mid", linewidth=0)
        axis.axhline(bound, linewidth=0.8, color="black")
        axis.axhline(-bound, linewidth=0.8, color="black")
        axis.set_ylim(-1.3 * bound, 1.3 * bound)
        axis.set_title("tables of {} and {} entries, values of {} bits; lines: the bound".format(
            *tables))
        axis.set_ylabel("relative error")
    axes[-1].set_xlabel("x, in rows of 0 and x")
    figure.tight_layout()
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
