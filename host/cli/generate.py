"""``exactum generate``: from a configuration to a folder of Verilog."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .output import Output, configured, verb

if TYPE_CHECKING:
    from ...gen.config import Configuration

__all__ = ["command"]


@click.command("generate")
@click.argument("units", nargs=-1, metavar="[PRESET|FILE] [UNIT]...")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Output folder  [default: exactum-NAME of the configuration]")
@verb
@configured("default")
def command(output: Output, *, config: "Configuration", units: tuple[str, ...],
            out: Path | None) -> None:
    """Write Verilog, port descriptions, the resolved configuration and a manifest.

    All units unless some are named; `device` is the top level for a board. The folder
    is replaced only when everything has been written.
    """
    from ...gen.generate import generate
    from ...gen.units import select
    chosen = [unit.name for unit in select(units or None, systems=True)]
    folder = out or Path(f"exactum-{config.name}")
    output.line(f"configuration {config.name}, {config.hash[:16]}")
    made = generate(config, folder, chosen, step=output.steps(len(chosen) + 1))
    rows = []
    for unit in chosen:
        text = (made.folder / "rtl" / f"exactum_{unit}.v").read_text("utf-8")
        rows.append((f"rtl/exactum_{unit}.v", str(text.count("\n")), f"{len(text) // 1024 + 1}"))
    output.table(("file", "lines", "KiB"), rows)
    output.line(f"written to {folder}; check it with: exactum verify {folder}")
    output.result({"folder": str(folder), "manifest": made.manifest})
