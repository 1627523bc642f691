"""What docs/attention.md says of cycles is what benchmarks/attention.py has counted."""

import json
import re

from benchmarks import attention
from sim_tests.repository import ROOT

PAGE = (ROOT / "docs" / "attention.md").read_text("utf-8")
ROWS = json.loads((ROOT / "benchmarks" / "results" / "attention.json").read_text("utf-8"))["rows"]


def test_the_table_is_that_of_the_benchmark():
    found = {(row["direction"], row["part"]): f"{row['cycles']:,} | {row['share']:.1%}".replace(
        "%", " %") for row in ROWS if (row["keys"], row["width"]) == (1024, 64)}
    lines = {re.sub(r"\|[| ]+", "| ", line) for line in PAGE.splitlines()}
    for part in {part for _, part in found}:
        cells = [part, *(found[direction, part] for direction in ("forward", "backward")
                         if (direction, part) in found)]
        assert f"| {' | '.join(cells)} | ".rstrip() in {line.rstrip() for line in lines}


def test_the_shares_of_the_sums():
    shares = {(row["keys"], row["width"]): round(100 * row["share"]) for row in ROWS
              if row["part"] == "sums of P dP"}
    assert (f"It takes {shares[1024, 64]} % of a backward pass at width 64, {shares[1024, 128]} % "
            f"at 128, {shares[256, 16]} % at 16.") in " ".join(PAGE.split())


def test_the_benchmark_gives_these_rows_again():
    keys, width = attention.SIZES[0]
    assert attention.measure(keys, width) == [
        row for row in ROWS if (row["keys"], row["width"]) == (keys, width)]
