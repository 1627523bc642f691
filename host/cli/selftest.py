"""``exactum selftest``: vectors of every unit through a device."""

from typing import TYPE_CHECKING

import click

from .output import Output, configured, verb

if TYPE_CHECKING:
    from ...gen.config import Configuration
    from ..selftest import Finding

__all__ = ["command"]


@click.command("selftest")
@click.argument("device")
@click.option("--latency", type=click.FloatRange(min=0, min_open=True), default=0.1,
              show_default=True, help="Seconds that a board may take to answer, beside its bytes.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True,
              help="Seed of the random data.")
@click.option("--trace", type=click.Path(dir_okay=False), metavar="FILE.json",
              help="Write what happened when, for Perfetto.")
@verb
@configured("default")
def command(output: Output, *, config: "Configuration", device: str, latency: float, seed: int,
            trace: str | None) -> int:
    """Run every unit of DEVICE and compare with the emulator: bits, counters, cycles.

    DEVICE is emulator, rtl or serial:PATH (`exactum devices`). Leaves with 1 at a difference.
    """
    from contextlib import nullcontext

    from ...gen.errors import UsageError
    if device.startswith("rtl:"):
        raise UsageError("X211", f"the configuration is an option here; got {device!r}",
                         f"exactum selftest rtl -c {device.partition(':')[2]}")

    from ..device import open_device
    from ..selftest import check, vectors
    from ..trace import tracing
    output.line(f"{device}, configuration {config.name}, {config.hash[:16]}, seed {seed}")
    asked = list(vectors(config, seed))
    step = output.steps(len(asked) + 1)
    findings: list[Finding] = []
    with tracing(trace) if trace else nullcontext():
        with step(f"opening {device}"):
            opened = open_device(device, config, latency=latency)
        with opened:
            for vector in asked:
                with step(f"{vector.unit}: {vector.name}"):
                    findings.append(check(opened, vector))
    rows = [(finding.unit, finding.name, f"{finding.cycles:,}", finding.difference or "passed")
            for finding in findings]
    output.table(("unit", "vectors", "cycles", "result"), rows)
    failed = [finding for finding in findings if not finding.passed]
    if failed:
        output.line(f"the first difference: {failed[0].unit}, {failed[0].name}: "
                    f"{failed[0].difference}")
    output.line(f"{len(findings) - len(failed)} of {len(findings)} passed")
    if trace:
        output.line(f"written {trace}: open it at https://ui.perfetto.dev")
    output.result({"device": device, "configuration": {"name": config.name, "hash": config.hash},
                   "seed": seed, "passed": not failed,
                   "findings": [{**vars(finding), "passed": finding.passed}
                                for finding in findings]})
    return 1 if failed else 0
