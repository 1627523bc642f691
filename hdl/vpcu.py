"""The vector processing core: row-product engine over N lanes (docs/vpcu.md)."""

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .layouts import WORD_WIDTH, ForceWindow, Operation, Result, RowAnchor, skipper_token

__all__ = ["Vpcu"]


class Vpcu(wiring.Component):
    """Multiplies rows of A with a tile of B."""

    def __init__(self, *, lanes, formats, accumulator_width, max_k, b_depth, drains=1):
        super().__init__({
            "i_operation": In(stream.Signature(Operation)),
            "i_b": In(stream.Signature(WORD_WIDTH)),
            "i_row": In(stream.Signature(RowAnchor)),
            "i_a": In(stream.Signature(skipper_token(max_k))),
            "o_force": Out(stream.Signature(ForceWindow)),
            "o": Out(stream.Signature(Result)),
        })

    def elaborate(self, platform):
        return Module()
