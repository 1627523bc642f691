"""``exactum verify``: the files of an output folder against its manifest."""

from pathlib import Path

import click

from .output import Output, verb

__all__ = ["command"]


@click.command("verify")
@click.argument("folder", type=click.Path(path_type=Path))
@verb
def command(output: Output, *, folder: Path) -> int:
    """Check every file of FOLDER against the SHA-256 in its manifest.json.

    Leaves with 1 if a file is changed, missing or not listed.
    """
    from ...gen.manifest import read_manifest, verify_manifest
    checked = verify_manifest(folder)
    manifest = read_manifest(folder)
    output.table(("file", "state"), list(checked.files.items()))
    configuration = manifest["configuration"]
    output.line(f"configuration {configuration['name']}, {configuration['hash']}")
    output.result({"intact": checked.intact, "files": checked.files})
    return 0 if checked.intact else 1
