"""The picture of what zeros save: density per layer as the run goes on, and cycles against it."""

import math
from collections import Counter
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .report import Row

__all__ = ["density_figure"]

_MOST_POINTS = 32     # of a layer's line
_MOST_LINES = 8
_COLOURS = ("#3b7dd8", "#e08a2e", "#2f9e7d", "#a05fb4", "#c44e52", "#7f6a5d", "#4ab3c4", "#8a8f98")
_QUIET = "#8a8f98"


def density_figure(rows: Sequence[Row], roles: dict[str, str]) -> Figure:
    """Left: the density of each layer's products over the run. Right: cycles saved against it.

    Parameters
    ----------
    rows : sequence of Row
        Those with products.
    roles : dict
        The colour of each role.
    """
    figure = Figure(figsize=(6.6, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=_QUIET, alpha=0.3, linewidth=0.6)
        axes.set_axisbelow(True)
    _lines(left, rows)
    _dots(right, rows, roles)
    return figure


def _lines(axes: Axes, rows: Sequence[Row]) -> None:
    """A line for each of the layers that cost most."""
    layers: dict[str, list[Row]] = {}
    end = max((x.last + 1 for row in rows for x in row.history.stretches), default=1)
    for row in rows:
        layers.setdefault(row.layer or "outside modules", []).append(row)
    ranked = sorted(layers.items(), key=lambda item: -sum(row.cycles_dense for row in item[1]))
    for colour, (name, own) in zip(_COLOURS, ranked[:_MOST_LINES], strict=False):
        count = _points(own)
        points = [_at(own, place * end / count, (place + 1) * end / count)
                  for place in range(count)]
        places = [100 * (place + 0.5) / count for place in range(count)]
        axes.plot(places, [100 * y for y in points], color=colour, linewidth=1.3, marker=".",
                  markersize=3, label=name)
    axes.set(xlim=(0, 100), ylim=(0, 103), xlabel="% of the run", ylabel="density of products, %")
    axes.figure.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=7, ncols=2,
                       loc="outside lower left", title="Left: the layers that cost most",
                       title_fontsize=7, alignment="left")


def _points(rows: Sequence[Row]) -> int:
    """Points of a layer's line: so few that each has about the same of forward and backward."""
    calls: Counter[tuple[str, str]] = Counter()
    for row in rows:
        calls[row.op, row.role] += sum(stretch.calls for stretch in row.history.stretches)
    most = max(calls.values())
    return most // -(-most // _MOST_POINTS) if most else 1


def _at(rows: Sequence[Row], begin: float, end: float) -> float:
    """Density between two calls of the session; NaN if the rows did nothing there.

    A stretch's products are spread evenly from its first call to its last.
    """
    taken = every = 0.0
    for row in rows:
        for stretch in row.history.stretches:
            shared = min(end, stretch.last + 1) - max(begin, stretch.first)
            if shared > 0:
                part = shared / (stretch.last + 1 - stretch.first)
                taken += part * stretch.products
                every += part * (stretch.products + stretch.products_skipped)
    return taken / every if every else math.nan


def _dots(axes: Axes, rows: Sequence[Row], roles: dict[str, str]) -> None:
    """A dot for each stretch of each row, and the line of an engine that wastes no cycle."""
    for role, colour in roles.items():
        own = [stretch for row in rows if row.role == role for stretch in row.history.stretches]
        if own:
            axes.scatter([100 * x.density for x in own], [100 - 100 * x.cycles_share for x in own],
                         s=5, alpha=0.5, linewidths=0, color=colour, label=role.replace("-", " "))
    axes.plot([0, 100], [100, 0], color=_QUIET, linewidth=1, linestyle="--")
    axes.set(xlim=(0, 103), ylim=(-3, 103), xlabel="density of products, %",
             ylabel="cycles saved, %")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=7, loc="lower left", markerscale=2)
