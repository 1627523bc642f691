"""Results of hours, kept under the SHA-256 of all they depend on, in the user's cache folder."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

__all__ = ["Cache", "digest"]


def digest(**parts: Any) -> str:
    """SHA-256 of named texts, numbers and lists of them, as hexadecimal."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Cache:
    """Small JSON results by key, a file each.

    Parameters
    ----------
    folder : path, optional
        Where they lie, made when needed; ``exactum/synth`` in ``$XDG_CACHE_HOME`` (or ``~/.cache``)
        unless given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or _user_cache() / "exactum" / "synth"

    def get(self, key: str) -> dict[str, Any] | None:
        """What was put under the key; None if nothing was, or it cannot be read any more."""
        try:
            value = json.loads((self.folder / f"{key}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep a value. Two runs may write the same key at once: the last one stays, whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self.folder / f".{key}.{uuid4().hex}"
        try:
            beside.write_text(json.dumps(value, indent=1), "utf-8")
            beside.replace(self.folder / f"{key}.json")
        finally:
            beside.unlink(missing_ok=True)


def _user_cache() -> Path:
    # The base directory specification: a relative XDG_CACHE_HOME counts as none.
    named = os.environ.get("XDG_CACHE_HOME", "")
    return Path(named) if os.path.isabs(named) else Path.home() / ".cache"
