"""docs/protocol.md: its example is what the code sends, its tables what was measured."""

import copy
import json
import re

import pytest

from benchmarks.link_tables import PAGE, RESULTS, fill, rows_of
from exactum.gen.errors import CODES
from exactum.hdl.machine_layouts import IDENTITY, REGISTER_BASE
from exactum.host.link.frames import READ, decode_reply, encode_request, hello
from sim_tests.fault_runs import RECOVERY, cells
from sim_tests.link_reference import ReferenceDevice

TEXT = PAGE.read_text("utf-8")
ROW = 32    # bytes in a line of the example


def example():
    """The four frames, in hexadecimal."""
    device = ReferenceDevice()
    device.registers[0] = IDENTITY
    greeting = b"\0" + hello(sequence=16, session=0x1234ABCD)
    read = encode_request(READ, sequence=17, session=0x1234ABCD, address=REGISTER_BASE, count=1)
    lines = []
    for name, content in (("HELLO", greeting), ("reply", device.feed(greeting)),
                          ("READ", read), ("reply", device.feed(read))):
        for at in range(0, len(content), ROW):
            lines.append(f"{'' if at else name:6} {content[at:at + ROW].hex(' ')}")
    return "\n".join(lines)


def test_the_example_is_what_the_code_gives():
    assert f"```\n{example()}\n```" in TEXT, "the example is now:\n" + example()


def test_the_example_reads_the_identity():
    reply = decode_reply(bytes.fromhex(example().rpartition("reply")[2])[:-1])
    assert reply.words.tobytes() == b"EXACTUM1"


def test_tables_are_those_of_the_benchmarks():
    """If not: ``python benchmarks/link_tables.py``."""
    assert fill(TEXT, rows_of("faults"), rows_of("fuzz")) == TEXT


def test_nothing_went_wrong_in_what_was_measured():
    rows = rows_of("faults")
    assert [(row["fault"], row["operation"]) for row in rows] == list(cells())
    for row in rows:
        assert row["injections"] >= 1000
        assert not any(row[key] for key in ("silent_corruptions", "double_executions", "hangs",
                                            "unlawful"))
        assert row["worst_recovery_seconds"] <= RECOVERY
    for row in rows_of("fuzz"):
        assert row["frames"] >= 1_000_000
        assert row["wrong"] == 0


def test_a_figure_that_has_changed_is_noticed():
    rows = copy.deepcopy(rows_of("faults"))
    rows[0]["returned"] += 1
    assert fill(TEXT, rows, rows_of("fuzz")) != TEXT


@pytest.mark.parametrize("heading", ["fault", "end"])
def test_a_page_without_its_tables_is_refused(heading):
    with pytest.raises(ValueError, match=f"has no table that begins with '{heading}'"):
        fill(TEXT.replace(f"| {heading} |", "| x |"), rows_of("faults"), rows_of("fuzz"))


def test_results_say_how_they_were_made():
    for name in ("faults", "fuzz"):
        content = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
        assert content["command"] == f"python benchmarks/{name}.py"


def test_codes_in_the_page_are_in_the_table():
    assert set(re.findall(r"X\d{3}", TEXT)) <= set(CODES)
