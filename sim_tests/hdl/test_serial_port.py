# amaranth: UnusedElaboratable=no
"""The serial port in Amaranth's simulator: requests bit by bit, replies bit by bit."""

import pytest
from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from exactum.hdl.protocol import BUS_REPLY, BusRequest, Request
from exactum.hdl.serial_port import SerialPort
from exactum.hdl.uart import UartReceiver, UartTransmitter
from sim_tests.link_bench import MEMORY_WORDS, LinkBench
from sim_tests.link_reference import request_frame

HELLO, READ, WRITE = (request.value for request in (Request.HELLO, Request.READ, Request.WRITE))


class Wired(wiring.Component):
    """A serial port and a host's UART, which have the ports of a ``Link`` together."""

    def __init__(self, bit_cycles):
        self.bit_cycles = bit_cycles
        super().__init__({
            "i": In(stream.Signature(8)), "o": Out(stream.Signature(8)),
            "o_request": Out(stream.Signature(BusRequest)),
            "i_reply": In(stream.Signature(BUS_REPLY)),
            "taken": Out(32), "dropped": Out(16), "repeated": Out(16),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.port = port = SerialPort(
            bit_cycles=self.bit_cycles, memory_words=MEMORY_WORDS)
        m.submodules.transmitter = transmitter = UartTransmitter(bit_cycles=self.bit_cycles)
        m.submodules.receiver = receiver = UartReceiver(bit_cycles=self.bit_cycles)
        wiring.connect(m, wiring.flipped(self.i), transmitter.i)
        wiring.connect(m, receiver.o, wiring.flipped(self.o))
        wiring.connect(m, port.o_request, wiring.flipped(self.o_request))
        wiring.connect(m, wiring.flipped(self.i_reply), port.i_reply)
        m.d.comb += [
            port.rx.eq(transmitter.tx), receiver.rx.eq(port.tx),
            self.taken.eq(port.taken), self.dropped.eq(port.dropped),
            self.repeated.eq(port.repeated),
        ]
        return m


@pytest.mark.parametrize("bit_cycles", [4, 7])
def test_a_session_over_the_line(bit_cycles):
    bench = LinkBench(dut=Wired(bit_cycles))

    async def host(ctx):
        for frame in (b"\0" + request_frame(HELLO, sequence=1, session=2),
                      request_frame(WRITE, sequence=2, session=2, address=7, count=1, words=(9,)),
                      b"\5\0", request_frame(READ, sequence=3, session=2, address=6, count=2)):
            await bench.exchange(ctx, frame)
        # The receiver of this bench drops what is not taken in time, so nothing is left in it.
        await ctx.tick().repeat(12 * bit_cycles)

    bench.run(host)


@pytest.mark.parametrize(("options", "error"), [
    ({"bit_cycles": 3}, ValueError), ({"bit_cycles": 4.0}, TypeError),
    ({"memory_words": 0}, ValueError), ({"memory_words": None}, TypeError)])
def test_parameters_that_cannot_be_are_refused(options, error):
    with pytest.raises(error, match=next(iter(options))):
        SerialPort(**{"bit_cycles": 4, "memory_words": 512} | options)
