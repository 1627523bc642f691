"""A short queue in LUT RAM, for what is on its way in a pipeline that cannot be held up."""

from amaranth.hdl import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register_like

__all__ = ["Queue"]


class Queue(wiring.Component):
    """Takes a payload in any cycle, and says early enough when to stop.

    Parameters
    ----------
    shape : shape-castable
        The payload's.
    after : int
        0 to 14: payloads that may still come after ``roomy`` has fallen, until it rises.

    Members
    -------
    i : In(stream of shape, always ready)
        What comes.
    roomy : Out(1)
        Another payload may come in this cycle, and then ``after`` more.
    o : Out(stream of shape)
        The same, from registers.

    Timing
    ------
    Latency 2 cycles, one payload per cycle. ``roomy`` comes from a register and follows a payload
    that is accepted or taken by 2 cycles. It stays, if each payload is taken at once and ``after``
    is 13 or less. A payload that comes against the rule overwrites one that waits.

    Raises
    ------
    TypeError, ValueError
        If ``after`` is not an int, or out of its range.
    """

    depth = 16

    def __init__(self, shape, *, after):
        if not isinstance(after, int) or isinstance(after, bool):
            raise TypeError(f"after is an int; got {after!r}")
        if not 0 <= after <= self.depth - 2:
            raise ValueError(f"after is 0 to {self.depth - 2} payloads; got {after}")
        self.after = after
        super().__init__({
            "i": In(stream.Signature(shape, always_ready=True)),
            "roomy": Out(1, init=1),
            "o": Out(stream.Signature(shape)),
        })

    def elaborate(self, platform):
        m = Module()
        shape = self.i.payload.shape()
        m.submodules.places = places = memory.Memory(shape=shape, depth=self.depth, init=[])
        write, read = places.write_port(), places.read_port(domain="comb")
        end = Signal(range(self.depth))
        begin = Signal(range(self.depth))
        # How many wait, less one: its sign says that none does.
        waiting = Signal(range(-1, self.depth), init=-1)
        moves = Signal()
        goes = Signal()
        payload = register_like(self.o.payload)

        m.d.comb += [
            write.en.eq(self.i.valid),
            write.addr.eq(end),
            write.data.eq(self.i.payload),
            read.addr.eq(begin),
            self.o.payload.eq(payload),
            moves.eq(~self.o.valid | self.o.ready),
            goes.eq(moves & (waiting >= 0)),
        ]
        m.d.sync += [
            end.eq(end + self.i.valid),
            # ``goes`` comes late: it only chooses.
            waiting.eq(Mux(goes, Mux(self.i.valid, waiting, waiting - 1),
                           Mux(self.i.valid, waiting + 1, waiting))),
            # Of the cycle between a payload and the fall that it causes one more is not counted.
            self.roomy.eq(waiting < self.depth - 2 - self.after),
        ]
        with m.If(goes):
            m.d.sync += begin.eq(begin + 1)
        with m.If(moves):
            m.d.sync += [self.o.valid.eq(waiting >= 0), payload.eq(read.data)]
        return m
