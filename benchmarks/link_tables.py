"""The tables of docs/protocol.md that benchmarks/results/faults.json and fuzz.json fill.

``python benchmarks/link_tables.py`` puts the present figures into the page.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["PAGE", "RESULTS", "fill", "update"]

ROOT = Path(__file__).parent.parent
PAGE, RESULTS = ROOT / "docs" / "protocol.md", ROOT / "benchmarks" / "results"


def fill(page: str, faults: Sequence[dict], fuzz: Sequence[dict]) -> str:
    """The page with the figures of the rows; ValueError if it lacks a table."""
    for heading, lines in (("fault", _faults(faults)), ("end", _fuzz(fuzz))):
        table = re.compile(rf"(\| {heading} \|.*\n\|[-|]+\n)(?:\|.*\n)*")
        if not table.search(page):
            raise ValueError(f"docs/protocol.md has no table that begins with {heading!r}")
        body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        page = table.sub(lambda found, body=body: found[1] + body, page, count=1)
    return page


def _faults(rows: Sequence[dict]) -> Iterator[tuple[str, ...]]:
    for fault in dict.fromkeys(row["fault"] for row in rows):
        mine = [row for row in rows if row["fault"] == fault]
        codes = sum((Counter(row["errors"]) for row in mine), Counter())
        yield (fault, *(f"{sum(row[key] for row in mine):,}" for key in (
            "injections", "returned", "retried", "raised")),
            ", ".join(f"{code} {count:,}" for code, count in sorted(codes.items())) or "-",
            *(str(sum(row[key] for row in mine)) for key in (
                "silent_corruptions", "double_executions", "hangs")),
            f"{max(row['worst_recovery_seconds'] for row in mine):.2f} s")


def _fuzz(rows: Sequence[dict]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        yield row["end"], *(f"{row[key]:,}" for key in ("frames", "done", "errors", "wrong"))


def rows_of(name: str) -> list[dict]:
    """The rows of a benchmark's results; none if it has not run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []


def update() -> None:
    """Put the present figures into the page."""
    text = PAGE.read_text("utf-8")
    PAGE.write_text(fill(text, rows_of("faults"), rows_of("fuzz")), "utf-8")


if __name__ == "__main__":
    update()
