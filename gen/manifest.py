"""The manifest of an output folder: reading it, and checking the files against its hashes."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UsageError

__all__ = ["MANIFEST", "Verification", "is_output", "read_manifest", "verify_manifest"]

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Verification:
    """The outcome for each file: ``intact``, ``changed``, ``missing`` or ``unlisted``."""

    files: dict[str, str]

    @property
    def intact(self) -> bool:
        """Whether every file is as it was written."""
        return set(self.files.values()) <= {"intact"}


def is_output(folder: Path) -> bool:
    """Whether a folder is an output of Exactum: it has a manifest of ours."""
    try:
        read_manifest(folder)
    except UsageError:
        return False
    return True


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
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or "exactum" not in manifest:
        raise UsageError("X112", f"{str(path)!r} is not a manifest of Exactum",
                         "name a folder that `exactum generate` wrote")
    return manifest


def verify_manifest(folder: str | Path) -> Verification:
    """Compare every file of an output folder with the SHA-256 in its manifest."""
    root = Path(folder)
    expected = read_manifest(root)["files"]
    present = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    outcome = dict.fromkeys(sorted(present - set(expected) - {MANIFEST}), "unlisted")
    for name, digest in expected.items():
        if name not in present:
            outcome[name] = "missing"
        else:
            actual = hashlib.sha256((root / name).read_bytes()).hexdigest()
            outcome[name] = "intact" if actual == digest else "changed"
    return Verification(outcome)
