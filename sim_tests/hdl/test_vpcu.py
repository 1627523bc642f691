"""The VPCU fed with tokens of its own, without a skipper: latency, force windows, any order."""

import random

import pytest
import torch

from exactum.benches.product_cases import random_bits
from exactum.benches.stalls import PATTERNS
from exactum.hdl.drain import DRAIN_LATENCY
from exactum.hdl.formats import FORMATS
from exactum.hdl.geometry import LANE_LATENCY, OPERAND_LATENCY, ROUND_LATENCY, Geometry
from exactum.hdl.lane import COLUMNS, DrainStep
from exactum.hdl.layouts import UNSCALED, ForceWindow, Result, skipper_token
from exactum.hdl.results import RESULTS_LATENCY
from exactum.hdl.vpcu import Vpcu
from exactum.host.plan import plan_gemm
from sim_tests.hdl.engine_machine import configuration
from sim_tests.streams import get, pack, put, simulate

CONFIG = configuration(lanes=2, b_depth=128)
TOKEN = skipper_token(CONFIG.vpcu.max_k, CONFIG.vpcu.scale_block)


def tokens(a, order):
    """Every element of each row, zeros too, in the given order of k; of no elements an empty."""
    if not order:
        return [pack(TOKEN, last=1, empty=1, scale=UNSCALED)] * len(a)
    return [pack(TOKEN, index=k, value=row[k], last=place == len(order) - 1, scale=UNSCALED)
            for row in a.tolist() for place, k in enumerate(order)]


def run(a, b, formats, queue, *, source=None, sink=None):
    """The plan, result items, force windows and stamps by port; each tile gets the ``queue``."""
    dut = Vpcu(**CONFIG.vpcu.model_dump())
    plan = plan_gemm(a, b, formats, "fp32", config=CONFIG, orientation="a", compress=False)
    found, forces, stamps = [], [], {}
    ports = {"i_operation": plan.operations, "i_b": plan.b, "i_row": plan.rows,
             "i_a": queue * len(plan.operations)}

    def feed(name, items, seed):
        async def bench(ctx):
            await put(ctx, getattr(dut, name), items, source and source(seed),
                      stamps=stamps.setdefault(name, []))
        return bench

    async def take(ctx):
        found.extend(await get(ctx, dut.o, plan.results, sink and sink(9),
                               stamps=stamps.setdefault("o", [])))

    async def take_force(ctx):
        forces.extend(await get(ctx, dut.o_force, len(plan.masks)))

    simulate(dut, *(feed(*port, seed) for seed, port in enumerate(ports.items())), take, take_force)
    return plan, found, [ForceWindow.from_bits(item) for item in forces], stamps


def operands(formats, m, k, n):
    random = torch.Generator().manual_seed(4)
    return (random_bits(FORMATS[name], size, random)
            for name, size in zip(formats, ((m, k), (k, n)), strict=True))


@pytest.mark.parametrize("formats", [("e4m3", "e5m2"), ("fp32", "bf16")], ids="-".join)
def test_the_order_of_the_elements_changes_no_bit(formats):
    a, b = operands(formats, 2, 12, 3)
    order = list(range(12))
    plain = run(a, b, formats, tokens(a, order))[1]
    random.Random(3).shuffle(order)
    assert run(a, b, formats, tokens(a, order))[1] == plain


@pytest.mark.parametrize("formats", [("e4m3", "e5m2"), ("fp32", "bf16")], ids="-".join)
def test_the_first_result_is_valid_43_cycles_after_the_last_operand(formats):
    a, b = operands(formats, 1, 3, 8)
    plan, found, _, stamps = run(a, b, formats, tokens(a, [0, 1, 2]))
    latency = (OPERAND_LATENCY + LANE_LATENCY + DRAIN_LATENCY + ROUND_LATENCY
               + RESULTS_LATENCY)
    assert latency == 43
    is_wide = "fp32" in formats  # then a lane's four sums come before its one result
    places = [3, 7] if is_wide else range(plan.columns)
    tiles = len(plan.operations)
    last_operands = [stamp for stamp in stamps["i_a"][2::3] for _ in range(plan.columns)]
    assert [o - i for o, i in zip(stamps["o"], last_operands, strict=True)] == [
        latency + place for place in places] * tiles
    assert [Result.from_bits(item).last for item in found] == ([0] * (plan.columns - 1) + [1]
                                                               ) * tiles


def test_rows_without_elements_give_plus_zero():
    a, b = operands(("e4m3", "e4m3"), 3, 0, 2)
    plan, found, forces, _ = run(a, b, ("e4m3", "e4m3"), tokens(a, []))
    assert not any(Result.from_bits(item).data for item in found)
    assert [(w.force, w.last) for w in forces] == [(0, 1)] * 3
    assert len(found) == 3 * plan.columns


def test_force_windows_name_the_rows_of_b_with_special_values():
    a, b = operands(("e5m2", "fp16"), 2, 70, 3)
    fp16 = FORMATS["fp16"]
    b[5, 2], b[63, 0], b[64, 1], b[69, 0] = (fp16.infinity_bits, fp16.nan_bits, 0xFC00,
                                             fp16.infinity_bits + 1)
    _, _, forces, _ = run(a, b, ("e5m2", "fp16"), tokens(a, list(range(70))))
    assert [(w.force, w.last, w.format) for w in forces] == [
        (1 << 5 | 1 << 63, 0, FORMATS["e5m2"].code), (1 | 1 << 5, 1, FORMATS["e5m2"].code)] * 2


@pytest.mark.parametrize(("source", "sink"), [("bursts", "sparse"), ("sparse", "bursts")])
def test_stalls_change_nothing(source, sink):
    formats = ("bf16", "e5m2")
    a, b = operands(formats, 3, 2, 20)
    queue = tokens(a, [0, 1])
    assert (run(a, b, formats, queue, source=PATTERNS[source], sink=PATTERNS[sink])[1]
            == run(a, b, formats, queue)[1])


def test_a_reset_forgets_what_is_selected():
    """The columns before it leave, the others do not, and nothing goes to the next lane."""
    for at in range(1, COLUMNS - 1):
        step, seen = DrainStep(geometry=Geometry(**CONFIG.vpcu.model_dump())), []

        async def bench(ctx, step=step, seen=seen, at=at):
            for column in step.drained:
                ctx.set(column.sum, 1)
            for cycle in range(12):
                ctx.set(step.i_selected, cycle == 0)
                ctx.set(step.reset, cycle == at)
                await ctx.tick()
                seen.append((ctx.get(step.o.sum), ctx.get(step.o_selected)))

        simulate(step, bench)
        assert [sum(part) for part in zip(*seen, strict=True)] == [at + 1, 0]
