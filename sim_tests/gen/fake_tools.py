"""Stand-ins for Yosys and nextpnr that answer at once and note each call, for tests of the flow.

Run as ``python fake_tools.py TOOL ARGUMENTS``; ``calls`` in the working folder gets a line a call.
"""

import json
import re
import sys
from itertools import pairwise
from pathlib import Path

__all__ = ["fake"]


def fake(name, version="1"):
    """A ``Tool`` that is this file."""
    from exactum.gen.tools import Tool  # not where this file runs, which takes no time so
    return Tool(name, (sys.executable, __file__, name), version)


def _yosys(arguments):
    script = dict(arguments)["-p"]
    top = re.search(r"-top (\w+)", script)[1]
    stat = re.search(r"-o (\S+) stat", script)[1]
    cells = {"LUT4": 100_000 if "large" in Path(f"{top}.v").read_text() else 10, "TRELLIS_FF": 4}
    modules = {top: {"num_cells_by_type": cells}}
    if "-noflatten" in script:
        modules = {top: {"num_cells_by_type": {"LUT4": 2, f"{top}.part": 1}},
                   f"{top}.part": {"num_cells_by_type": {"LUT4": 9}}}
    Path(stat).write_text(json.dumps({"modules": modules}))
    netlist = re.search(r"write_json (\S+)", script)
    if netlist:
        ports = {"clk": {"direction": "input", "bits": [2]}}
        Path(netlist[1]).write_text(json.dumps({"modules": {top: {"ports": ports, "cells": {}}}}))
    print("1.1. Executing PROC pass.")


def _nextpnr(arguments):
    options = dict(arguments)
    seed, clock = int(options["--seed"]), float(options["--freq"])
    Path(options["--json"]).read_bytes()  # the netlist in its harness is there
    print("Info: Packing IOs..")
    print("Info: Running Static placer...")
    if seed == 13:
        print("ERROR: Unable to place cell 'x', no BELs remaining")
        sys.exit(255)
    cells = [{"type": "logic", "delay": 1.0, "from": {"cell": "a"}, "to": {"cell": "b"}}]
    path = {"from": "posedge c", "to": "posedge c", "path": cells}
    Path(options["--report"]).write_text(json.dumps({
        "fmax": {"c": {"achieved": clock + seed}}, "critical_paths": [path]}))


def _main():
    tool, *words = sys.argv[1:]
    with open("calls", "a", encoding="utf-8") as calls:
        calls.write(f"{tool} {' '.join(words)}\n")
    valued = [pair for pair in pairwise(words) if pair[0].startswith("-")]
    (_yosys if tool == "yosys" else _nextpnr)(valued)


if __name__ == "__main__":
    _main()
