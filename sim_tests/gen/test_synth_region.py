"""Rows of the device are given to the units that need them, by a nextpnr that can."""

import sys

import pytest

from exactum.gen.synth_region import REGIONS, region_script
from exactum.gen.tools import Tool


def saying(text):
    """A nextpnr whose help is this."""
    return Tool("nextpnr-ecp5", (sys.executable, "-c", f"print({text!r})"), "0.11.1")


def test_the_script_constrains_the_cells_to_the_rows():
    script = region_script("exactum_softmax", saying("  --pre-place arg  python file"))
    first, last = REGIONS["exactum_softmax"]
    made = []

    class Context:
        cells = (("lut", Cell("TRELLIS_COMB")), ("pin", Cell("TRELLIS_IO")),
                 ("ram", Cell("DP16KD")))

        def createRectangularRegion(self, *region):
            made.append(region)

        def constrainCellToRegion(self, *cell):
            made.append(cell)

    exec(compile(script, "region.py", "exec"), {"ctx": Context()})
    assert made == [("unit", 0, first, 126, last), ("lut", "unit"), ("ram", "unit")]


class Cell:
    def __init__(self, kind):
        self.type = kind


@pytest.mark.parametrize(("top", "text"), [
    ("exactum_engine", "--pre-place"), ("exactum_softmax", "--seed")])
def test_others_are_placed_anywhere(top, text):
    assert region_script(top, saying(text)) is None
