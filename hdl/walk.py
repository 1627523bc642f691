"""Addresses of rows of elements in a memory of words, one after the other."""

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register
from .machine_layouts import Command

__all__ = ["ADDRESS_WIDTH", "Walk", "element_place"]

ADDRESS_WIDTH = Command["address"].width
"""Bits of an address in bytes; arithmetic on it is modulo 2^32."""


def element_place(width):
    """Where an element lies: word, first byte in it, 2^size bytes; ``last`` of its row."""
    return data.StructLayout({"word": width, "byte": 3, "size": 2, "last": 1})


class Walk(wiring.Component):
    """Goes through the elements of a MOVE command (docs/machine.md), row by row.

    Parameters
    ----------
    width : int
        Bits of a word's address.

    Members
    -------
    command : In(Command)
        What to walk through; taken with ``start``.
    start : In(1)
        Begin; only while not ``active``.
    active : Out(1)
        There is an element.
    place : Out(element_place(width))
        Where.
    legal : Out(1)
        It is in the memory, and its address is a multiple of its size.
    advance : In(1)
        On to the next one, of which there is one in the next cycle.
    """

    def __init__(self, *, width):
        self.width = width
        super().__init__({
            "command": In(Command), "start": In(1), "active": Out(1),
            "place": Out(element_place(width)), "legal": Out(1), "advance": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        command = register(Command)
        address = register(ADDRESS_WIDTH)
        next_row = register(ADDRESS_WIDTH)
        columns = register(16)   # behind this one in its row
        rows = register(16)      # behind this one
        is_last = Signal()
        m.d.comb += [
            is_last.eq(columns == 0),
            self.place.word.eq(address[3:]), self.place.byte.eq(address[:3]),
            self.place.size.eq(command.size), self.place.last.eq(is_last),
            self.legal.eq(~(address[3 + self.width:].any() | (command.size > 2)
                            | (address[0] & (command.size != 0))
                            | (address[1] & (command.size == 2)))),
        ]
        with m.If(self.start):
            m.d.sync += [
                command.eq(self.command), address.eq(self.command.address),
                next_row.eq(self.command.address + self.command.stride),
                columns.eq(self.command.inner - 1), rows.eq(self.command.outer - 1),
                self.active.eq((self.command.inner != 0) & (self.command.outer != 0)),
            ]
        with m.Elif(self.advance):
            m.d.sync += columns.eq(columns - 1)
            m.d.sync += address.eq(address + command.step)
            with m.If(is_last):
                m.d.sync += [
                    address.eq(next_row), next_row.eq(next_row + command.stride),
                    columns.eq(command.inner - 1), rows.eq(rows - 1),
                ]
                with m.If(rows == 0):
                    m.d.sync += self.active.eq(0)
        return m
