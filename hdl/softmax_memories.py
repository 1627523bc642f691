"""Memories of the softmax unit: tables that lanes share, and buffers whose words rest."""

from amaranth.hdl import *
from amaranth.lib import memory

__all__ = ["NEVER_AT_ONCE", "shared_lookups"]

NEVER_AT_ONCE = {"no_rw_check": 1}
"""Attributes of a memory of which no word is read while it is written: for that Yosys would add
logic otherwise."""


def shared_lookups(m, name, contents, width, addresses):
    """What a table holds at each of ``addresses``, a cycle later: one memory for two of them.

    Two, since a block RAM has two ports.
    """
    found = []
    for number in range(0, len(addresses), 2):
        m.submodules[f"{name}{number // 2}"] = table = memory.Memory(
            shape=unsigned(width), depth=len(contents), init=contents)
        for address in addresses[number:number + 2]:
            port = table.read_port()
            m.d.comb += port.addr.eq(address)
            found.append(port.data)
    return found
