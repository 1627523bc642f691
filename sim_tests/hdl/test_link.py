# amaranth: UnusedElaboratable=no
"""The link in Amaranth's simulator beside the reference, rule by rule of docs/protocol.md."""

import struct
from itertools import product

import pytest
from amaranth.hdl import *

from exactum.hdl import replies, session
from exactum.hdl.link import Link
from exactum.hdl.machine_layouts import REGISTER_BASE, REGISTERS, Register
from exactum.hdl.protocol import MAX_WORDS, REPLY, VERSION, WINDOW, Request, Status
from sim_tests.link_bench import MEMORY_WORDS, LinkBench
from sim_tests.link_reference import (
    REPLY_FORMAT,
    Access,
    frame_of,
    request_frame,
    unframed,
)
from sim_tests.streams import PATTERNS

HELLO, READ, WRITE = (request.value for request in (Request.HELLO, Request.READ, Request.WRITE))
SESSION = 0x12345678
FIRST = 65534
STOP = Access(1, REGISTER_BASE + Register.CONTROL.value, 1)
PATTERN = 0x8877665544332211


def hello(sequence=FIRST, session=SESSION, **fields):
    return request_frame(HELLO, sequence=sequence, session=session, **fields)


def read(number, address=0, count=1, **fields):
    """The READ that is the session's request of this number, from 1 on."""
    fields = {"sequence": (FIRST + number) % 2**16, "session": SESSION} | fields
    return request_frame(**{"request": READ, "address": address, "count": count} | fields)


def write(number, address, *words, **fields):
    return read(number, address, **{"request": WRITE, "words": words, "count": len(words)} | fields)


def run(*chunks, stalls=("flowing",) * 4, dut=None, apart=True):
    """Chunks one after the other, each answered before the next; gives the bench and statuses."""
    bench = LinkBench(stalls, dut)

    async def host(ctx):
        for chunk in chunks:
            await (bench.exchange if apart else bench.send)(ctx, chunk)

    bench.run(host)
    return bench, statuses(bench.text)


def statuses(text):
    """(status, expected number counted from FIRST, words) of each reply."""
    found = []
    for line in filter(None, bytes(text).split(b"\0")):
        content = unframed(line)
        fields = struct.unpack_from(REPLY_FORMAT, content)
        assert fields[0] & REPLY
        found.append((Status(fields[1]).name, (fields[5] - FIRST) % 2**16,
                      struct.unpack_from(f"<{fields[6]}Q", content, 16)))
    return found


def test_d1_wrong_frames_are_dropped_and_counted_and_the_next_one_is_answered():
    good = hello()
    wrong = {
        "COBS": good[:-2] + b"\0", "CRC": good[:-2] + bytes([good[-2] ^ 1 or 2]) + b"\0",
        "too short": frame_of(bytes(15)), "a CRC alone": frame_of(b""),
        "too long": frame_of(bytes(529)), "much too long": b"\1" * 6000 + b"\0",
        "two in one": good[:-1] + good,
    }
    bench, found = run(*(chunk for text in wrong.values() for chunk in (text, b"\0\0" + good)))
    assert len(found) == len(wrong)
    assert bench.reference.dropped == len(wrong)
    assert bench.bus == [STOP]


def test_d2_hello_begins_a_session_and_stops_the_machine_first():
    words = (VERSION | WINDOW << 16 | MAX_WORDS << 32, 0)
    bench, found = run(hello(), read(1), hello(sequence=7), hello(session=5, sequence=FIRST + 1),
                       read(2, session=5), read(1, session=5))
    assert bench.bus == [STOP, Access(0, 0, 0), STOP, Access(0, 0, 0)]
    assert found == [("OK", 1, words), ("OK", 2, (0,)), ("OK", 2, words), ("OK", 2, words),
                     ("OK", 3, (0,)), ("SEQUENCE", 3, ())]


