"""Where a unit's cells may stand on an LFE5U-85F: a script for nextpnr, run before it places.

Block RAMs stand in four rows of the device, far apart. A unit that takes half of them comes out
spread over all of it, now and then with one of them far from what it feeds: rows near each other
are given to it instead, and a part of them to its longest paths.
"""

import subprocess
from functools import cache
from typing import NamedTuple

from .tools import Tool

__all__ = ["REGIONS", "Region", "region_script"]


class Region(NamedTuple):
    """Columns and rows: the first and the last of each; and how names of its cells begin."""

    columns: tuple[int, int]
    rows: tuple[int, int]
    names: tuple[str, ...]


REGIONS = {"exactum_softmax": (
    # From the last addition to the product there is no register to spare: one block RAM's width.
    Region((44, 84), (40, 57), (
        "passes.reciprocal", "passes.sum.adder", "passes.sum.gather", "passes.sum.reached",
        "passes.sum.s2_", "passes.sum.so_far")),
    # Three rows of 52 block RAMs (46, 70 and 82), and the row of multipliers between them (58).
    Region((0, 126), (40, 88), ("",)),
)}
"""A unit's regions; a cell is in the first that has its name."""

_SCRIPT = """\
# Run by nextpnr before it places: logic, memories and multipliers in columns and rows of their own.
regions = {regions}
for number, ((left, right), (first, last), names) in enumerate(regions):
    ctx.createRectangularRegion("region%d" % number, left, first, right, last)
for name, cell in ctx.cells:
    if cell.type in ("TRELLIS_COMB", "TRELLIS_FF", "TRELLIS_RAMW", "DP16KD", "MULT18X18D"):
        number = [name.startswith(names) for _, _, names in regions].index(True)
        ctx.constrainCellToRegion(name, "region%d" % number)
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
