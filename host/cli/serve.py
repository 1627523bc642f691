"""``exactum serve``: a device at a pseudo terminal, simulated."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .output import Output, configured, verb

if TYPE_CHECKING:
    from ...gen.config import Configuration

__all__ = ["command"]


@click.command("serve")
@click.option("--link", type=click.Path(path_type=Path),
              help="Make this a symbolic link to the terminal, for as long as it is there.")
@verb
@configured("tiny")
def command(output: Output, *, config: "Configuration", link: Path | None) -> None:
    """Run the RTL of a whole device behind a pseudo terminal, as if a board were plugged in.

    Ends with Ctrl-C, or `kill`. The first time the RTL is compiled, which takes minutes.
    """
    from ...gen.errors import UsageError
    from ..native import NativeUnit
    from ..simulated_port import SimulatedPort
    if link is not None and (link.is_symlink() or link.exists()):
        raise UsageError("X114", f"{str(link)!r} is there already", "name a link that is not")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    step = output.steps(1)
    with step(f"compiling the device of {config.name}"):
        unit = NativeUnit.of("serial_line", config)
    with SimulatedPort(config, unit) as port:
        if link is not None:
            try:
                link.symlink_to(port.path)
            except OSError as error:
                raise UsageError("X114", f"{str(link)!r} cannot be made: {error.strerror}",
                                 "name a link that is not there yet") from error
        try:
            output.line(f"a device of {config.name} is at serial:{port.path}; it takes seconds for "
                        "what a board does at once, so give it time: --latency 20")
            output.result({"path": port.path, "hash": config.hash})
            sys.stdout.flush()
            port.wait()
        except KeyboardInterrupt:
            output.line("ended")
        finally:
            if link is not None and link.is_symlink() and str(link.readlink()) == port.path:
                link.unlink()
