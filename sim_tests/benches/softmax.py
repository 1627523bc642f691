"""Bench of the softmax unit: bits against the golden model, cycles against the formula, stalls."""

import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace

import cocotb

from ..hdl.formats import FORMATS
from ..host.softmax import softmax_cycles
from .softmax_cases import (
    expected,
    named_rows,
    pack_operations,
    random_rows,
    unpack_operations,
)
from .stalls import PATTERNS
from .streams import StreamSink, StreamSource, finish, start

PARAMETERS = json.loads(Path(os.environ["EXACTUM_DESCRIPTION"]).read_text())["parameters"]
LANES, MAX_LENGTH = PARAMETERS["lanes"], PARAMETERS["max_length"]
CONFIG = SimpleNamespace(softmax=SimpleNamespace(**PARAMETERS))
SEED = int(os.environ.get("EXACTUM_SEED", "1"))
LIMIT = 1_000_000  # cycles of the watchdog


class Unit:
    """The unit under test with a driver at each port."""

    def __init__(self, dut, stall=None, drain=None):
        self.operations = StreamSource(dut, "i_operation")
        self.i = StreamSource(dut, "i", stall)
        self.o = StreamSink(dut, "o", drain)

    async def check(self, *operations):
        """Run operations (format, result, rows) and compare every bit with the golden model."""
        tokens, packed = pack_operations(operations, LANES, MAX_LENGTH)
        self.operations.put(*tokens)
        self.i.put(*packed)
        beats = sum(max(1, -(-len(row) // LANES)) for _, _, rows in operations for row in rows)
        given = iter(unpack_operations(await self.o.take(beats), operations, LANES,
                                       [MAX_LENGTH] * len(operations)))
        for format, result, rows in operations:
            for row, out in zip(rows, given, strict=False):
                golden = expected(row, format, result, PARAMETERS)
                if out != golden:
                    i = next(i for i, pair in enumerate(zip(out, golden, strict=True))
                             if pair[0] != pair[1])
                    raise AssertionError(
                        f"{format} -> {result}, {len(row)} elements: [{i}] of {row[i]:#x} is "
                        f"{out[i]:#x}, golden model {golden[i]:#x}")
        await finish(self.operations, self.i, self.o)


@cocotb.test()
async def every_pair_of_formats_on_directed_and_random_rows(dut):
    await start(dut, limit=LIMIT)
    lengths = [min(length, MAX_LENGTH) for length in (1, 2, 9, 33, 64, 17)]
    await Unit(dut).check(*(
        (a, r, named_rows(a, MAX_LENGTH) + random_rows(a, lengths, SEED + i))
        for i, (a, r) in enumerate(itertools.product(FORMATS, repeat=2))))


@cocotb.test()
async def lengths_up_to_the_longest(dut):
    await start(dut, limit=LIMIT)
    around = {n + d for n in (2 ** k for k in range(MAX_LENGTH.bit_length())) for d in (-1, 0, 1)}
    lengths = sorted(n for n in around | set(range(1, 3 * LANES + 2)) if 1 <= n <= MAX_LENGTH)
    await Unit(dut).check(("fp32", "fp32", random_rows("fp32", lengths, SEED)),
                          ("fp16", "bf16", random_rows("fp16", lengths[::-1], SEED)))


@cocotb.test()
@cocotb.parametrize(stall=list(PATTERNS), drain=list(PATTERNS))
async def stalls_change_nothing(dut, stall, drain):
    await start(dut, limit=LIMIT)
    lengths = [1, 1, 1, 40, 3, LANES, LANES + 1, 70, *[1] * 20]
    lengths = [min(length, MAX_LENGTH) for length in lengths]
    unit = Unit(dut, PATTERNS[stall](SEED), PATTERNS[drain](SEED + 1))
    await unit.check(("bf16", "fp32", random_rows("bf16", lengths, SEED)),
                     ("e5m2", "e4m3", random_rows("e5m2", [5, 6], SEED)))


@cocotb.test()
@cocotb.parametrize(length=sorted({1, min(2 * LANES + 1, MAX_LENGTH), min(100, MAX_LENGTH),
                                   MAX_LENGTH}))
async def cycles_are_those_of_the_formula(dut, length):
    await start(dut, limit=LIMIT)
    unit, rows = Unit(dut), 20 if length < 100 else 4
    await unit.check(("fp32", "bf16", random_rows("fp32", [length] * rows, SEED)))
    cycles = unit.o.stamps[-1] - unit.i.stamps[0] + 1
    wanted = softmax_cycles(CONFIG, rows, length)
    assert cycles == wanted, f"{rows} rows of {length}: {cycles} cycles, formula {wanted}"


@cocotb.test()
@cocotb.parametrize(
    (("format", "result"), [("fp32", "fp32"), ("bf16", "bf16"), ("e4m3", "fp16")]))
async def rows_longer_than_the_buffers_come_in_blocks(dut, format, result):
    await start(dut, limit=LIMIT)
    lengths = [MAX_LENGTH + 1, 3 * MAX_LENGTH, 5, 2 * MAX_LENGTH + LANES + 1, 2 * MAX_LENGTH - 1,
               MAX_LENGTH, 4 * MAX_LENGTH - 3]
    unit = Unit(dut, PATTERNS["sparse"](SEED), PATTERNS["bursts"](SEED + 1))
    await unit.check((format, result, random_rows(format, lengths, SEED)),
                     (result, format, random_rows(result, lengths[::-1], SEED)))


@cocotb.test()
@cocotb.parametrize(length=[2 * MAX_LENGTH, 2 * MAX_LENGTH + 1, 3 * MAX_LENGTH - LANES])
async def cycles_of_blocks_are_those_of_the_formula(dut, length):
    await start(dut, limit=LIMIT)
    unit, rows = Unit(dut), 3
    await unit.check(("fp32", "bf16", random_rows("fp32", [length] * rows, SEED)))
    cycles = unit.o.stamps[-1] - unit.i.stamps[0] + 1
    wanted = softmax_cycles(CONFIG, rows, length)
    assert cycles == wanted, f"{rows} rows of {length}: {cycles} cycles, formula {wanted}"
