"""Synthesis, place and route of a unit for an LFE5U-85F: what it costs and how fast it runs.

::

    configuration -> Verilog -> Yosys -> area, netlist -> harness -> nextpnr, once per seed -> Fmax

Every result is cached by the SHA-256 of the Verilog, the tools' versions and their arguments.
"""

import hashlib
import statistics
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .config import Configuration
from .synth_area import Area, Node, check_fits
from .synth_cache import Cache
from .synth_flow import Flow, Placement, Watch
from .tools import NEXTPNR, YOSYS, find
from .units import Unit, build, select
from .verilog import emit

__all__ = ["Placement", "Synthesis", "for_device", "synthesise"]


@dataclass(frozen=True)
class Synthesis:
    """A unit on the device.

    ``placements`` are in the order of the seeds, none of an estimate. ``nodes`` are its modules,
    the unit itself first, if they were asked for: synthesised one by one, they take a little more
    than ``area``, which is that of the whole.
    """

    unit: Unit
    config: Configuration
    area: Area
    placements: tuple[Placement, ...]
    nodes: tuple[Node, ...]
    versions: dict[str, str]

    @property
    def multipliers(self) -> int:
        """Products of 8- or 16-bit operands per cycle; 0 for a unit that multiplies nothing."""
        return 4 * self.config.vpcu.lanes if self.unit.name in ("engine", "vpcu") else 0

    @property
    def lanes(self) -> int:
        """Lanes of the engine, of softmax or of elementwise; 1 for the units that have none."""
        if self.unit.name in ("softmax", "elementwise"):
            return getattr(self.config, self.unit.name).lanes
        return self.multipliers // 4 or 1

    @property
    def macs_per_cycle(self) -> dict[str, int]:
        """Products accumulated per cycle, by format; an fp32 operand takes four multipliers."""
        formats = self.config.vpcu.formats if self.multipliers else ()
        return {name: self.multipliers // (4 if name == "fp32" else 1) for name in formats}

    @property
    def fmax_mhz(self) -> list[float]:
        """MHz of each seed."""
        return [placement.fmax_mhz for placement in self.placements]

    @property
    def median_mhz(self) -> float | None:
        """The median of the seeds; None of an estimate."""
        return statistics.median(self.fmax_mhz) if self.placements else None

    def row(self, design: str | None = None) -> dict[str, Any]:
        """The row of results: plain numbers and lists, areas in cells, clocks in MHz."""
        clock = self.median_mhz
        return {
            "design": design or f"{self.unit.name} of {self.config.name}",
            "unit": self.unit.name, "configuration": self.config.hash,
            "lanes": self.lanes, "multipliers": self.multipliers,
            "formats": list(self.macs_per_cycle), **self.area.plain(),
            "fmax_mhz": self.fmax_mhz,
            "macs_per_cycle": self.macs_per_cycle,
            "macs_per_second": {name: round(count * clock * 1e6) for name, count
                                in self.macs_per_cycle.items()} if clock else {},
            "longest_paths": [asdict(placement) for placement in self.placements],
        }


def for_device(config: Configuration) -> Configuration:
    """The configuration as it is synthesised: with the primitives of this device."""
    return config.replace({"target": "ecp5"})


def synthesise(unit: str, config: Configuration, work: str | Path, *, seeds: Iterable[int] = (),
               clock_mhz: float | None = None, by_module: bool = False, jobs: int = 1,
               cache: Cache | None = None,
               watch: Watch = lambda what, stage: None) -> Synthesis:
    """Synthesise a unit, place and route it once per seed, and count its modules if asked.

    Parameters
    ----------
    unit : str
        Name of the unit.
    config : Configuration
        What to generate it from.
    work : path
        Folder for Verilog, netlists, logs and reports: ``NAME/UNIT`` in it.
    seeds : iterable of int
        Seeds of nextpnr; none for the area alone, which takes Yosys only.
    clock_mhz : float, optional
        The clock that nextpnr works towards; the configuration's unless given.
    by_module : bool
        Also synthesise module by module.
    jobs : int
        Seeds placed side by side.
    cache : Cache, optional
        Where results are kept; the user's cache folder unless given.
    watch : callable, optional
        Told what is worked on and in which stage; from several threads with ``jobs``.

    Raises
    ------
    ExactumError
        X305 if a tool fails, with the log's decisive lines and its path; X503 if the design is
        larger than the device.
    ToolMissing
        X302, X304.
    UsageError
        X213 for an unknown unit.
    """
    chosen, = select([unit], systems=True)
    config, seeds = for_device(config), tuple(seeds)
    yosys, nextpnr = find(YOSYS), find(NEXTPNR) if seeds else None
    folder = Path(work).absolute() / config.name / unit
    folder.mkdir(parents=True, exist_ok=True)
    watch("Verilog", "writing")
    text = emit(chosen, build(chosen, config), config).text
    (folder / f"{chosen.top}.v").write_text(text, "utf-8")
    watch("Verilog", "done")
    # The header names the configuration and our version, which change no gate.
    content = hashlib.sha256(text.partition("\n\n")[2].encode()).hexdigest()
    flow = Flow(chosen.top, folder, content, yosys, nextpnr, cache or Cache(), watch)
    area = flow.areas()[0].area
    nodes = flow.areas(by_module=True) if by_module else []
    placements: list[Placement] = []
    if seeds:
        check_fits(area, f"{unit} of {config.name}")
        placements = _place(flow, seeds, clock_mhz or config.clock_mhz, jobs)
    versions = {tool.name: tool.version for tool in (yosys, nextpnr) if tool}
    return Synthesis(chosen, config, area, tuple(placements), tuple(nodes), versions)


def _place(flow: Flow, seeds: Iterable[int], clock_mhz: float, jobs: int) -> list[Placement]:
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(flow.place, seed, clock_mhz) for seed in seeds]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # those that have not begun
            raise
