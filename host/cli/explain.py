"""``exactum explain``: an error code or a configuration key."""

import click

from .output import Output, verb

__all__ = ["command"]


@click.command("explain")
@click.argument("topic", metavar="CODE|KEY")
@verb
def command(output: Output, *, topic: str) -> None:
    """Explain an error code (X104) or a configuration key (vpcu.lanes)."""
    from ...gen.reference import explain
    lines = explain(topic)
    if not output.as_json:
        click.echo("\n".join(lines))
    output.result({"topic": topic, "lines": lines})
