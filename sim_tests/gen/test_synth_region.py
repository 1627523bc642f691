"""Rows of the device are given to the units that need them, by a nextpnr that can."""

import sys

import pytest

from exactum.gen.synth_region import REGIONS, region_script
from exactum.gen.tools import Tool


def saying(text):
    """A nextpnr whose help is this."""
    return Tool("nextpnr-ecp5", (sys.executable, "-c", f"print({text!r})"), "0.11.1")


def test_the_script_constrains_each_cell_to_the_first_region_of_its_name():
    script = region_script("exactum_softmax", saying("  --pre-place arg  python file"))
    made = []

    class Context:
        cells = (("passes.sum.so_far[3]_FF", Cell("TRELLIS_FF")), ("pin", Cell("TRELLIS_IO")),
                 ("input.heads0", Cell("DP16KD")), ("passes.reciprocal$1.bases", Cell("DP16KD")))

        def createRectangularRegion(self, *region):
            made.append(region)

        def constrainCellToRegion(self, *cell):
            made.append(cell)

    exec(compile(script, "region.py", "exec"), {"ctx": Context()})
    regions = REGIONS["exactum_softmax"]
    assert made == [
        *((f"region{n}", left, first, right, last)
          for n, ((left, right), (first, last), _, _) in enumerate(regions)),
        ("passes.sum.so_far[3]_FF", "region1"), ("input.heads0", "region1"),
        ("passes.reciprocal$1.bases", "region0")]


class Cell:
    def __init__(self, kind):
        self.type = kind


@pytest.mark.parametrize(("top", "text"), [
    ("exactum_engine", "--pre-place"), ("exactum_softmax", "--seed")])
def test_others_are_placed_anywhere(top, text):
    assert region_script(top, saying(text)) is None
