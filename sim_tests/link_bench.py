"""A link in Amaranth's simulator beside the reference: the same bytes to both, all compared."""

from amaranth.hdl import Value

from exactum.hdl.link import Link
from exactum.hdl.protocol import BusRequest
from sim_tests.link_reference import Access, ReferenceDevice
from sim_tests.streams import PATTERNS, put, simulate

__all__ = ["MEMORY_WORDS", "LinkBench"]

MEMORY_WORDS = 512


class LinkBench:
    """Runs bytes through a link and the reference.

    Parameters
    ----------
    stalls : tuple of str
        Patterns of stalls: of the bytes that come, of the bus' requests, of its replies, and of
        the bytes that go.
    dut : component, optional
        With the ports of ``Link``; a ``Link`` unless given.

    Attributes
    ----------
    reference : ReferenceDevice
        Its side of everything.
    text : bytearray
        What has come out of the gateware.
    stamps : list of int
        The cycle of each of these bytes, counted from 0.
    cycle : int
        The present one.
    bus : list of Access
        What it has done.
    hold : bool
        The line takes no byte.
    """

    def __init__(self, stalls=("flowing",) * 4, dut=None):
        self.dut = dut or Link(memory_words=MEMORY_WORDS)
        self.reference = ReferenceDevice(MEMORY_WORDS)
        self.text, self.bus = bytearray(), []
        self._stalls = [PATTERNS[name](seed) for seed, name in enumerate(stalls)]
        self.hold, self.stamps = False, []
        self._words, self._asked, self._ends = {}, [], False
        self._expected, self.cycle = bytearray(), 0

    async def send(self, ctx, text, counted=True):
        """Send bytes; what the reference says of them is expected, if they are ``counted``."""
        if counted:
            self._expected += self.reference.feed(bytes(text))
        await put(ctx, self.dut.i, text, self._stalls[0])

    async def settle(self, ctx, limit=6000):
        """Wait until all that is expected has come out."""
        for _ in range(limit):
            if len(self.text) >= len(self._expected):
                break
            await ctx.tick()
        # The zero that begins the first reply comes at once.
        assert self.text == (self._expected or self.text[:1])

    async def exchange(self, ctx, text):
        """Send bytes and wait for the replies."""
        await self.send(ctx, text)
        await self.settle(ctx)

    def run(self, bench, limit=60_000, compares=True):
        """Run a testbench; then replies, bus and counters are those of the reference."""
        async def host(ctx):
            try:
                await bench(ctx)
                if compares:
                    await self.settle(ctx)
                    await ctx.tick().repeat(20)
                    self.compare(ctx)
            finally:
                self._ends = True

        simulate(self.dut, host, self._requests, self._replies, self._line, limit=limit)

    def compare(self, ctx):
        """Everything, now that nothing is on its way."""
        dut, reference = self.dut, self.reference
        assert self.text == self._expected
        assert self.bus == reference.bus
        counts = [ctx.get(port) for port in (dut.taken, dut.dropped, dut.repeated)]
        assert counts == [reference.taken, reference.dropped, reference.repeated]

    async def _requests(self, ctx):
        port = self.dut.o_request
        payload = Value.cast(port.payload)
        while not self._ends:
            ready = not next(self._stalls[1])
            ctx.set(port.ready, ready)
            _, _, valid, bits = await ctx.tick().sample(port.valid, payload)
            if valid and ready:
                request = BusRequest.from_bits(bits)
                address, write = request["address"], request["write"]
                self.bus.append(Access(write, address, request["data"] if write else 0))
                if write:
                    self._words[address] = request["data"]
                else:
                    self._asked.append(self._words.get(address, 0))

    async def _replies(self, ctx):
        port = self.dut.i_reply
        while not self._ends:
            if self._asked and not next(self._stalls[2]):
                ctx.set(port.payload, self._asked.pop(0))
                ctx.set(port.valid, 1)
                while not (await ctx.tick().sample(port.ready))[2]:
                    pass
                ctx.set(port.valid, 0)
            else:
                await ctx.tick()

    async def _line(self, ctx):
        port = self.dut.o
        while not self._ends:
            ready = not next(self._stalls[3]) and not self.hold
            ctx.set(port.ready, ready)
            _, _, valid, byte = await ctx.tick().sample(port.valid, port.payload)
            if valid and ready:
                self.text.append(byte)
                self.stamps.append(self.cycle)
            self.cycle += 1
