"""Where a unit's cells may stand on an LFE5U-85F: a script for nextpnr, run before it places.

Block RAMs stand in four rows of the device, far apart. A unit that takes half of them comes out
spread over all of it, now and then with one of them far from what it feeds: rows near each other
are given to it instead, and to the tables on its longest path a few columns of one of them.
"""

import subprocess
from functools import cache
from typing import NamedTuple

from .tools import Tool

__all__ = ["REGIONS", "Region", "region_script"]


class Region(NamedTuple):
    """Columns and rows, the first and the last of each; how names of its cells begin, and which
    kinds of cells they are."""

    columns: tuple[int, int]
    rows: tuple[int, int]
    names: tuple[str, ...]
    kinds: tuple[str, ...]


_LOGIC = ("TRELLIS_COMB", "TRELLIS_FF", "TRELLIS_RAMW")

REGIONS = {"exactum_softmax": (
    # The tables of 1/s, which have no registers of their own: side by side.
    Region((50, 76), (40, 57), ("passes.reciprocal",), ("DP16KD",)),
    # Three rows of 52 block RAMs (46, 70 and 82), and the row of multipliers between them (58).
    Region((0, 126), (40, 88), ("",), (*_LOGIC, "DP16KD", "MULT18X18D")),
)}
"""A unit's regions; a cell is in the first that has its name and kind."""

_SCRIPT = """\
# Run by nextpnr before it places: columns and rows of the device for some cells, by name and kind.
regions = {regions}
for number, ((left, right), (first, last), _, _) in enumerate(regions):
    ctx.createRectangularRegion("region%d" % number, left, first, right, last)
for name, cell in ctx.cells:
    for number, (_, _, names, kinds) in enumerate(regions):
        if name.startswith(names) and cell.type in kinds:
            ctx.constrainCellToRegion(name, "region%d" % number)
            break
"""


def region_script(top: str, nextpnr: Tool) -> str | None:
    """The script for a top module; None if it has no region, or this nextpnr runs no scripts."""
    if top not in REGIONS or not _runs_scripts(nextpnr.command):
        return None
    return _SCRIPT.format(regions=[tuple(region) for region in REGIONS[top]])


@cache
def _runs_scripts(command: tuple[str, ...]) -> bool:
    """Whether a nextpnr was built with Python: the packaged one is not."""
    found = subprocess.run([*command, "--help"], capture_output=True, text=True, errors="replace",
                           check=False, stdin=subprocess.DEVNULL)
    return "--pre-place" in found.stdout + found.stderr