def test_d2_a_hello_that_is_not_in_order_changes_nothing():
    wrong = [hello(address=2), hello(address=2, count=1), hello(count=1), hello(zero=1),
             hello(zeros=1), hello(words=(1,)), hello(session=0), hello(session=0, count=1)]
    bench, found = run(*wrong, hello())
    assert [status for status, *_ in found] == [
        "VERSION", "VERSION", "LENGTH", "LENGTH", "LENGTH", "LENGTH", "SESSION", "LENGTH", "OK"]
    assert bench.bus == [STOP]


def test_d3_requests_of_another_session_or_of_none_do_nothing():
    bench, found = run(read(1), read(1, session=0), hello(), read(1, session=SESSION ^ 1 << 31),
                       write(1, 0, 1, session=0), read(1, request=99, session=3), read(1))
    assert [status for status, *_ in found] == [
        "SESSION", "SESSION", "OK", "SESSION", "SESSION", "SESSION", "OK"]
    assert bench.bus == [STOP, Access(0, 0, 0)]


def test_d4_words_are_written_and_read():
    top = REGISTER_BASE + REGISTERS
    words = tuple(range(PATTERN, PATTERN + MAX_WORDS))
    bench, found = run(hello(), write(1, MEMORY_WORDS - MAX_WORDS, *words),
                       read(2, MEMORY_WORDS - MAX_WORDS, MAX_WORDS), write(3, top - 2, 0, PATTERN),
                       read(4, top - REGISTERS, REGISTERS))
    assert found[2] == ("OK", 3, words)
    assert found[4] == ("OK", 5, (0,) * 7 + (1,) + (0,) * 23 + (PATTERN,))
    assert len(bench.bus) == 1 + 2 * MAX_WORDS + 2 + REGISTERS


REFUSED = {
    "REQUEST": [{"request": 0}, {"request": 4, "count": 0}, {"request": READ | REPLY}],
    "LENGTH": [{"count": 0}, {"count": 65}, {"count": 257}, {"words": (1,)}, {"zero": 128},
               {"zeros": 1}, {"request": WRITE}, {"request": WRITE, "words": (1, 2)},
               {"request": WRITE, "count": 0}, {"request": WRITE, "count": 33, "words": (1,)},
               {"address": MEMORY_WORDS, "count": 0}],
    "ADDRESS": [{"address": MEMORY_WORDS}, {"address": MEMORY_WORDS - 1, "count": 2},
                {"address": 2**31 - 1}, {"address": 2**31 - 1, "count": 2},
                {"address": 2**31 + 32}, {"address": 2**31 + 31, "count": 2},
                {"address": 2**32 - 1}, {"address": 2**32 - 1, "count": 2},
                {"request": WRITE, "address": MEMORY_WORDS - 1, "count": 2, "words": (1, 2)}],
}


@pytest.mark.parametrize("status", REFUSED)
def test_d4_what_cannot_be_done_does_nothing_but_takes_its_turn(status):
    frames = [read(number, **fields) for number, fields in enumerate(REFUSED[status], 1)]
    bench, found = run(hello(), *frames)
    assert found[1:] == [(status, number + 1, ()) for number in range(1, len(frames) + 1)]
    assert bench.bus == [STOP]


def test_d5_the_last_four_replies_are_sent_again_and_nothing_is_done_again():
    frames = [write(1, 0, 1, 2), read(2, 0, 2), read(3, request=9), write(4, 0, 3), read(5, 0, 1)]
    again = [frame for number in (3, 1, 4, 2, 3, 1) for frame in (frames[number],)]
    bench, found = run(hello(), *frames[:1], frames[0], *frames[1:], *again, frames[4])
    assert found[-2] == found[4 - 1]
    assert found[3][2] == (1, 2)
    assert len(bench.bus) == 1 + 2 + 2 + 1 + 1
    assert bench.reference.repeated == 8


def test_d5_the_sequence_number_alone_tells_which_reply():
    _, found = run(hello(), read(1), write(1, 5, 7), read(1, request=77, count=9))
    assert found[1:] == [("OK", 2, (0,))] * 3


