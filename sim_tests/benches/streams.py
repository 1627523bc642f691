"""Drivers for the valid/ready streams of generated Verilog, in cocotb.

A bench begins with ``bench = await start(dut)``, then builds a source or a sink for each port::

    bench = await start(dut)
    source = StreamSource(dut, "i", alternate())
    sink = StreamSink(dut, "o", bursts(1))
    source.put(1, 2, 3)
    assert await sink.take(3) == [1, 2, 3]
    await finish(source, sink)

Payloads are ints: the vector that Amaranth makes of a struct (`Layout.const(...).as_bits()` packs,
`Layout.from_bits(n)` unpacks).
"""

import json
import os
from collections import deque
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Event, RisingEdge
from cocotb.utils import get_sim_time

from .stalls import flowing

__all__ = ["Bench", "StreamSink", "StreamSource", "finish", "start"]

PERIOD = 10  # nanoseconds


def cycle():
    """Number of the clock cycle that is under way (it began at a rising edge)."""
    return int(get_sim_time("ns")) // PERIOD


class Bench:
    """What ``start`` gives back: the running clock and the watchdog of one test."""

    def __init__(self, dut, limit):
        self._dut = dut
        self._limit = limit
        cocotb.start_soon(self._watch())

    @property
    def cycle(self):
        """Number of the current clock cycle; streams stamp their transfers with it."""
        return cycle()

    async def wait(self, cycles=1):
        """Wait for that many rising edges."""
        await ClockCycles(self._dut.clk, cycles)

    async def _watch(self):
        await ClockCycles(self._dut.clk, self._limit)
        raise AssertionError(f"the watchdog ended the bench after {self._limit} cycles")


async def start(dut, *, limit=100_000):
    """Start clock and watchdog, set all inputs to zero, reset, and return the ``Bench``."""
    ports = json.loads(Path(os.environ["EXACTUM_DESCRIPTION"]).read_text("utf-8"))["ports"]
    for port in ports:
        if port["direction"] == "in":
            getattr(dut, port["name"]).value = port["name"] == "rst"
    Clock(dut.clk, PERIOD, "ns").start()
    await ClockCycles(dut.clk, 2)
    bench = Bench(dut, limit)
    dut.rst.value = 0
    return bench


class StreamSource:
    """Sends ints into the stream input ``prefix``; holds valid and payload until ready.

    ``stamps`` holds, for each item sent, the cycle at whose end it was accepted.
    """

    def __init__(self, dut, prefix, stall=None):
        self._clock, self._reset = dut.clk, dut.rst
        self._payload = getattr(dut, f"{prefix}__payload")
        self._valid = getattr(dut, f"{prefix}__valid")
        self._ready = getattr(dut, f"{prefix}__ready")
        self._stall = flowing() if stall is None else stall
        self._queue, self._filled, self._emptied = deque(), Event(), Event()
        self.stamps = []
        self._valid.value = 0
        self._payload.value = 0
        cocotb.start_soon(self._run())

    def put(self, *items):
        """Append items to those still to be sent."""
        self._queue.extend(items)
        self._filled.set()

    @property
    def pending(self):
        """Number of items not accepted yet."""
        return len(self._queue)

    async def sent(self):
        """Wait until everything has been accepted."""
        while self._queue:
            self._emptied.clear()
            await self._emptied.wait()

    async def _run(self):
        edge = RisingEdge(self._clock)
        while self._reset.value != 0:
            await edge
        while True:
            while not self._queue:
                self._emptied.set()
                self._filled.clear()
                await self._filled.wait()
                await edge
            if next(self._stall):
                await edge
                continue
            self._payload.value = self._queue[0]
            self._valid.value = 1
            await edge
            while self._ready.value != 1:
                await edge
            self._queue.popleft()
            self.stamps.append(cycle() - 1)
            self._valid.value = 0


class StreamSink:
    """Receives ints from the stream output ``prefix``.

    ``stamps`` holds, for each item taken so far, the cycle at whose end it was transferred.
    """

    def __init__(self, dut, prefix, stall=None):
        self._clock, self._reset = dut.clk, dut.rst
        self._payload = getattr(dut, f"{prefix}__payload")
        self._valid = getattr(dut, f"{prefix}__valid")
        self._ready = getattr(dut, f"{prefix}__ready")
        self._stall = flowing() if stall is None else stall
        self._queue, self._arrived = deque(), Event()
        self._taken = 0
        self.stamps = []
        self._ready.value = 0
        cocotb.start_soon(self._run())

    @property
    def pending(self):
        """Number of items received and not taken yet."""
        return len(self._queue)

    async def take(self, count=1):
        """Wait for ``count`` items and return them as a list."""
        while len(self._queue) < count:
            self._arrived.clear()
            await self._arrived.wait()
        return [self._queue.popleft() for _ in range(count)]

    async def _run(self):
        edge = RisingEdge(self._clock)
        while self._reset.value != 0:
            await edge
        ready = False
        while True:
            if ready is not (wanted := not next(self._stall)):
                self._ready.value = ready = wanted
            await edge
            if ready and self._valid.value == 1:
                self._queue.append(int(self._payload.value))
                self.stamps.append(cycle() - 1)
                self._arrived.set()


async def finish(*streams, wait=4):
    """Give the design a few cycles, then check that nothing is left in any queue."""
    await ClockCycles(streams[0]._clock, wait)
    for stream in streams:
        assert not stream.pending, f"{stream.pending} items left in a {type(stream).__name__}"
