"""``exactum doctor``: what is installed, and what to do."""

from collections.abc import Iterator
from importlib.util import find_spec

import click

from ...gen.doctor import Finding
from .output import Output, verb

__all__ = ["command"]


@click.command("doctor")
@verb
def command(output: Output) -> int:
    """Name each tool, its version, what it is for and what to do.

    Leaves with 3 if a tool is missing that everyone needs.
    """
    from ...gen.doctor import examine
    findings = [*examine(), *_kernels()]
    output.table(("tool", "status", "version", "for"),
                 [(f.name, f.status, f.version, f.purpose) for f in findings])
    for finding in findings:
        if finding.status != "ok":
            output.line(f"{finding.name}: {finding.advice}")
    output.result({"tools": [vars(finding) for finding in findings]})
    return 3 if any(f.required and f.status != "ok" for f in findings) else 0


def _kernels() -> Iterator[Finding]:
    """Which loops the emulator runs, if torch is there to ask."""
    if find_spec("torch") is not None:
        from ..kernels import library, status
        yield Finding("emulator's kernels", "ok", status(), "faster conversions; optional"
                      if library() else "faster conversions; torch does them, with the same bits")
