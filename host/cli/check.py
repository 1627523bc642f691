"""``exactum check``: validate a configuration."""

import json

import click

from ...gen.errors import UsageError
from .output import Output, verb

__all__ = ["command"]


@click.command("check")
@click.argument("source", required=False, metavar="PRESET|FILE")
@click.option("-s", "--set", "overrides", multiple=True, metavar="KEY=VALUE",
              help="Override one key. Repeatable.")
@click.option("--schema", "only_schema", is_flag=True,
              help="Print the JSON schema of a configuration file, for editors.")
@verb
def command(output: Output, *, source: str | None, overrides: tuple[str, ...],
            only_schema: bool) -> None:
    """Validate a configuration, all problems at once, and print what it resolves to."""
    from ...gen.config import load, schema
    if only_schema:
        click.echo(json.dumps(schema(), indent=2))
        return
    if source is None:
        raise UsageError("X101", "no configuration is named", "exactum check FILE.toml")
    config = load(source, overrides)
    if not output.as_json:
        click.echo(config.to_toml(), nl=False)
    output.line(f"# fine: {config.name}, {config.hash}")
    output.result({"hash": config.hash, "configuration": json.loads(config.to_json())})
