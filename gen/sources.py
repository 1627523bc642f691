"""Where configuration values come from: TOML files with line numbers, and overrides."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ConfigurationError, Problem

__all__ = ["Source", "at", "read_overrides", "read_toml"]

_TABLE = re.compile(r"\s*\[\s*([\w.\"'-]+)\s*\]\s*(#.*)?$")
_KEY = re.compile(r"\s*([\w.\"'-]+(?:\s*\.\s*[\w\"'-]+)*)\s*=")


@dataclass(frozen=True)
class Source:
    """Values from a file or an override, and the line of each dotted key (0: it has none)."""

    origin: str
    values: dict[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)
    is_file: bool = False

    def line(self, key: str) -> int | None:
        """Where a key is set: its line, or that of the first one inside it, or of its table.

        None if it is not set here, or by nothing that the user wrote.
        """
        if key in self.lines:
            return self.lines[key]
        if not self.lines or at(self.values, key) is None:
            return None
        inside = (line for name, line in self.lines.items() if name.startswith(f"{key}."))
        return next(inside, self.lines.get(key.rpartition(".")[0], 0))


def at(values: Mapping[str, Any], key: str) -> Any:
    """The value under a dotted key, or None."""
    inner: Any = values
    for part in key.split("."):
        inner = inner.get(part) if isinstance(inner, Mapping) else None
    return inner


def read_toml(path: Path) -> Source:
    """A TOML file with the line of each key; ConfigurationError if it cannot be read."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        values = tomllib.loads(text)
    except OSError as error:
        reason, hint = _unreadable(path, error)
        raise ConfigurationError([Problem("X101", f"{str(path)!r} cannot be read: {reason}")],
                                 hint) from error
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigurationError([Problem(
            "X102", f"not UTF-8: the byte 0x{error.object[error.start]:02X} stands for no "
            "character", where=f"{path}:{number}")],
            "save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise ConfigurationError([Problem(
            "X102", f"not TOML: {error}", where=f"{path}:{line[1]}" if line else str(path))],
            "correct that line; strings stand in double quotes, lists in [ ]") from error
    return Source(str(path), values, dict(_lines(text)), is_file=True)


def _unreadable(path: Path, error: OSError) -> tuple[str, str]:
    """Why a file cannot be read, and what to do."""
    if isinstance(error, FileNotFoundError):
        return "does not exist", f"exactum new {path} writes a configuration to start from"
    if isinstance(error, IsADirectoryError):
        return "it is a folder", "name a preset, or a TOML file in that folder"
    return str(error.strerror), "name a preset or a TOML file that you may read"


def _lines(text: str) -> Iterable[tuple[str, int]]:
    table, seen = "", set()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.match(line):
            table = key = _plain(header[1])
        elif entry := _KEY.match(line):
            key = ".".join(filter(None, (table, _plain(entry[1]))))
        else:
            continue
        if key not in seen:
            seen.add(key)
            yield key, number


def _plain(key: str) -> str:
    return re.sub(r"[\s\"']", "", key)


def read_overrides(overrides: Iterable[str]) -> tuple[list[Source], list[Problem]]:
    """``KEY=VALUE`` strings, the value in TOML (a bare word counts as a string)."""
    sources, problems = [], []
    for text in overrides:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not value or not re.fullmatch(r"\w+(\.\w+)*", key):
            problems.append(Problem("X110", f"an override is KEY=VALUE; got {text!r}",
                                    where=f"-s {text}"))
            continue
        values = _value(value)
        for part in reversed(key.split(".")):
            values = {part: values}
        sources.append(Source(f"-s {key}", values, {key: 0}))
    return sources, problems


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text