def test_d6_other_numbers_are_refused():
    frames = [read(number) for number in range(1, 7)]
    other = [read(number) for number in (0, 1, 2, 8, 9, 30000, 7 + 2**15)]
    _, found = run(hello(), read(0), *frames, *other)
    assert [status for status, *_ in found] == ["OK", "SEQUENCE"] + ["OK"] * 6 + ["SEQUENCE"] * 7


def test_d7_a_window_of_the_longest_requests_arrives_while_the_line_stands_still():
    frames = [read(1, 0, 64), write(2, 0, *range(64)), read(3, 0, 64), write(4, 0, *range(1, 65))]
    bench = LinkBench()

    async def host(ctx):
        await bench.exchange(ctx, hello())
        bench.hold = True
        for frame in frames:
            await bench.send(ctx, frame)
        await ctx.tick().repeat(2000)
        bench.hold = False

    bench.run(host)
    assert [status for status, *_ in statuses(bench.text)] == ["OK"] * 5


def test_d7_more_than_fits_is_dropped_and_what_comes_later_is_answered():
    bench = LinkBench()
    # The replies of 28 reads fill the sender's memory; then 7 writes that of the receiver.
    frames = [*(read(number) for number in range(1, 31)),
              *(write(number, 0, *range(64)) for number in range(31, 40)),
              *(read(number) for number in range(40, 60))]

    async def host(ctx):
        bench.hold = True
        for frame in (hello(), *frames):
            await bench.send(ctx, frame, counted=False)
        await ctx.tick().repeat(5)
        dropped = ctx.get(bench.dut.dropped)
        assert dropped > 2
        bench.hold = False
        await ctx.tick().repeat(9000)
        assert len(statuses(bench.text)) == ctx.get(bench.dut.taken) == 60 - dropped
        await bench.send(ctx, b"\0" + hello(session=3), counted=False)
        await ctx.tick().repeat(200)
        assert statuses(bench.text)[-1][:2] == ("OK", 1)

    bench.run(host, compares=False)


@pytest.mark.parametrize(("frame", "cycles"), [
    (read(1), 79), (read(1, 0, 64), 1150), (write(1, 0, 7), 69), (write(1, 0, *range(64)), 636),
    (read(1, 0, 0, words=(7,) * 64), 574), (read(1, session=1), 62),
], ids=["read", "read 64", "write", "write 64", "longest wrong one", "wrong session"])
def test_d7_a_request_takes_a_known_number_of_cycles(frame, cycles):
    bench, found = LinkBench(), []

    async def host(ctx):
        await bench.exchange(ctx, hello())
        before = bench.cycle
        await bench.exchange(ctx, frame)
        found.append(bench.stamps[-1] - before - len(frame))

    bench.run(host)
    assert found == [cycles]


STALLS = [*product(PATTERNS, repeat=2)]


@pytest.mark.parametrize("stalls", STALLS)
def test_stalls_of_line_and_bus_change_nothing(stalls):
    line, bus = stalls
    frames = [hello(), write(1, 3, PATTERN, 0, 2**64 - 1), read(2, 2, 5), read(2, 2, 5), b"\5\0",
              read(3, 2**31 + 7, 2), read(4, 512)]
    run(*frames, stalls=(line, bus, "bursts", line), apart=False)
    run(*frames, stalls=("flowing", bus, bus, line))


@pytest.mark.parametrize(("memory_words", "error"), [(0, ValueError), (2**31 + 1, ValueError),
                                                     (512.0, TypeError), (True, TypeError)])
def test_memories_that_there_are_not_are_refused(memory_words, error):
    with pytest.raises(error, match="memory_words"):
        Link(memory_words=memory_words)


FAULTS = {
    "one reply too few is kept": (session, "WINDOW", 3),
    "addresses reach too far": (session, "REGISTERS", 33),
    "replies look like requests": (replies, "REPLY", 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_caught(fault, monkeypatch):
    module, name, value = FAULTS[fault]
    monkeypatch.setattr(module, name, value)
    frames = [read(number) for number in range(1, 5)]
    with pytest.raises(AssertionError):
        run(hello(), *frames, frames[0], read(5, 2**31 + 31, 2))
