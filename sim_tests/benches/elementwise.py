"""Bench of the elementwise unit: bits against the golden model, cycles by the formula, stalls."""

import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace

import cocotb

from ..hdl.formats import FORMATS
from ..host.elementwise import elementwise_cycles
from .elementwise_cases import (
    MODES,
    expected,
    pack_beats,
    pack_operation,
    pack_rows,
    random_operation,
    unpack_rows,
)
from .stalls import PATTERNS
from .streams import StreamSink, StreamSource, finish, start

PARAMETERS = json.loads(Path(os.environ["EXACTUM_DESCRIPTION"]).read_text())["parameters"]
LANES = PARAMETERS["lanes"]
CONFIG = SimpleNamespace(elementwise=SimpleNamespace(**PARAMETERS))
SEED = int(os.environ.get("EXACTUM_SEED", "1"))
LIMIT = 100_000  # cycles of the watchdog
LENGTHS = (0, 1, LANES, LANES + 1, 3 * LANES - 1, 2, 2 * LANES)


class Unit:
    """The unit under test with a driver at each port."""

    def __init__(self, dut, stall=None, drain=None, pause=None):
        self.operations = StreamSource(dut, "i_operation", pause)
        self.rows = StreamSource(dut, "i_row", pause)
        self.i = StreamSource(dut, "i", stall)
        self.o = StreamSink(dut, "o", drain)

    def put(self, operations):
        """Queue operations; the number of their beats."""
        beats = [beat for one in operations for beat in pack_beats(one, LANES)]
        self.operations.put(*map(pack_operation, operations))
        self.rows.put(*(row for one in operations for row in pack_rows(one)))
        self.i.put(*beats)
        return len(beats)

    async def check(self, *operations):
        """Run operations and compare every bit with the golden model."""
        found = iter(unpack_rows(await self.o.take(self.put(operations)), LANES))
        for operation in operations:
            for number, golden in enumerate(expected(operation)):
                out = next(found)
                if out != golden:
                    i = next(i for i, pair in enumerate(zip(out, golden, strict=True))
                             if pair[0] != pair[1])
                    row = operation.rows[number]
                    raise AssertionError(
                        f"{operation.formats} {operation.mode}, [{i}] of {len(golden)}: "
                        f"x {row.x[i]:#x}, q {row.q[i]:#x}, t {row.t[i]:#x}, s, q, t of the row "
                        f"{[hex(bits) for bits in row.numbers]}: {out[i]:#x}, golden model "
                        f"{golden[i]:#x}")
        await finish(self.operations, self.rows, self.i, self.o)


def operations(lengths=LENGTHS):
    """One in each format of x and each mode."""
    names = list(FORMATS)
    for number, (x, mode) in enumerate(itertools.product(names, MODES)):
        formats = x, names[(number + 1) % 5], names[number // 5 % 5]
        yield random_operation(lengths, formats, mode, SEED + number)


@cocotb.test()
async def every_mode_and_format_without_a_bubble(dut):
    await start(dut, limit=LIMIT)
    unit = Unit(dut)
    await unit.check(*operations())
    assert unit.i.stamps == list(range(unit.i.stamps[0], unit.i.stamps[-1] + 1))
    assert unit.o.stamps == list(range(unit.o.stamps[0], unit.o.stamps[-1] + 1))


@cocotb.test()
@cocotb.parametrize(stall=list(PATTERNS), drain=list(PATTERNS))
async def stalls_change_nothing(dut, stall, drain):
    await start(dut, limit=LIMIT)
    unit = Unit(dut, PATTERNS[stall](SEED), PATTERNS[drain](SEED + 1), PATTERNS[stall](SEED + 2))
    await unit.check(*itertools.islice(operations((0, 1, LANES + 1)), 0, None, 7))


@cocotb.test()
@cocotb.parametrize(length=sorted({1, LANES, LANES + 1, 100}))
async def cycles_are_those_of_the_formula(dut, length):
    await start(dut, limit=LIMIT)
    unit, rows = Unit(dut), 5
    await unit.check(random_operation([length] * rows, seed=SEED))
    cycles = unit.o.stamps[-1] - unit.i.stamps[0] + 1
    wanted = elementwise_cycles(CONFIG, rows, length)
    assert cycles == wanted, f"{rows} rows of {length}: {cycles} cycles, formula {wanted}"


@cocotb.test()
async def a_reset_in_the_middle_forgets_all(dut):
    bench = await start(dut, limit=LIMIT)
    given = random_operation([3 * LANES, 0, LANES], seed=SEED)
    # By hand: a source would go on with what the reset has made void.
    dut.i_operation__payload.value = pack_operation(given)
    dut.i_row__payload.value = pack_rows(given)[0]
    dut.i__payload.value = pack_beats(given, LANES)[0]
    ports = (dut.i_operation__valid, dut.i_row__valid, dut.i__valid)
    for port in ports:
        port.value = 1
    await bench.wait(60)
    for port in ports:
        port.value = 0
    dut.rst.value = 1
    await bench.wait()
    dut.rst.value = 0
    await bench.wait()
    assert dut.o__valid.value == 0
    await Unit(dut).check(given)
