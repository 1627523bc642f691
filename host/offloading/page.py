"""The report as one self-contained HTML page."""

import io
from collections.abc import Sequence
from importlib import resources
from typing import Any

import matplotlib
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from .report import Report, Row
from .tables import duration, short
from .zeros import density_figure

__all__ = ["render"]

_ROLES = {"forward": "#3b7dd8", "data-gradient": "#e08a2e", "weight-gradient": "#2f9e7d",
          "backward": "#a05fb4"}
_SKIPPED, _TAKEN = "#2f9e7d", "#9aa3ad"
_MOST_BARS = 28

# Colours that the page's own take the place of, so that pictures follow its light or dark mode.
_THEME = {"#000000": "currentColor", "#ffffff": "var(--surface)"}


def render(report: Report, *, figures: Sequence[tuple[str, Figure, str]] = (),
           title: str = "Offload report", intro: str = "") -> str:
    """The page.

    Parameters
    ----------
    report : Report
    figures : sequence of (title, matplotlib figure, caption)
        Shown before the report's own pictures.
    title, intro : str
        Plain text.
    """
    pictures = list(figures)
    if report.rows:
        pictures += [
            ("Zeros skipped per layer", _skipped_chart(report.rows),
             "Share of each layer's products, forward and backward, that the engine never takes "
             "because a factor is zero in its format: the one that it streams, or either where "
             "column compression leaves out a line of zeros."),
            ("Cycles and time per operation", _cycles_chart(report),
             f"Cycles of the configured engine, and the time they take at "
             f"{report.clock_mhz:g} MHz."),
        ]
    products = [row for row in report.rows if row.products + row.products_skipped]
    if products:
        pictures.insert(len(figures), (
            "Density and cycles saved", density_figure(products, _ROLES),
            "Left: share of each layer's products that were taken, as the run goes on. Right: "
            "cycles saved against it, for each operation and stretch of the run; on the broken "
            "line no cycle is wasted. Saved are cycles of the same products without a zero."))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["short"] = short
    environment.filters["duration"] = duration
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        report=report, title=title, intro=intro,
        figures=[(name, _inline(figure, number), caption)
                 for number, (name, figure, caption) in enumerate(pictures)])


def _inline(figure: Figure, number: int) -> Markup:
    """A figure as SVG inside the page, its text as text."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"exactum-{number}"}):
        figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight",
                       metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg"):]
    for fixed, themed in _THEME.items():
        svg = svg.replace(f": {fixed}", f": {themed}")
    return Markup(svg)


def _bars(count: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.6, 1.0 + 0.26 * count), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.grid(axis="x", color="#8a8f98", alpha=0.35, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _skipped_chart(rows: Sequence[Row]) -> Figure:
    """One bar per layer: the share of its products that was skipped."""
    sums: dict[str, list[int]] = {}
    for row in filter(lambda row: row.products + row.products_skipped, rows):
        pair = sums.setdefault(row.layer or "outside modules", [0, 0])
        pair[0] += row.products_skipped
        pair[1] += row.products
    shown = dict(sorted(sums.items(), key=lambda item: -sum(item[1]))[:_MOST_BARS])
    figure, axes = _bars(len(shown))
    layers = list(shown)
    shares = [100 * skipped / (skipped + taken) for skipped, taken in shown.values()]
    axes.barh(layers, [100] * len(layers), color=_TAKEN, alpha=0.25, height=0.7)
    axes.barh(layers, shares, color=_SKIPPED, height=0.7)
    for place, share in enumerate(shares):
        axes.text(min(share, 92) + 1, place, f"{share:.1f} %", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("products skipped, %")
    return figure


def _cycles_chart(report: Report) -> Figure:
    """One bar per layer and operation, in the colours of the roles; a second axis gives time."""
    sums: dict[str, dict[str, int]] = {}
    for row in filter(lambda row: row.cycles, report.rows):
        name = f"{row.layer or 'outside modules'}  {row.op.replace('_', ' ')}"
        roles = sums.setdefault(name, dict.fromkeys(_ROLES, 0))
        roles[row.role] += row.cycles
    ranked = sorted(sums.items(), key=lambda item: -sum(item[1].values()))
    shown = dict(ranked[:_MOST_BARS])
    figure, axes = _bars(len(shown))
    names, start = list(shown), [0] * len(shown)
    for role, colour in _ROLES.items():
        widths = [roles[role] for roles in shown.values()]
        if any(widths):
            axes.barh(names, widths, left=start, color=colour, height=0.7,
                      label=role.replace("-", " "))
            start = [left + width for left, width in zip(start, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("cycles")
    time = axes.secondary_xaxis("top", functions=(
        lambda cycles: cycles / (report.clock_mhz * 1e3),
        lambda milliseconds: milliseconds * report.clock_mhz * 1e3))
    time.set_xlabel(f"ms at {report.clock_mhz:g} MHz")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", frameon=False, fontsize=8)
    return figure
