"""The shared arithmetic, exhaustively at small widths."""

import pytest
from amaranth.hdl import *
from amaranth.sim import Simulator

from exactum.hdl.accumulate import Accumulate
from exactum.hdl.arithmetic import add, shift_left, tree_sum


def table(m, inputs, output):
    """The output for every value of the inputs."""
    found = []

    async def bench(ctx):
        for value in range(1 << len(inputs)):
            ctx.set(inputs, value)
            found.append(ctx.get(output))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return found


def test_shift_left_drops_above_its_width():
    m, value, amount = Module(), Signal(4), Signal(2)
    found = table(m, Cat(value, amount), shift_left(m, value, amount, width=6))
    assert found == [(case & 15) << (case >> 4) & 63 for case in range(64)]


def test_add_takes_a_carry():
    m, a, b, carry = Module(), Signal(3), Signal(4), Signal()
    for case, total in enumerate(table(m, Cat(a, b, carry), add(a, b, carry))):
        assert total == (case & 7) + (case >> 3 & 15) + (case >> 7)


@pytest.mark.parametrize("start", [0, 37, 200])
def test_the_adder_adds_and_subtracts_from_the_sum_or_from_zero(start):
    m, value, condition, clear = Module(), Signal(5), Signal(), Signal()
    m.submodules.adder = adder = Accumulate(width=8, magnitude_width=5)
    m.d.comb += [adder.sum.eq(start), adder.magnitude.eq(value), adder.negative.eq(condition),
                 adder.carry.eq(condition), adder.clear.eq(clear)]
    for case, found in enumerate(table(m, Cat(value, condition, clear), adder.o)):
        number = case & 31
        total = (0 if case >> 6 else start) + (-number if case >> 5 & 1 else number)
        assert found % 256 == total % 256
        negated = number ^ 255 if case >> 5 & 1 else number
        assert found == (0 if case >> 6 else start) + negated + (case >> 5 & 1)


@pytest.mark.parametrize("count", range(1, 8))
def test_tree_sum_keeps_every_bit(count):
    values = [Signal(3, init=7) for _ in range(count)]
    total = tree_sum(values)
    assert len(total) <= 3 + (count - 1).bit_length()
    assert table(Module(), Signal(1), total) == [7 * count] * 2
