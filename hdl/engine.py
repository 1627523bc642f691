"""The sparse engine: zero skipper, value unpacker and VPCU (docs/vpcu.md)."""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .layouts import WORD_WIDTH, HostMask, Operation, Result, RowAnchor

__all__ = ["Engine"]


class Engine(wiring.Component):
    """Multiplies compressed rows of A with tiles of B."""

    def __init__(self, *, lanes, formats, accumulator_width, max_k, b_depth, drains=1):
        super().__init__({
            "i_operation": In(stream.Signature(Operation)),
            "i_b": In(stream.Signature(WORD_WIDTH)),
            "i_row": In(stream.Signature(RowAnchor)),
            "i_mask": In(stream.Signature(HostMask)),
            "i_values": In(stream.Signature(WORD_WIDTH)),
            "o": Out(stream.Signature(Result)),
        })

    def elaborate(self, platform):
        return Module()
