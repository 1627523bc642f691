"""Streams in Amaranth's simulator: packed ints in and out, with stalls, under a watchdog.

::

    async def source(ctx):
        await put(ctx, dut.i, [1, 2, 3], alternate())

    async def sink(ctx):
        assert await get(ctx, dut.o, 3) == [1, 2, 3]

    simulate(dut, source, sink)

Payloads are packed ints on both sides (`pack(layout, field=...)`, `layout.from_bits(n)`): several
times faster than struct views. The stall patterns are those of ``exactum.benches.stalls``.
"""

from amaranth.hdl import Value
from amaranth.sim import Simulator

from exactum.benches.stalls import PATTERNS, alternate, bursts, flowing, sparse

__all__ = ["PATTERNS", "alternate", "bursts", "fill", "flowing", "get", "pack", "put", "simulate",
           "sparse"]


def pack(layout, **fields):
    """One int from the fields of a struct layout."""
    return layout.const(fields).as_bits()


async def put(ctx, port, items, stall=None, *, stamps=None):
    """Send packed ints into an input stream; valid holds and the payload is still until ready.

    To the list ``stamps`` is appended, for each item, the tick at which it was accepted, counted
    from 0 at the call (for a first call: the first rising edge of the simulation is 0).
    """
    payload, stall, cycle = Value.cast(port.payload), stall or flowing(), 0
    for item in items:
        while next(stall):
            await ctx.tick()
            cycle += 1
        ctx.set(payload, item)
        ctx.set(port.valid, 1)
        ready = 0
        while not ready:
            _, _, ready = await ctx.tick().sample(port.ready)
            cycle += 1
        if stamps is not None:
            stamps.append(cycle - 1)
        ctx.set(port.valid, 0)


async def fill(ctx, port, items, patience=60):
    """Send packed ints until one has waited ``patience`` cycles: how many were accepted."""
    payload = Value.cast(port.payload)
    for count, item in enumerate(items):
        ctx.set(payload, item)
        ctx.set(port.valid, 1)
        for _ in range(patience):
            if (await ctx.tick().sample(port.ready))[2]:
                break
        else:
            return count
    return len(items)


async def get(ctx, port, count, stall=None, *, stamps=None):
    """Receive ``count`` packed ints from an output stream; ``stamps`` as in ``put``.

    A stream that is always ready takes no ``stall``.
    """
    payload, stall, cycle, received = Value.cast(port.payload), stall or flowing(), 0, []
    while len(received) < count:
        ready = not next(stall)
        if not port.signature.always_ready:
            ctx.set(port.ready, ready)
        _, _, valid, item = await ctx.tick().sample(port.valid, payload)
        cycle += 1
        if ready and valid:
            received.append(item)
            if stamps is not None:
                stamps.append(cycle - 1)
    if not port.signature.always_ready:
        ctx.set(port.ready, 0)
    return received


def simulate(dut, *testbenches, limit=20_000):
    """Run the testbenches (``async def bench(ctx)``) to their ends; fail after ``limit`` cycles."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    for testbench in testbenches:
        simulator.add_testbench(testbench)
    half_cycles = 0
    while simulator.advance():
        half_cycles += 1
        if half_cycles > 2 * limit:
            raise AssertionError(f"the watchdog ended the simulation after {limit} cycles")
