"""What a netlist costs on the device: areas out of Yosys' counts, in total and by module."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from .errors import ExactumError

__all__ = ["CAPACITY", "Area", "Node", "check_fits", "read_areas", "without"]


@dataclass(frozen=True)
class Area:
    """Cells of an ECP5 design; ``lut`` is what is compared: LUT4 + 2 CCU2C.

    Parameters
    ----------
    lut4, ccu2c : int
        Look-up tables, and cells of two look-up tables with a carry.
    lut_ram : int
        Further look-up tables that distributed RAM takes: 4 hold 16 x 4 bits, 2 more write them.
    ff, dsp, bram : int
        Flip-flops, MULT18X18D, DP16KD (18 kbit each).
    """

    lut4: int = 0
    ccu2c: int = 0
    lut_ram: int = 0
    ff: int = 0
    dsp: int = 0
    bram: int = 0

    @property
    def lut(self) -> int:
        """LUT4 + 2 CCU2C: a carry cell takes the place of two look-up tables."""
        return self.lut4 + 2 * self.ccu2c

    def __add__(self, other: "Area") -> "Area":
        return Area(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: "Area") -> "Area":
        return Area(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    def plain(self) -> dict[str, int]:
        """The counts as they stand in results."""
        return {"lut": self.lut} | asdict(self)

    @classmethod
    def of_cells(cls, cells: Mapping[str, int]) -> "Area":
        """The area of counted cells. Wide multiplexers (PFUMX, L6MUX21) lie beside the LUTs."""
        return cls(cells.get("LUT4", 0), cells.get("CCU2C", 0),
                   6 * cells.get("TRELLIS_DPR16X4", 0), cells.get("TRELLIS_FF", 0),
                   cells.get("MULT18X18D", 0), cells.get("DP16KD", 0))


CAPACITY = {"lut": 83_640, "ff": 83_640, "dsp": 156, "bram": 208}
"""What an LFE5U-85F has."""


@dataclass(frozen=True)
class Node:
    """A module: its path from the top, how often it is there, and the area of all of these.

    The area includes what is inside. Modules alike but for their numbers are one node: ``lane_0``
    to ``lane_7`` are ``lane_*``, and ``count`` is 8.
    """

    path: tuple[str, ...]
    count: int
    area: Area


def read_areas(stat: Path, top: str) -> list[Node]:
    """The modules in Yosys' ``stat -json``, the top first and each before what is inside it.

    Raises
    ------
    ExactumError
        X305, if the file is not what Yosys 0.50 and later write.
    """
    try:
        modules = {name.removeprefix("\\"): {cell.removeprefix("\\"): int(number) for cell, number
                                             in module["num_cells_by_type"].items()}
                   for name, module in json.loads(stat.read_text("utf-8"))["modules"].items()}
        instances = list(_walk(modules, top, (top,)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExactumError("X305", f"Yosys' statistics cannot be read: {error!r}",
                           f"look at {stat}; another Yosys may help: exactum doctor") from error
    groups: dict[tuple[str, ...], list[Node]] = {}
    for node in instances:
        groups.setdefault(tuple(re.sub(r"\d+", "*", part) for part in node.path), []).append(node)
    return [Node(members[0].path if len(members) == 1 else pattern,
                 sum(node.count for node in members),
                 sum((node.area for node in members), Area()))
            for pattern, members in groups.items()]


def _walk(modules: Mapping[str, Mapping[str, int]], name: str,
          path: tuple[str, ...]) -> list[Node]:
    """A module and what is inside, each instance by itself."""
    cells = modules[name]
    area, inside = Area.of_cells(cells), []
    for child in sorted(cells.keys() & modules.keys(), key=_natural):
        for _ in range(cells[child]):
            nodes = _walk(modules, child, (*path, child.removeprefix(f"{name}.")))
            inside += nodes
            area += nodes[0].area
    return [Node(path, 1, area), *inside]


def _natural(name: str) -> list[tuple[int, str]]:
    """For sorting: lane_2 before lane_10."""
    return [(int(part), "") if part.isdigit() else (-1, part)
            for part in re.split(r"(\d+)", name)]


def without(whole: Area, nodes: Iterable[Node], names: Iterable[str]) -> Area:
    """A design's area less that of the modules whose own name is one of ``names``.

    A module inside one that is taken away already does not count twice. LookupError for a name
    that no module has, since the answer would be that of another question.
    """
    wanted, found = set(names), set()
    gone: list[tuple[str, ...]] = []
    for node in nodes:
        if any(node.path[:len(path)] == path for path in gone):
            continue
        own = re.sub(r"[\d*]+", "*", node.path[-1])
        if own in wanted:
            found.add(own)
            gone.append(node.path)
            whole -= node.area
    if wanted - found:
        raise LookupError(f"no module is called {', '.join(sorted(wanted - found))}")
    return whole


def check_fits(area: Area, design: str) -> None:
    """ExactumError X503, if the device has less of anything: placing would fail after long."""
    needs = {"lut": area.lut + area.lut_ram, "ff": area.ff, "dsp": area.dsp, "bram": area.bram}
    over = [f"{name.upper()} {needed:,} of {CAPACITY[name]:,}" for name, needed in needs.items()
            if needed > CAPACITY[name]]
    if over:
        raise ExactumError("X503", f"{design} does not fit an LFE5U-85F: {', '.join(over)}",
                           "fewer lanes or formats: -s vpcu.lanes=4")
