"""The VPCU fed with tokens of its own, without a skipper: latency, force windows, the drain."""

import random

import pytest
import torch

from exactum.hdl.formats import FORMATS
from exactum.hdl.layouts import ForceWindow, Result, RowAnchor, skipper_token
from exactum.hdl.vpcu import Vpcu
from exactum.host.plan import anchors, plan_gemm
from sim_tests.hdl.engine_machine import configuration
from sim_tests.oracle import dot
from sim_tests.streams import PATTERNS, get, pack, put, simulate

CONFIG = configuration(lanes=2, b_depth=128)
MAX_K = CONFIG.vpcu.max_k


def vpcu():
    return Vpcu(lanes=2, formats=CONFIG.vpcu.formats, accumulator_width=100, max_k=MAX_K,
                b_depth=128)


def tokens(rows, order):
    """Every element of each row, zeros too, in the given order of k."""
    layout = skipper_token(MAX_K)
    return [pack(layout, index=k, value=row[k], last=place == len(order) - 1)
            for row in rows for place, k in enumerate(order)]


def run(plan, queue, windows, *, stall=None, sink=None):
    """The result items, the force windows, and all stamps."""
    dut, found, forces, stamps = vpcu(), [], [], {}

    def source(port, items):
        async def bench(ctx):
            await put(ctx, port, items, stall and stall(1), stamps=stamps.setdefault(port, []))
        return bench

    async def take(ctx):
        found.extend(await get(ctx, dut.o, plan.results, sink and sink(2),
                               stamps=stamps.setdefault("o", [])))

    async def take_force(ctx):
        forces.extend(await get(ctx, dut.o_force, windows, stamps=stamps.setdefault("force", [])))

    stamps = {}
    ports = {"i_operation": plan.operations, "i_b": plan.b, "i_row": plan.rows, "i_a": queue}

    def named(name, items):
        async def bench(ctx):
            await put(ctx, getattr(dut, name), items, stall and stall(1),
                      stamps=stamps.setdefault(name, []))
        return bench

    simulate(dut, *(named(*port) for port in ports.items()), take, take_force)
    return found, [ForceWindow.from_bits(item) for item in forces], stamps
