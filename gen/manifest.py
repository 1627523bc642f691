"""The manifest of an output folder: reading it, and checking the files against its hashes."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UsageError

__all__ = ["MANIFEST", "Verification", "read_manifest", "unlisted", "verify_manifest"]

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Verification:
    """The outcome for each file: ``intact``, ``changed``, ``missing`` or ``unlisted``."""

    files: dict[str, str]

    @property
    def intact(self) -> bool:
        """Whether every file is as it was written."""
        return set(self.files.values()) <= {"intact"}


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder; UsageError X112 if there is none or it is not ours."""
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError("X112", f"{str(path)!r} cannot be read: {error.strerror}",
                         "name a folder that `exactum generate` wrote") from error
    except ValueError as error:
        raise UsageError("X112", f"{str(path)!r} is not JSON: {error}",
                         "generate the folder anew") from error
    if not _is_ours(manifest):
        raise UsageError("X112", f"{str(path)!r} is not a manifest of Exactum",
                         "name a folder that `exactum generate` wrote")
    return manifest


def _is_ours(manifest: Any) -> bool:
    """Whether a manifest has every part that is read from one, each of its type."""
    if not isinstance(manifest, dict) or manifest.get("manifest") != 1:
        return False
    configuration, units = manifest.get("configuration"), manifest.get("units")
    return (isinstance(manifest.get("exactum"), str)
            and isinstance(configuration, dict)
            and all(isinstance(configuration.get(key), str) for key in ("name", "hash"))
            and isinstance(units, list) and all(isinstance(unit, str) for unit in units)
            and all(isinstance(part, dict) and all(isinstance(text, str) for text in part.values())
                    for part in (manifest.get("tools"), manifest.get("files"))))


def unlisted(folder: str | Path) -> list[str]:
    """What an output folder holds besides its manifest and the files that this one lists."""
    root = Path(folder)
    listed = {MANIFEST, *read_manifest(root)["files"]}
    # A link is something of its own, wherever it leads; an empty folder is nothing to lose.
    present = {path.relative_to(root).as_posix() for path in root.rglob("*")
               if path.is_symlink() or not path.is_dir()}
    return sorted(present - listed)


def verify_manifest(folder: str | Path) -> Verification:
    """Compare every file of an output folder with the SHA-256 in its manifest."""
    root = Path(folder)
    expected = read_manifest(root)["files"]
    outcome = dict.fromkeys(unlisted(root), "unlisted")
    for name, digest in expected.items():
        if not (root / name).is_file():
            outcome[name] = "missing"
        else:
            actual = hashlib.sha256((root / name).read_bytes()).hexdigest()
            outcome[name] = "intact" if actual == digest else "changed"
    return Verification(outcome)
