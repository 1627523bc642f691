"""A million random and lawless frames into both ends of the link (sim_tests/link_fuzz.py).

Ends with status 1 if anything was done that may not be.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from common import report
from link_tables import update

from sim_tests.link_fuzz import fuzz_device, fuzz_driver

FRAMES = 1_000_000
PART = 50_000       # frames of one seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=FRAMES, help="into each end")
    options = parser.parse_args()
    rows = []
    for end, fuzz in (("device (reference)", fuzz_device), ("driver", fuzz_driver)):
        total: dict[str, int] = {}
        for seed in range(-(-options.frames // PART)):
            for key, value in fuzz(PART, seed).items():
                total[key] = total.get(key, 0) + value
        done = total.get("executed", 0) or total.get("calls", 0)
        rows.append({"end": end, "frames": total["frames"], "done": done,
                     "errors": total.get("errors", 0), "wrong": total["wrong"]})
    report("fuzz", rows, packages=("numpy", "cobs"))
    update()
    if any(row["wrong"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
