"""Around a netlist: a flip-flop before every input and behind every output, and two pins.

A core has more ports than a package has pins, and a path from a pin is no path of the design that
the core will be part of. So every input bit comes from a shift register and every output bit ends
in a flip-flop: what is measured is between registers, with the paths from and to the ports.

::

    serial --> [ff] --> [ff] --> ... one for each input bit
                 |        |
               ( the netlist )  -- each output bit --> [ff]

The netlist is Yosys' JSON of ECP5 cells; it is changed as data, so that the area stays that of the
unit alone, and nothing can be optimised across its ports.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import ExactumError

__all__ = ["CLOCK", "HARNESS", "SERIAL", "enclose", "enclose_file"]

CLOCK, SERIAL = "clk", "harness_serial"
HARNESS = 1
"""Version of the harness, for caches: to be raised when it changes."""

# A string of digits alone would be read as a number: hence the space, which Yosys writes too.
_PARAMETERS = {"CEMUX": "1 ", "CLKMUX": "CLK", "GSR": "DISABLED", "LSRMUX": "LSR",
               "REGSET": "RESET", "SRMODE": "LSR_OVER_CE"}


def enclose_file(source: Path, target: Path, top: str) -> None:
    """``enclose`` from one file into another; X305 if the first is no netlist with that top."""
    try:
        netlist = enclose(json.loads(source.read_text("utf-8")), top)
    except (ValueError, KeyError, TypeError) as error:
        raise ExactumError("X305", f"the netlist of {top} cannot be read: {error!r}",
                           f"delete {source} and run again") from error
    beside = target.with_name(f".{target.name}.new")  # another seed may be reading the old one
    beside.write_text(json.dumps(netlist), "utf-8")
    beside.replace(target)


def enclose(netlist: Mapping[str, Any], top: str) -> dict[str, Any]:
    """The top module behind flip-flops at all ports, without the other modules (the library).

    Raises
    ------
    KeyError
        If there is no such module, or it has no port ``clk``.
    """
    module = netlist["modules"][top]
    ports, cells = module["ports"], module["cells"]
    clock = ports[CLOCK]["bits"][0]
    inputs = [bit for name, bit in _bits(ports, "input") if name != CLOCK]
    outputs = [bit for _, bit in _bits(ports, "output") if not isinstance(bit, str)]
    free = 1 + max(bit for bit in _used(module) if isinstance(bit, int))
    added = {}
    before = serial = free
    for number, bit in enumerate(inputs):
        added[f"harness_i_{number}"] = _flip_flop(clock, before, bit)
        before = bit
    for number, bit in enumerate(outputs):
        added[f"harness_o_{number}"] = _flip_flop(clock, bit, serial + 1 + number)
    return {"creator": netlist.get("creator", ""), "modules": {top: {
        **module, "cells": {**cells, **added},
        "ports": {CLOCK: ports[CLOCK], SERIAL: {"direction": "input", "bits": [serial]}}}}}


def _bits(ports: Mapping[str, Any], direction: str) -> Iterator[tuple[str, Any]]:
    for name, port in ports.items():
        if port["direction"] == direction:
            for bit in port["bits"]:
                yield name, bit


def _used(module: Mapping[str, Any]) -> Iterator[Any]:
    """Every net's number, also of nets without a name. A constant is a string."""
    for port in module["ports"].values():
        yield from port["bits"]
    for cell in module["cells"].values():
        for bits in cell["connections"].values():
            yield from bits
    for name in module.get("netnames", {}).values():
        yield from name["bits"]


def _flip_flop(clock: int, data: int, out: int) -> dict[str, Any]:
    return {"hide_name": 0, "type": "TRELLIS_FF", "parameters": dict(_PARAMETERS),
            "attributes": {},
            "port_directions": {"CLK": "input", "DI": "input", "LSR": "input", "Q": "output"},
            "connections": {"CLK": [clock], "DI": [data], "LSR": ["0"], "Q": [out]}}
