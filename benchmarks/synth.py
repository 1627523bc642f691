"""Area, clock and products per second on an LFE5U-85F: the engine and each unit by itself.

Takes hours (two engines, each placed once per seed), and nothing of what is in the cache.
"""

import argparse
import json
import sys
from pathlib import Path

from exactum.gen.config import Configuration, preset
from exactum.gen.errors import ExactumError
from exactum.gen.synth import Synthesis, synthesise
from exactum.gen.synth_area import without
from exactum.gen.synth_progress import progress
from exactum.gen.synth_tables import area_table, path_table, rate_table, write_results
from exactum.host.cli.output import Output

RESULTS = Path(__file__).parent / "results" / "synth.json"
WORK = Path(__file__).parents[1] / "build" / "synth"

# What turns exact sums into results: the rest of an engine computes the sums. Each lane has a part
# of the drain, too: its step of the way out.
ROUNDING = ("drain", "rounder")


def e4m3_only() -> Configuration:
    """Eight lanes for E4M3 alone, whose sums are the narrowest."""
    return preset("default", {
        "name": "e4m3", "clock_mhz": 200.0, "vpcu.formats": ["e4m3"], "vpcu.max_k": 2048,
        "vpcu.accumulator_width": 48, "vpcu.scale_block": 0})


def one_lane() -> Configuration:
    """One lane for every format."""
    return preset("default", {"name": "one-lane", "clock_mhz": 150.0, "vpcu.lanes": 1})


def designs() -> list[tuple[str, str, Configuration]]:
    """Each design of the table: what to call it, its unit and its configuration.

    The configuration's clock, which nextpnr works towards, is the goal for the design.
    """
    default = preset("default", {"name": "default", "clock_mhz": 150.0})
    rows = preset("default", {"name": "default", "clock_mhz": 110.0})
    return [
        ("engine, 8 lanes, all formats", "engine", default),
        ("engine, 8 lanes, E4M3", "engine", e4m3_only()),
        ("vpcu, 8 lanes, E4M3", "vpcu", e4m3_only()),
        ("vpcu, 1 lane, all formats", "vpcu", one_lane()),
        ("skipper", "skipper", default),
        ("compressor", "compressor", default),
        ("decompressor", "decompressor", default),
        ("softmax, 8 lanes", "softmax", rows),
        ("elementwise, 4 lanes", "elementwise", rows),
    ]


def sums_only(design: str, engine: Synthesis) -> dict:
    """The row of an engine without what rounds, all of it by module; its clock is the whole's."""
    row = engine.row(f"{design}, without {' and '.join(ROUNDING)}")
    rest = without(engine.nodes[0].area, engine.nodes, ROUNDING)
    return row | rest.plain() | {"fmax_mhz": [], "macs_per_second": {}, "longest_paths": []}


def recorded(command: str, versions: dict[str, str]) -> list[dict]:
    """The rows of earlier runs by the same command and tools."""
    found = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    same = found.get("command") == command and versions.items() <= found["versions"].items()
    return found["rows"] if same else []


def merged(old: list[dict], new: list[dict]) -> list[dict]:
    """Old rows and the new ones in their place, in the order of the designs; no others."""
    found = {row["design"]: row for row in [*old, *new]}
    return [row for design, _, _ in designs() for name, row in found.items()
            if name == design or name.startswith(f"{design}, without")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="seeds of nextpnr, from 1 on")
    parser.add_argument("--jobs", type=int, default=1, help="seeds placed side by side")
    parser.add_argument("--only", default="", help="designs so named; the others' rows stay")
    options = parser.parse_args()
    rows, command = [], f"python benchmarks/synth.py --seeds {options.seeds}"
    for design, unit, config in designs():
        if options.only not in design:
            continue
        with progress(design) as watch:
            found = synthesise(unit, config, WORK, seeds=range(1, options.seeds + 1),
                               by_module=(unit, config.name) == ("engine", "e4m3"),
                               jobs=options.jobs, watch=watch)
        new = [found.row(design)] + ([sums_only(design, found)] if found.nodes else [])
        rows += new
        # After each design: what has taken an hour is not lost with what comes after it.
        kept = recorded(command, found.versions)
        write_results(RESULTS, command, found.versions, merged(kept, new))
    output = Output(as_json=False, verbose=False, quiet=False)
    for table in (area_table(rows), rate_table(rows), path_table(rows)):
        output.table(*table)
        output.line()
    print("written to benchmarks/results/synth.json")


if __name__ == "__main__":
    try:
        main()
    except ExactumError as error:
        sys.exit(str(error))
