"""The tables of docs/zce.md that benchmarks/results/sparsity.json fills.

``python benchmarks/sparsity_tables.py`` puts the present figures into the page.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

__all__ = ["fill", "merged"]

ROOT = Path(__file__).parent.parent
PAGE, RESULTS = ROOT / "docs" / "zce.md", ROOT / "benchmarks" / "results" / "sparsity.json"
NONE = "-"

Cell = Callable[..., str]


def fill(page: str, results: str) -> str:
    """The page with the figures of the results; ValueError if it lacks a table."""
    rows = {(row["part"], row["case"], row["figure"]): row for row in json.loads(results)["rows"]}

    def cell(part: str, case: str, figure: str, form: str = "{:.1%}", spread: bool = False) -> str:
        row = rows.get((part, case, figure))
        if row is None:
            return NONE
        text = form.format(row["value"])
        return f"{text} ({row['spread']})" if spread and row["spread"] else text

    for heading, lines in (("training", _trainings), ("by role", _roles), ("padded text", _padded),
                           ("P in", _probabilities), ("weights", _weights)):
        table = re.compile(rf"(\| {heading} \|.*\n\|[-|]+\n)(?:\|.*\n)+")
        if not table.search(page):
            raise ValueError(f"docs/zce.md has no table that begins with {heading!r}")
        body = "".join(f"| {' | '.join(line)} |\n" for line in lines(rows, cell))
        page = table.sub(lambda found, body=body: found[1] + body, page, count=1)
    return page


def merged(old: Sequence[dict], new: Sequence[dict]) -> list[dict]:
    """The old rows with the new ones in their places, each part and case in one."""
    rows = {(r["part"], r["case"], r["figure"]): r for r in (*old, *new)}
    places = {case: place for place, case in enumerate(dict.fromkeys(key[:2] for key in rows))}
    return [rows[key] for key in sorted(rows, key=lambda key: places[key[:2]])]


def _trainings(rows: dict[tuple[str, str, str], dict], cell: Cell) -> Iterator[tuple[str, ...]]:
    for part, case in dict.fromkeys((part, case) for part, case, figure in rows
                                    if figure in ("accuracy, %", "loss")):
        score = "{:.3f} (loss)" if cell(part, case, "loss") != NONE else "{:.2f} %"
        lost = "{:+.3f} (loss)" if "loss" in score else "{:.2f}"
        figure = "loss grown by" if "loss" in score else "points lost"
        yield (f"{part}, {case}", cell(part, case, "fewer products, all"),
               cell(part, case, "fewer cycles, all"),
               cell(part, case, "fewer cycles / fewer products", "{:.3f}"),
               cell(part, case, "fewer products than dense training with its zeros skipped"),
               cell(part, case, "fewer cycles than dense training with its zeros skipped"),
               cell(part, case, "loss" if "loss" in score else "accuracy, %", score),
               cell(part, case, figure, lost, spread="loss" not in score))


def _roles(rows: dict[tuple[str, str, str], dict], cell: Cell) -> Iterator[tuple[str, ...]]:
    for part, case in dict.fromkeys((part, case) for part, case, figure in rows
                                    if figure == "fewer products, forward"):
        yield (f"{part}, {case}", *(
            f"{cell(part, case, f'fewer products, {role}')} / "
            f"{cell(part, case, f'fewer cycles, {role}')}"
            for role in ("forward", "data-gradient", "weight-gradient")))


def _padded(rows: dict[tuple[str, str, str], dict], cell: Cell) -> Iterator[tuple[str, ...]]:
    for part, case, figure in rows:
        if part == "padded text":
            form = "{:.1%}" if "share" in figure else "{:.3f}"
            yield case, figure, cell(part, case, figure, form, spread=True)


def _probabilities(rows: dict[tuple[str, str, str], dict], cell: Cell
                   ) -> Iterator[tuple[str, ...]]:
    for part, case in dict.fromkeys(key[:2] for key in rows):
        if part == "attention":
            yield (case.removeprefix("P in "), *(cell(part, case, figure) for figure in (
                "zeros", "zeros of past", "products fewer", "cycles fewer")))


def _weights(rows: dict[tuple[str, str, str], dict], cell: Cell) -> Iterator[tuple[str, ...]]:
    for part, case in dict.fromkeys(key[:2] for key in rows):
        if part == "sparse weights":
            yield case, *(cell(part, case, figure) for figure in (
                "density", "of ideal", "packed by 8 rows", "packed by 32 rows"))


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text("utf-8"), RESULTS.read_text("utf-8")), encoding="utf-8")
