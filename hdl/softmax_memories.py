"""Memories of the softmax unit: tables that lanes share, and buffers whose words rest."""

from amaranth.hdl import *

from .rom import Rom

__all__ = ["NEVER_AT_ONCE", "shared_lookups"]

NEVER_AT_ONCE = {"no_rw_check": 1}
"""Attributes of a memory of which no word is read while it is written: for that Yosys would add
logic otherwise."""


def shared_lookups(m, name, contents, width, addresses, *, target, read=None):
    """What a table holds at each of ``addresses``, ``ROM_LATENCY`` (2) cycles later: one memory for
    two of them.

    Two, since a block RAM has two ports. ``read`` is its clock enable: in primitives none can be
    inserted.
    """
    found = []
    for number in range(0, len(addresses), 2):
        m.submodules[f"{name}{number // 2}"] = table = Rom(
            words=contents, width=width, target=target)
        m.d.comb += table.read.eq(1 if read is None else read)
        for address, port, o in zip(addresses[number:number + 2],
                                    (table.address_0, table.address_1), (table.o_0, table.o_1),
                                    strict=False):
            m.d.comb += port.eq(address)
            found.append(o)
    return found
