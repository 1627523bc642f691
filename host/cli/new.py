"""``exactum new``: a configuration to start from."""

from pathlib import Path

import click

from ...gen.errors import UsageError
from .output import Output, verb

__all__ = ["command"]


@click.command("new")
@click.argument("file", type=click.Path(path_type=Path), default="exactum.toml")
@click.option("-p", "--preset", "name", default="default", show_default=True,
              help="Preset that it extends.")
@verb
def command(output: Output, *, file: Path, name: str) -> None:
    """Write FILE (exactum.toml) with every key of a preset as a comment.

    An existing file is left alone.
    """
    from ...gen.reference import template
    text = template(name)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise UsageError("X113", f"{str(file)!r} already exists",
                         "exactum new OTHER.toml") from error
    output.line(f"written {file}; check it with: exactum check {file}")
    output.result({"file": str(file), "preset": name})
