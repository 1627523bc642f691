"""A serial port's two halves: 8 data bits, lowest first, no parity, one stop bit."""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .protocol import LEAST_CYCLES

__all__ = ["UartReceiver", "UartTransmitter", "check_bit_cycles"]

DATA_BITS = 8


def check_bit_cycles(bit_cycles):
    """Raise unless a bit can last so many cycles."""
    if not isinstance(bit_cycles, int) or isinstance(bit_cycles, bool):
        raise TypeError(f"bit_cycles is an int; got {bit_cycles!r}")
    if bit_cycles < LEAST_CYCLES:
        raise ValueError(f"bit_cycles is at least {LEAST_CYCLES} cycles; got {bit_cycles}")


class UartReceiver(wiring.Component):
    """Makes bytes of what comes over the line.

    Parameters
    ----------
    bit_cycles : int
        At least ``LEAST_CYCLES``: cycles that a bit lasts.

    Members
    -------
    rx : In(1)
        The line, of any clock; 1 is idle.
    o : Out(stream of 8 bits)
        Bytes. One that comes while the one before it has not been taken is dropped.

    Timing
    ------
    Each bit is sampled once, in its middle, to a cycle, counted from where its start bit fell; so
    the other side's bits may be shorter or longer by 2 % of ``LEAST_CYCLES``, and by 4 % of many.
    ``o.valid`` rises 3 or 4 cycles after the middle of the stop bit.

    A start bit that is gone in its middle was noise. A byte whose stop bit is 0 is dropped, and
    the line has to be 1 before the next one.

    Raises
    ------
    TypeError, ValueError
        If ``bit_cycles`` is not an int, or too small.
    """

    def __init__(self, *, bit_cycles):
        check_bit_cycles(bit_cycles)
        self.bit_cycles = bit_cycles
        super().__init__({"rx": In(1, init=1), "o": Out(stream.Signature(DATA_BITS))})

    def elaborate(self, platform):
        m = Module()
        s1_level = Signal(init=1)
        s2_level = Signal(init=1)
        m.d.sync += [s1_level.eq(self.rx), s2_level.eq(s1_level)]

        timer = Signal(range(self.bit_cycles))
        bits = Signal(DATA_BITS, reset_less=True)
        count = Signal(range(DATA_BITS))
        samples = Signal()
        m.d.comb += samples.eq(timer == 0)
        m.d.sync += timer.eq(Mux(samples, self.bit_cycles - 1, timer - 1))
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)

        with m.FSM():
            with m.State("IDLE"):
                # The level may have fallen up to a cycle ago.
                m.d.sync += timer.eq((self.bit_cycles - 1) // 2 - 1)
                with m.If(~s2_level):
                    m.next = "START"
            with m.State("START"), m.If(samples):
                with m.If(s2_level):
                    m.next = "IDLE"
                with m.Else():
                    m.next = "BITS"
            with m.State("BITS"), m.If(samples):
                m.d.sync += [bits.eq(Cat(bits[1:], s2_level)), count.eq(count + 1)]
                with m.If(count == DATA_BITS - 1):
                    m.next = "STOP"
            with m.State("STOP"), m.If(samples):
                m.next = "BREAK"
                with m.If(s2_level):
                    m.next = "IDLE"
                    with m.If(~self.o.valid):
                        m.d.sync += [self.o.valid.eq(1), self.o.payload.eq(bits)]
            with m.State("BREAK"), m.If(s2_level):
                m.next = "IDLE"
        return m


class UartTransmitter(wiring.Component):
    """Sends bytes over the line.

    Parameters
    ----------
    bit_cycles : int
        At least ``LEAST_CYCLES``: cycles that a bit lasts.

    Members
    -------
    i : In(stream of 8 bits)
        Bytes.
    tx : Out(1)
        The line, from a register; 1 is idle.

    Timing
    ------
    A byte every ``10 * bit_cycles`` cycles. The start bit begins in the cycle after a byte is
    taken.

    Raises
    ------
    TypeError, ValueError
        If ``bit_cycles`` is not an int, or too small.
    """

    def __init__(self, *, bit_cycles):
        check_bit_cycles(bit_cycles)
        self.bit_cycles = bit_cycles
        super().__init__({"i": In(stream.Signature(DATA_BITS)), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        timer = Signal(range(self.bit_cycles))
        bits = Signal(DATA_BITS + 1, reset_less=True)
        left = Signal(range(DATA_BITS + 2))
        m.d.comb += self.i.ready.eq((timer == 0) & (left == 0))
        with m.If(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Elif(left != 0):
            m.d.sync += [Cat(self.tx, bits).eq(bits), left.eq(left - 1),
                         timer.eq(self.bit_cycles - 1)]
        with m.Elif(self.i.valid):
            m.d.sync += [self.tx.eq(0), bits.eq(Cat(self.i.payload, 1)), left.eq(DATA_BITS + 1),
                         timer.eq(self.bit_cycles - 1)]
        return m
