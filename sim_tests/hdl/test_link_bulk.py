"""The link's Verilog, compiled, beside the reference: a bad line and a bad host, in bulk."""

import subprocess
from pathlib import Path

import pytest
from amaranth.back import verilog

from exactum.hdl.link import Link
from sim_tests.link_bench import MEMORY_WORDS
from sim_tests.link_reference import Access, ReferenceDevice
from sim_tests.link_traffic import traffic

HARNESS = Path(__file__).with_name("link_harness.v")
WINDOW_WAITS = (0, 0, 1, 2, 3, 3, 3)
RUNS = {
    "flowing": (0, 0, 0, 8000), "slow line": (0, 200, 0, 3000), "slow bus": (0, 0, 200, 3000),
    "gaps": (128, 0, 0, 3000), "all stall": (100, 100, 100, 3000),
}
"""Stalls of 256 cycles (of what comes, of what goes, of the bus), and chunks."""


@pytest.fixture(scope="module")
def simulation(tmp_path_factory):
    """The compiled simulation of the link."""
    folder = tmp_path_factory.mktemp("link")
    text = verilog.convert(Link(memory_words=MEMORY_WORDS), name="link", emit_src=False,
                           strip_internal_attrs=True)
    (folder / "link.v").write_text(text, encoding="utf-8")
    subprocess.run(["verilator", "--binary", "--timing", "-Wno-fatal", "-Wno-lint", "-Wno-style",
                    "--top-module", "link_harness", "-CFLAGS", "-O1", "-o", "link", HARNESS,
                    "link.v"], cwd=folder, check=True, timeout=600, capture_output=True)
    return folder / "obj_dir" / "link"


def script_of(device, chunks, seed):
    """Words of the script and all replies; up to 4 chunks are on their way at once."""
    words, replies, ends = [], bytearray(), [0]
    for number, (text, reply) in enumerate(traffic(device, chunks, seed)):
        behind = WINDOW_WAITS[number % len(WINDOW_WAITS)]
        words.append(1 << 31 | ends[max(0, len(ends) - 1 - behind)])
        words += text
        replies += reply
        ends.append(len(replies))
    return words, bytes(replies)


def run(simulation, words, expected, stalls):
    """Bytes, accesses to the bus and counters of the gateware."""
    folder = simulation.parents[1]
    (folder / "script.hex").write_text("\n".join(f"{word:x}" for word in words), encoding="utf-8")
    options = {"script": "script.hex", "out": "out.txt", "length": len(words), "bytes": expected,
               **dict(zip(("stall_i", "stall_o", "stall_bus"), stalls, strict=True))}
    arguments = [f"+{key}={value}" for key, value in options.items()]
    subprocess.run([simulation, *arguments], cwd=folder, check=True,
                   timeout=120, stdout=subprocess.DEVNULL)
    text, bus, counters = bytearray(), [], None
    for line in (folder / "out.txt").read_text(encoding="utf-8").splitlines():
        kind, *fields = line.split()
        if kind == "o":
            text.append(int(fields[0], 16))
        elif kind == "e":
            counters = tuple(map(int, fields))
        else:
            bus.append(Access(kind == "w", *(int(field, 16) for field in [*fields, "0"][:2])))
    return bytes(text), bus, counters


@pytest.mark.parametrize("name", RUNS)
def test_replies_bus_and_counters_are_those_of_the_reference(simulation, name):
    *stalls, chunks = RUNS[name]
    device = ReferenceDevice(MEMORY_WORDS)
    words, replies = script_of(device, chunks, seed=len(name))
    text, bus, counters = run(simulation, words, len(replies), stalls)
    assert text == replies
    assert bus == device.bus
    assert counters == (device.taken, device.dropped, device.repeated)
    # The traffic is what it should be.
    assert min(counters) > chunks // 20
    assert len(device.executed) > chunks // 4
