"""The report in a terminal."""

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table

if TYPE_CHECKING:
    from .report import Report

__all__ = ["duration", "report_tables", "short"]

def report_tables(report: "Report") -> Group:
    """What ran on the device and what did not, as two tables and a line of totals; events."""
    return Group(_offloaded(report), _fallbacks(report), _totals(report), *report.events)


def short(number: float) -> str:
    """Three digits and a thousands' letter: 12,345,678 is 12.3 M."""
    for letter in ("", " k", " M", " G"):
        if abs(number) < 999.5:
            digits = 0 if not letter else 2 if number < 9.995 else 1 if number < 99.95 else 0
            return f"{number:.{digits}f}{letter}"
        number /= 1000
    return f"{number:,.1f} T"


def duration(seconds: float) -> str:
    """Three digits and a unit: 0.0123 is 12.3 ms."""
    for unit, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns" if seconds else "0"


def _offloaded(report: "Report") -> Table:
    table = Table(title=f"Offloaded to {report.device} at {report.clock_mhz:g} MHz, "
                  f"precision {report.policy}", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("layer", overflow="fold")
    for name in ("operation", "formats", "size"):
        table.add_column(name, no_wrap=True)
    for name in ("calls", "products", "skipped", "cycles", "time", "saturated", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(
            row.layer or "–", row.title, row.formats, row.shape, short(row.calls),
            short(row.products), f"{1 - row.density:.1%}", short(row.cycles),
            duration(report.seconds_of(row.cycles)), short(row.saturations), short(row.lost))
    return table


def _fallbacks(report: "Report") -> Table | str:
    if not report.fallbacks:
        return "Everything that matched was offloaded."
    table = Table(title="Not offloaded", box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("layer", "operation"):
        table.add_column(name, overflow="fold")
    for name in ("calls", "products"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for row in report.fallbacks:
        table.add_row(row.layer or "–", row.op, short(row.calls),
                      "–" if row.products is None else short(row.products), row.reason)
    return table


def _totals(report: "Report") -> str:
    cycles = report.total("cycles")
    share = report.offloaded_share
    offloaded = "at least one operation of unknown size was not offloaded" if share is None \
        else f"{share:.1%} of the products offloaded"
    return (f"{offloaded}, {report.skipped_share:.1%} of the device's skipped; {cycles:,} cycles "
            f"({report.cycles_saved_share:.1%} saved), "
            f"{duration(report.seconds_of(cycles))} at {report.clock_mhz:g} MHz; "
            f"{duration(report.total('seconds'))} here")
