"""``exactum devices``: what can be opened on this machine."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import click

from .output import Output, verb

__all__ = ["Available", "command", "find"]

_HOST = "pip install 'exactum[host]'"


@dataclass(frozen=True)
class Available:
    """A device by the name that opens it: ``status`` is ``ok``, ``missing`` or ``forbidden``.

    ``advice`` says what to do unless all is well.
    """

    name: str
    status: str
    description: str
    advice: str = ""


@click.command("devices")
@verb
def command(output: Output) -> None:
    """Name what can be opened: emulator, compiled RTL, and boards at serial ports."""
    found = list(find())
    output.table(("device", "status", "what it is"),
                 [(device.name, device.status, device.description) for device in found])
    for device in found:
        if device.status != "ok":
            output.line(f"{device.name}: {device.advice}")
    if not any(device.name.startswith("serial") for device in found):
        output.line("no serial port: plug the board in; a pseudo terminal is serial:/dev/pts/N")
    output.result({"devices": [vars(device) for device in found]})


def find() -> Iterator[Available]:
    """Look for each kind in turn; opens nothing."""
    there = find_spec("torch") is not None
    yield Available("emulator", "ok" if there else "missing", "the contract in PyTorch, exact",
                    "" if there else _HOST)
    yield _compiled()
    yield from _ports()


def _compiled() -> Available:
    from ...gen.errors import ExactumError
    from ...gen.native_tools import choose, compiler
    try:
        backend, (path, _) = choose(None), compiler()
    except ExactumError as error:
        return Available("rtl", "missing", error.message, error.hint or "")
    return Available("rtl", "ok", f"the Verilog, compiled by {backend.name} and {path}")


def _ports() -> Iterator[Available]:
    """Serial ports by path; those of which nothing is known are not there."""
    if find_spec("serial") is None:
        yield Available("serial", "missing", "boards at serial ports", _HOST)
        return
    from serial.tools.list_ports import comports
    for port in sorted(comports(), key=lambda port: port.device):
        known = (port.description, port.manufacturer, port.serial_number)
        words = dict.fromkeys(str(word) for word in known if word and word != "n/a")
        description = ", ".join(words) or "serial port"
        if os.access(port.device, os.R_OK | os.W_OK):
            yield Available(f"serial:{port.device}", "ok", description)
        else:
            yield Available(f"serial:{port.device}", "forbidden", description,
                            "sudo usermod -aG dialout $USER, then log in again")
