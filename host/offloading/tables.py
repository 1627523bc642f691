"""The report in a terminal."""

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table

if TYPE_CHECKING:
    from .report import Report

__all__ = ["report_tables"]

_TEXT = {"overflow": "fold"}
_NUMBER = {"justify": "right", "no_wrap": True}


def report_tables(report: "Report") -> Group:
    """What ran on the device and what did not, as two tables and a line of totals."""
    return Group(_offloaded(report), _fallbacks(report), _totals(report))


def _offloaded(report: "Report") -> Table:
    table = Table(title=f"Offloaded to {report.device}, precision {report.policy}",
                  box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("layer", "operation", "formats", "size"):
        table.add_column(name, **_TEXT)
    for name in ("calls", "products", "skipped", "cycles", f"ms at {report.clock_mhz:g} MHz",
                 "saturated", "lost"):
        table.add_column(name, **_NUMBER)
    for row in report.rows:
        table.add_row(
            row.layer or "–", row.title, row.formats, row.shape, f"{row.calls:,}",
            f"{row.products:,}", f"{1 - row.density:.1%}", f"{row.cycles:,}",
            f"{1e3 * report.seconds_of(row.cycles):,.3f}", f"{row.saturations:,}",
            f"{row.lost:,}")
    return table


def _fallbacks(report: "Report") -> Table | str:
    if not report.fallbacks:
        return "Everything that matched was offloaded."
    table = Table(title="Not offloaded", box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("layer", "operation"):
        table.add_column(name, **_TEXT)
    for name in ("calls", "products"):
        table.add_column(name, **_NUMBER)
    table.add_column("reason", **_TEXT)
    for row in report.fallbacks:
        table.add_row(row.layer or "–", row.op, f"{row.calls:,}", f"{row.products:,}", row.reason)
    return table


def _totals(report: "Report") -> str:
    cycles = report.total("cycles")
    return (f"{report.offloaded_share:.1%} of the products offloaded, {report.skipped_share:.1%} "
            f"of those skipped; {cycles:,} cycles, {report.seconds_of(cycles):.3f} s at "
            f"{report.clock_mhz:g} MHz; {report.total('seconds'):.3f} s here")
