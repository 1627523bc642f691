"""The reference of a device: its framing against the package cobs, and what a host sees of it."""

import random
import struct

import pytest
from cobs import cobs

from exactum.hdl.machine_layouts import REGISTER_BASE, Register
from exactum.hdl.protocol import MAX_WORDS, VERSION, WINDOW, Request, Status
from sim_tests.link_reference import (
    REPLY_FORMAT,
    Access,
    ReferenceDevice,
    decode,
    encode,
    request_frame,
    unframed,
)

HELLO, READ, WRITE = (request.value for request in Request)
LENGTHS = (*range(20), *range(250, 260), *range(505, 515), 532)


def texts():
    """Of every length above: no zeros, few, many, only zeros."""
    rng = random.Random(1)
    for length in LENGTHS:
        for lowest, highest in ((1, 255), (0, 255), (0, 1), (0, 0)):
            yield bytes(rng.randint(lowest, highest) for _ in range(length))


def test_framing_is_that_of_the_package_both_ways():
    for text in texts():
        assert encode(text) == cobs.encode(text)
        assert decode(encode(text)) == text


def test_a_run_that_is_cut_short_is_no_text():
    assert decode(b"\x03\x01") is None
    assert decode(b"\x02\x00") is None


def replies_of(text):
    """Every reply as (request, status, sequence, session, generation, expected, words)."""
    replies = []
    for line in filter(None, text.split(b"\0")):
        content = unframed(line)
        *fields, count = struct.unpack_from(REPLY_FORMAT, content)
        words = struct.unpack_from(f"<{count}Q", content, 16)
        replies.append((fields[0] & 127, Status(fields[1]), *fields[2:], words))
    return replies


def test_a_session_of_writes_and_reads():
    device = ReferenceDevice()
    frames = (request_frame(HELLO, sequence=65534, session=9)
              + request_frame(WRITE, sequence=65535, session=9, address=510, count=2, words=(3, 4))
              + request_frame(READ, sequence=0, session=9, address=509, count=3))
    text = b"".join(device.feed(frames[at:at + 7]) for at in range(0, len(frames), 7))
    assert text[0] == 0
    assert replies_of(text) == [
        (HELLO, Status.OK, 65534, 9, 1, 65535, (VERSION | WINDOW << 16 | MAX_WORDS << 32, 0)),
        (WRITE, Status.OK, 65535, 9, 1, 0, ()),
        (READ, Status.OK, 0, 9, 1, 1, (0, 3, 4)),
    ]
    assert device.bus == [Access(1, REGISTER_BASE + Register.CONTROL.value, 1),
                          Access(1, 510, 3), Access(1, 511, 4),
                          *(Access(0, address, 0) for address in (509, 510, 511))]
    assert [executed.request for executed in device.executed] == [
        Request.HELLO, Request.WRITE, Request.READ]


@pytest.mark.parametrize(("status", "options"), [
    (Status.LENGTH, {"count": 0}), (Status.LENGTH, {"count": 65}), (Status.LENGTH, {"zero": 1}),
    (Status.LENGTH, {"count": 1, "words": (5,)}), (Status.LENGTH, {"count": 1, "zeros": 256}),
    (Status.ADDRESS, {"address": 511, "count": 2}), (Status.REQUEST, {"request": 4, "count": 1}),
])
def test_an_expected_request_that_cannot_be_done_takes_its_turn_and_is_kept(status, options):
    device = ReferenceDevice()
    device.feed(request_frame(HELLO, sequence=0, session=9))
    frame = request_frame(**{"request": READ, "sequence": 1, "session": 9, "address": 0} | options)
    first, second = device.feed(frame), device.feed(frame)
    assert first == second
    assert replies_of(first)[0][1::4] == (status, 2)
    assert (device.taken, device.repeated, len(device.bus)) == (3, 1, 1)


def test_a_device_that_was_reset_knows_no_session():
    device = ReferenceDevice()
    device.feed(request_frame(HELLO, sequence=0, session=9))
    device.power_cycle()
    for session in (0, 9):
        reply, = replies_of(device.feed(request_frame(READ, sequence=1, session=session, count=1)))
        assert reply[1:5] == (Status.SESSION, 1, 0, 0)


def test_what_is_damaged_is_dropped_and_what_follows_is_answered():
    device = ReferenceDevice()
    hello = request_frame(HELLO, sequence=0, session=9)
    for damaged in (hello[:-3], bytes([hello[0] ^ 1]) + hello[1:-1], b"\5", b"\1" * 600, b"\xff"):
        assert device.feed(damaged + b"\0") == b""
        assert device.feed(hello)
    assert (device.taken, device.dropped) == (5, 5)
