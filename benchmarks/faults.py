"""Every fault of the link against every operation, in virtual time (sim_tests/fault_runs.py).

A row for each pair; docs/protocol.md has their sums. Ends with status 1 if anything is wrong.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from common import report
from link_tables import update

from sim_tests.fault_runs import cells, run_cell

INJECTIONS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--injections", type=int, default=INJECTIONS, help="of each pair")
    options = parser.parse_args()
    rows, clean = [], True
    for fault, operation in cells():
        cell = run_cell(fault, operation, options.injections)
        for note in cell.notes:
            print(f"{fault}, {operation}: {note}", file=sys.stderr)
        clean &= cell.clean
        rows.append(cell.row())
    report("faults", rows, packages=("numpy", "cobs"))
    update()
    if not clean:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
