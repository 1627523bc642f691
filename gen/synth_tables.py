"""Results of synthesis as tables of text, and as the JSON file that benchmarks and users keep."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from .synth_area import CAPACITY, Node

__all__ = ["area_table", "module_table", "path_table", "rate_table", "write_results"]

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""The heads of the columns, and the rows."""

_AREA = ("LUT4", "CCU2C", "LUT + 2 CCU2C", "LUT RAM", "FF", "DSP", "block RAM")
_KEYS = ("lut4", "ccu2c", "lut", "lut_ram", "ff", "dsp", "bram")


def area_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """What each design takes, its clock (median, and range over the seeds), and the device."""
    body = [(row["design"], *_counts(row), _clock(row["fmax_mhz"])) for row in rows]
    device = tuple(f"{CAPACITY[key]:,}" if key in CAPACITY else "" for key in _KEYS)
    return ("design", *_AREA, "Fmax, MHz"), [*body, ("LFE5U-85F", *device, "")]


def rate_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Products accumulated per cycle and per second, for the designs that multiply."""
    body: list[tuple[str, ...]] = [
        (row["design"], name, f"{count:,}",
         f"{row['macs_per_second'][name] / 1e9:.3g}" if row["macs_per_second"] else "")
        for row in rows for name, count in row["macs_per_cycle"].items()]
    return ("design", "format", "MACs per cycle", "10^9 MACs per second"), body


def path_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """What limits the clock: the longest path between registers of each seed."""
    body: list[tuple[str, ...]] = [
        (row["design"], str(path["seed"]), f"{path['fmax_mhz']:.1f}", path["path_from"],
         path["path_to"], f"{path['logic_ns']:.1f}", f"{path['routing_ns']:.1f}")
        for row in rows for path in row["longest_paths"]]
    return ("design", "seed", "MHz", "from", "to", "logic, ns", "routing, ns"), body


def module_table(nodes: Sequence[Node]) -> Table:
    """The modules, each under the one that it is in, with all that is inside of it."""
    body = [("  " * (len(node.path) - 1) + node.path[-1], str(node.count),
             *_counts(node.area.plain())) for node in nodes]
    return ("module", "times", *_AREA), body


def _counts(area: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(f"{area[key]:,}" for key in _KEYS)


def _clock(fmax_mhz: Sequence[float]) -> str:
    if not fmax_mhz:
        return "not placed"
    ordered = sorted(fmax_mhz)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    if len(ordered) == 1:
        return f"{middle:.1f}"
    return f"{middle:.1f} ({ordered[0]:.1f} to {ordered[-1]:.1f})"


def write_results(path: Path, command: str, versions: Mapping[str, str],
                  rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Write command, versions and rows as JSON, beside the file and renamed; returns them."""
    content = {"command": command, "versions": {"exactum": version("exactum"), **versions},
               "rows": list(rows)}
    # Numbers of a list stay on a line: a change is read row by row.
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: "[" + " ".join(found[1].split()) + "]",
                  json.dumps(content, indent=2))
    beside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        beside.write_text(text + "\n", "utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return content

