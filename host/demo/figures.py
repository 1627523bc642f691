"""The pictures of the demo: how the loss falls in fp32 and offloaded, and how far they part.

Text is black and grounds are clear: the report page turns black into its own text colour, so that
a picture reads in light and in dark.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

__all__ = ["loss_figure", "smoothed"]

_FP32, _OFFLOADED, _QUIET = "#e08a2e", "#3b7dd8", "#8a8f98"


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """Each loss averaged with its neighbours, over a twentieth of the steps; same length."""
    reach = max(1, len(losses) // 40)
    padded = np.pad(np.asarray(losses, dtype=float), reach, mode="reflect")
    return np.convolve(padded, np.full(2 * reach + 1, 1 / (2 * reach + 1)), mode="valid")


def loss_figure(fp32: Sequence[float], offloaded: Sequence[float], *, allowed: float | None = None,
                level: tuple[str, float] | None = None) -> Figure:
    """Both losses over the steps, and under them how far the offloaded one is off.

    Parameters
    ----------
    fp32, offloaded : sequence of float
        The loss of each step.
    allowed : float, optional
        Share by which it may be off at the end; drawn as a band.
    level : (name, loss), optional
        A loss to compare with, drawn as a line.
    """
    figure = Figure(figsize=(6.6, 4.6), layout="constrained")
    top, bottom = figure.subplots(2, sharex=True, height_ratios=(2.4, 1))
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=_QUIET, alpha=0.3, linewidth=0.6)
        axes.set_axisbelow(True)
    steps = np.arange(1, len(fp32) + 1)
    for losses, colour in ((fp32, _FP32), (offloaded, _OFFLOADED)):
        top.plot(steps, losses, color=colour, alpha=0.22, linewidth=0.7)
    first, second = smoothed(fp32), smoothed(offloaded)
    top.plot(steps, first, color=_FP32, linewidth=6, alpha=0.55, label="torch fp32")
    top.plot(steps, second, color=_OFFLOADED, linewidth=1.4, label="offloaded, FP8")
    if level:
        top.axhline(level[1], color=_QUIET, linestyle="--", linewidth=1)
        top.annotate(level[0], (1, level[1]), xycoords=("axes fraction", "data"),
                     xytext=(0, 3), textcoords="offset points", ha="right", fontsize=8)
    top.set_ylabel("loss, nats")
    top.set_ylim(bottom=0)
    top.legend(frameon=False, loc="upper right" if not level else "lower left")
    apart = 100 * (second / first - 1)
    band = 100 * (allowed or 0.0)
    if band:
        bottom.axhspan(-band, band, color=_OFFLOADED, alpha=0.12, linewidth=0)
    bottom.axhline(0, color=_QUIET, linewidth=0.8)
    bottom.plot(steps, apart, color=_OFFLOADED, linewidth=1.4)
    reach = 1.1 * max(float(np.nanmax(np.abs(apart))), band, 1.0)
    bottom.set_ylim(-reach, reach)
    bottom.yaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 5, 10)))
    bottom.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g} %" if value
                                                   else "0 %"))
    bottom.set_ylabel("against fp32")
    bottom.set_xlabel("step")
    bottom.set_xlim(1, max(2, len(fp32)))
    return figure
