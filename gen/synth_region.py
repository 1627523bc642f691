"""Where a unit's cells may stand on an LFE5U-85F: a script for nextpnr, run before it places.

Block RAMs stand in four rows of the device, far apart. A unit that takes half of them comes out
spread over all of it, now and then with one of them far from what it feeds: rows near each other
are given to it instead.
"""

import subprocess
from functools import cache
from tempfile import TemporaryDirectory

from .tools import Tool

__all__ = ["REGIONS", "region_script"]

REGIONS = {"exactum_softmax": (40, 88)}
"""First and last row of a unit's cells: softmax has three rows of block RAMs of 52 each (46, 70 and
82), and the row of multipliers between them (58)."""

COLUMNS = 126  # the last column of the device

_SCRIPT = """\
# Run by nextpnr before it places: logic, memories and multipliers in rows {first} to {last}.
ctx.createRectangularRegion("unit", 0, {first}, {columns}, {last})
for name, cell in ctx.cells:
    if cell.type in ("TRELLIS_COMB", "TRELLIS_FF", "TRELLIS_RAMW", "DP16KD", "MULT18X18D"):
        ctx.constrainCellToRegion(name, "unit")
"""


def region_script(top: str, nextpnr: Tool) -> str | None:
    """The script for a top module; None if it has no region, or this nextpnr runs no scripts."""
    if top not in REGIONS or not _runs_scripts(nextpnr.command):
        return None
    first, last = REGIONS[top]
    return _SCRIPT.format(first=first, last=last, columns=COLUMNS)


@cache
def _runs_scripts(command: tuple[str, ...]) -> bool:
    """Whether a nextpnr was built with Python: the packaged one is not."""
    with TemporaryDirectory() as folder:
        found = subprocess.run([*command, "--help"], capture_output=True, text=True,
                               errors="replace", check=False, stdin=subprocess.DEVNULL, cwd=folder)
    return "--pre-place" in found.stdout + found.stderr
