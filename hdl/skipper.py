"""The zero skipper: turns a row's mask and its packed non-zero values into the elements that count.

     i_mask ---> window (what is left of it) --- lowest bit ---> token ---> o
     i_values ------------------------------------ value ---------^
"""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .bitstream import check_block
from .layouts import mask_window, skipper_token

__all__ = ["Skipper"]


def lowest(bits):
    """Place of the lowest bit that is set (0 if none is), by halves: log2(width) levels."""
    if len(bits) == 2:
        return ~bits[0] & bits[1]
    half = len(bits) // 2
    low, high = bits[:half], bits[half:]
    return Cat(Mux(low.any(), lowest(low), lowest(high)), ~low.any() & high.any())


class Skipper(wiring.Component):
    """Gives one element that counts per cycle, in index order, whatever lies between them.

    An element counts if its ``nonzero`` or its ``force`` bit is set. A value is taken from
    ``i_values`` for each ``nonzero`` bit; an element that is only forced has the value 0 and takes
    none. A window in which nothing counts gives one ``empty`` token, so that every cycle of the
    count below is a token and no stall of ``o`` can hide one.

    Parameters
    ----------
    block : int
        Elements of a mask window: 8, 16, 32 or 64.
    max_k : int
        Longest row in elements: a power of two, at least ``block``. A longer row's indices wrap.

    Members
    -------
    i_mask : In(stream of mask_window(block))
        The row's windows, first element first; a row of no elements is one window of zeros.
    i_values : In(stream of unsigned(32))
        The values of the elements that are not zero, in index order.
    o : Out(stream of skipper_token(max_k))
        The elements that count.
    row_end : Out(1)
        In the cycle in which the row's last value is taken, or could no more be (its last window
        leaves): the rest of a word of values is padding. For ``ValueUnpacker.row_end``.

    Timing
    ------
    A window takes max(1, elements that count) cycles, and the next one follows without a bubble:
    a row takes the sum of that over its windows. From a window's transfer to its first token's:
    two cycles. ``i_values.ready`` follows from ``o.ready``, and ``i_mask.ready`` from that and
    ``i_values.valid``, in the same cycle.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not an int, or not a legal one.
    """

    def __init__(self, *, block, max_k):
        self.block = check_block(block)
        if not isinstance(max_k, int) or isinstance(max_k, bool):
            raise TypeError(f"max_k is an int; got {max_k!r}")
        if max_k < block or max_k & (max_k - 1):
            raise ValueError(f"max_k is a power of two and at least block ({block}); got {max_k}")
        self.max_k = max_k
        super().__init__({
            "i_mask": In(stream.Signature(mask_window(block))),
            "i_values": In(stream.Signature(32)),
            "o": Out(stream.Signature(skipper_token(max_k))),
            "row_end": Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        # The window under way: what counts and was not given yet, and what of it has a value.
        s1_valid = Signal()
        s1_counts = Signal(self.block)
        s1_nonzero = Signal(self.block)
        s1_last = Signal()
        s1_window = Signal(range(max(2, self.max_k // self.block)))

        place = Signal(range(self.block))
        others = Signal(self.block)
        m.d.comb += [
            place.eq(lowest(s1_counts)),
            others.eq(s1_counts & (s1_counts - 1)),
        ]
        found = s1_counts.any()
        takes_value = Signal()
        m.d.comb += takes_value.eq((s1_counts & ~others & s1_nonzero).any())

        moves = Signal()
        free = ~self.o.valid | self.o.ready
        m.d.comb += [
            moves.eq(s1_valid & free & (~takes_value | self.i_values.valid)),
            self.i_values.ready.eq(s1_valid & free & takes_value),
        ]
        leaves = moves & ~others.any()
        m.d.comb += [
            self.row_end.eq(leaves & s1_last),
            self.i_mask.ready.eq(~s1_valid | leaves),
        ]

        with m.If(moves):
            m.d.sync += s1_counts.eq(others)
        with m.If(leaves):
            m.d.sync += s1_window.eq(Mux(s1_last, 0, s1_window + 1))
        with m.If(self.i_mask.ready):
            mask = self.i_mask.payload
            m.d.sync += [
                s1_valid.eq(self.i_mask.valid),
                s1_counts.eq(mask.nonzero | mask.force),
                s1_nonzero.eq(mask.nonzero),
                s1_last.eq(mask.last),
            ]

        with m.If(free):
            token = self.o.payload
            m.d.sync += [
                self.o.valid.eq(moves),
                token.index.eq(Cat(place, s1_window)),
                token.value.eq(Mux(takes_value, self.i_values.payload, 0)),
                token.last.eq(s1_last & ~others.any()),
                token.empty.eq(~found),
            ]
        return m
