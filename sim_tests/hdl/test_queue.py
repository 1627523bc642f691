# amaranth: UnusedElaboratable=no
"""The short queue: its rule kept to the last payload, in Amaranth's simulator and by proof."""

import pytest
from amaranth.hdl import *

from exactum.hdl.queue import Queue
from sim_tests.formal import ProofFailed, prove
from sim_tests.streams import get, simulate

AFTERS = range(15)
COUNT = 60


def hastier(after, component=Queue):
    """A queue whose ``roomy`` falls one payload too late."""
    dut = component(8, after=after)
    dut.after -= 1
    return dut


def run(dut, after, wait=0):
    """A source at full speed that sends all it may, also ``after`` payloads after each fall.

    The sink stalls for the first ``wait`` cycles. Nothing is lost or changes places. Gives the
    stamps of the payloads at either end, and how many were sent before the sink took any.
    """
    sent, received, waiting = [], [], []

    async def source(ctx):
        allowed, cycle = 0, 0
        while len(sent) < COUNT:
            allowed = after if ctx.get(dut.roomy) else allowed - 1
            sends = ctx.get(dut.roomy) or allowed >= 0
            ctx.set(dut.i.valid, sends)
            ctx.set(dut.i.payload, len(sent))
            if sends:
                sent.append(cycle)
            await ctx.tick()
            cycle += 1
        ctx.set(dut.i.valid, 0)

    async def sink(ctx):
        await ctx.tick().repeat(wait) if wait else None
        waiting.append(len(sent))
        assert await get(ctx, dut.o, COUNT, stamps=received) == list(range(COUNT))
        for _ in range(4):
            assert not ctx.get(dut.o.valid)
            await ctx.tick()

    simulate(dut, source, sink, limit=400)
    return sent, received, waiting[0]


@pytest.mark.parametrize("after", AFTERS)
def test_all_come_out_in_order_two_cycles_later(after):
    sent, received, _ = run(Queue(8, after=after), after)
    assert [out - come for come, out in zip(sent, received, strict=True)] == [2] * COUNT
    if after <= 13:
        assert sent == list(range(COUNT))


@pytest.mark.parametrize("after", AFTERS)
def test_what_may_come_after_the_fall_has_room(after):
    """All of it: 16 payloads in the memory, and one in the register behind it.

    If ``after`` is 14, ``roomy`` falls before the first has reached that register.
    """
    _, received, waiting = run(Queue(8, after=after), after, wait=40)
    assert waiting == (17 if after <= 13 else 16)
    if after <= 12:     # else it runs dry before the source has seen that there is room
        assert received == list(range(COUNT))


@pytest.mark.parametrize("after", AFTERS)
def test_a_fall_too_late_is_caught(after):
    with pytest.raises(AssertionError):
        run(hastier(after), after, wait=40)


@pytest.mark.parametrize(("after", "error"), [
    (-1, ValueError), (15, ValueError), (6.0, TypeError), ("6", TypeError), (True, TypeError)])
def test_illegal_parameters_are_refused(after, error):
    with pytest.raises(error, match=f"after is .*; got {after!r}"):
        Queue(8, after=after)


def by_the_rule(after):
    """The property that the source sends when ``roomy``, and ``after`` more payloads at most."""
    def property(m, dut):
        late = Signal(range(16))
        m.d.sync += late.eq(Mux(dut.roomy, 0, late + dut.i.valid))
        m.d.comb += Assume(~dut.i.valid | dut.roomy | (late < after))
    return property


class ShortQueue(Queue):
    """As a proof can look through it."""

    depth = 8


def it_never_overflows(m, dut):
    """The memory holds 8 payloads at most, and the register at ``o`` one."""
    held = Signal(5)
    m.d.sync += held.eq(held + dut.i.valid - (dut.o.valid & dut.o.ready))
    m.d.comb += Assert(held <= 8 + dut.o.valid)


@pytest.mark.parametrize("after", [0, 3, 6])
def test_it_never_overflows_whatever_a_lawful_source_does(after):
    prove(ShortQueue(1, after=after), by_the_rule(after), it_never_overflows, depth=12)


def test_a_fall_too_late_is_refused():
    with pytest.raises(ProofFailed):
        prove(hastier(3, ShortQueue), by_the_rule(3), it_never_overflows, depth=12)
