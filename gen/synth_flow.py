"""The steps of synthesis for an LFE5U-85F, each cached: Yosys, then nextpnr around the harness."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from .errors import ExactumError
from .synth_area import Area, Node, read_areas
from .synth_cache import Cache, digest
from .synth_harness import CLOCK, HARNESS, enclose_file
from .tools import Tool, run

__all__ = ["DEVICE", "Flow", "Placement", "Watch", "read_report"]

DEVICE = ("--85k", "--package", "CABGA756", "--speed", "6")

# nextpnr's analytic placer after ePlace: a higher clock, and less chance in it, than its older one
# gives (docs/synthesis.md has the figures).
PLACEMENT = ("--placer", "static")

# Without PFUMX and L6MUX21: ABC maps muxes onto them at up to twice the LUTs, and no faster
# (docs/synthesis.md has the figures).
SYNTHESIS = ("synth_ecp5", "-nowidelut")

RESULTS = 1
"""Version of what is cached: to be raised when it means something else."""

# What nextpnr says when it begins a step, and what to call that step.
_STAGES = {"Info: Packing IOs": "packing", "Info: Running Static placer": "placing",
           "Info: Running simulated annealing": "refining", "Info: Routing": "routing"}
_PASS = re.compile(r"[\d.]+ Executing (\w+)")
# The cell that drives or takes a signal is named after it, then after its own kind.
_CELL = re.compile(r"_(TRELLIS_FF|TRELLIS_DPR16X4|MULT18X18D|DP16KD|LUT4|CCU2C)_.*")

Watch = Callable[[str, str], object]
"""Told what is worked on (``Yosys``, ``seed 1``) and its stage, at last ``done`` or ``cached``."""


@dataclass(frozen=True)
class Placement:
    """One placed and routed seed: its clock in MHz, and the longest path between registers."""

    seed: int
    fmax_mhz: float
    path_from: str
    path_to: str
    logic_ns: float
    routing_ns: float


class Flow:
    """The tools on one Verilog file.

    Parameters
    ----------
    top : str
        Name of the module, and of ``top.v`` in the folder.
    folder : path
        Where the Verilog is, and where netlist, logs and reports go.
    content : str
        SHA-256 of the Verilog.
    yosys, nextpnr : Tool
        The tools; nextpnr may be None where nothing is placed.
    cache : Cache
        Where results are kept.
    watch : callable
        Told of each stage.
    """

    def __init__(self, top: str, folder: Path, content: str, yosys: Tool, nextpnr: Tool | None,
                 cache: Cache, watch: Watch) -> None:
        self._top, self._folder, self._content = top, folder, content
        self._yosys, self._nextpnr = yosys, nextpnr
        self._cache, self._watch = cache, watch
        self._preparing, self._prepared = Lock(), False

    def areas(self, *, by_module: bool = False) -> list[Node]:
        """The area of the unit, synthesised as one, or of each module by itself."""
        options = ("-noflatten",) if by_module else ()
        what = "Yosys by module" if by_module else "Yosys"
        kept = self._cache.get(self._key(options))
        self._watch(what, "starting" if kept is None else "cached")
        found = self._synthesise(options, what) if kept is None else kept
        return [Node(tuple(node["path"]), node["count"], Area(**node["area"]))
                for node in found["nodes"]]

    def place(self, seed: int, clock_mhz: float) -> Placement:
        """Place and route with one seed, towards a clock."""
        if self._nextpnr is None:
            raise ValueError("this flow has no nextpnr")
        what, stem = f"seed {seed}", f"seed-{seed}"
        options = (*DEVICE, *PLACEMENT, "--seed", str(seed), "--freq", f"{clock_mhz:g}",
                   "--lpf-allow-unconstrained", "--timing-allow-fail")
        key = digest(results=RESULTS, netlist=self._key(()), harness=HARNESS,
                     nextpnr=self._nextpnr.version, options=options)
        found = self._cache.get(key)
        self._watch(what, "waiting for the netlist" if found is None else "cached")
        if found is None:
            self._prepare()
            report = self._folder / f"{stem}.json"
            report.unlink(missing_ok=True)

            def watch(line: str) -> None:
                for begin, stage in _STAGES.items():
                    if line.startswith(begin):
                        self._watch(what, stage)

            self._watch(what, "starting")
            run(self._nextpnr, (*options, "--json", "enclosed.json", "--report", report.name),
                self._folder, f"{stem}.log", watch)
            found = asdict(read_report(report, seed))
            self._cache.put(key, found)
            self._watch(what, "done")
        return Placement(**found)

    def _key(self, options: Sequence[str]) -> str:
        return digest(results=RESULTS, verilog=self._content, yosys=self._yosys.version,
                      options=[*SYNTHESIS, "splitnets", *options])

    def _synthesise(self, options: Sequence[str], what: str) -> Mapping[str, Any]:
        """Run Yosys; leaves statistics, and a netlist where the unit is synthesised as one."""
        stem = "modules" if options else "netlist"
        stat, netlist = self._folder / f"{stem}.stat.json", self._folder / f"{stem}.json"
        command = " ".join([*SYNTHESIS, "-top", self._top, *options])
        # Names like a[1], which the mapper gives to bits, may be those of other nets by chance,
        # and then Yosys stops (YosysHQ/yosys#4349): so all nets are split before.
        script = [f"read_verilog {self._top}.v", f"{command} -run :map_luts", "splitnets",
                  f"{command} -run map_luts:", f"tee -q -o {stat.name} stat -json",
                  *([] if options else [f"write_json {netlist.name}"])]

        def watch(line: str) -> None:
            found = _PASS.match(line)
            if found:
                self._watch(what, found[1].lower())

        # It writes its log itself: after ABC the packaged one prints nothing more.
        log = f"{stem}.log"
        run(self._yosys, ("-l", log, "-p", "; ".join(script)), self._folder, log, watch,
            keeps_log=True)
        result: dict[str, Any] = {"nodes": [asdict(node) for node in read_areas(stat, self._top)]}
        if not options:
            result["netlist"] = hashlib.sha256(netlist.read_bytes()).hexdigest()
        self._cache.put(self._key(options), result)
        self._watch(what, "done")
        return result

    def _prepare(self) -> None:
        """Have the netlist in the folder, in its harness: what is there already may do."""
        with self._preparing:
            if self._prepared:
                return
            netlist = self._folder / "netlist.json"
            known = self._cache.get(self._key(())) or {}
            if (not netlist.is_file()
                    or hashlib.sha256(netlist.read_bytes()).hexdigest() != known.get("netlist")):
                self._synthesise((), "Yosys")
            enclose_file(netlist, self._folder / "enclosed.json", self._top)
            self._prepared = True


def read_report(path: Path, seed: int) -> Placement:
    """Clock and longest path in nextpnr's report; X305 if it has not exactly one clock."""
    try:
        report = json.loads(path.read_text("utf-8"))
        (clock, achieved), = report["fmax"].items()
        longest = next(item["path"] for item in report["critical_paths"]
                       if item["from"] == item["to"] == f"posedge {clock}")
        delays = {kind: sum(part["delay"] for part in longest
                            if (part["type"] == "routing") == (kind == "routing"))
                  for kind in ("logic", "routing")}
        return Placement(seed, round(float(achieved["achieved"]), 2),
                         _signal(longest[0]["from"]["cell"]), _signal(longest[-1]["to"]["cell"]),
                         round(delays["logic"], 2), round(delays["routing"], 2))
    except (OSError, ValueError, KeyError, TypeError, IndexError, StopIteration) as error:
        raise ExactumError("X305", f"nextpnr's report of seed {seed} cannot be read: {error!r}; "
                           f"one clock, `{CLOCK}`, is wanted", f"look at {path}") from error


def _signal(cell: str) -> str:
    return _CELL.sub("", cell).replace(".$signal", "")
