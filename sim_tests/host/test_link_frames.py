"""Frames: what the reference of a device reads, what is dropped, and how much is held."""

import random
import struct

import numpy as np
import pytest
from cobs import cobs

from exactum.hdl.protocol import FRAME_BYTES, MAX_WORDS, REPLY_HEADER, REQUEST_HEADER, Status
from exactum.host.link.frames import (
    HELLO,
    READ,
    WRITE,
    FrameReader,
    decode_reply,
    encode_request,
    hello,
    line_bytes,
)
from exactum.host.link.timing import Timing
from sim_tests.link_reference import ReferenceDevice, frame_of, request_frame


def numbers(count):
    return np.arange(count, dtype=np.uint64) * np.uint64(2**58 + 3)


@pytest.mark.parametrize("count", [1, 2, 31, 32, 63, 64])
def test_requests_are_those_of_the_reference(count):
    words = numbers(count)
    assert encode_request(WRITE, sequence=7, session=2**32 - 1, address=2**31, words=words) == \
        request_frame(3, sequence=7, session=2**32 - 1, address=2**31, count=count,
                      words=tuple(words.tolist()))
    assert encode_request(READ, sequence=0, session=1, address=5, count=count) == request_frame(
        2, sequence=0, session=1, address=5, count=count)
    assert hello(sequence=65535, session=9) == request_frame(1, sequence=65535, session=9)


@pytest.mark.parametrize("count", [-1, MAX_WORDS + 1])
def test_more_words_than_a_frame_carries_are_refused(count):
    with pytest.raises(ValueError, match=f"0 to 64 words; got {count}"):
        encode_request(READ, sequence=0, session=1, address=0, count=count)


def test_replies_have_the_fields_of_the_layout():
    content = struct.pack("<BBHIIHH2Q", 0x82, 4, 3, 2**32 - 2, 17, 65535, 2, 2**64 - 1, 5)
    fields = REPLY_HEADER.from_bits(int.from_bytes(content[:16], "little"))
    reply = decode_reply(frame_of(content)[:-1])
    assert reply.request | 0x80 == fields.request
    for name in ("status", "sequence", "session", "generation", "expected"):
        assert getattr(reply, name) == fields[name]
    assert reply.status == Status.ADDRESS.value
    assert reply.words.dtype == np.uint64
    assert reply.words.tolist() == [2**64 - 1, 5]


def reply(kind=0x82, count=1, words=1, more=b""):
    return frame_of(struct.pack(f"<BBHIIHH{words}Q", kind, 0, 1, 2, 3, 4, count,
                                *range(words)) + more)[:-1]


@pytest.mark.parametrize("frame", [
    b"", b"\1", b"\1" * 19, b"\1" * (FRAME_BYTES + 4), b"\5\1", reply()[:-1], reply() + b"\1",
    reply(kind=2), reply(count=2), reply(count=0), reply(more=b"\0"), reply(words=65, count=65),
    b"\0" + reply()[1:], cobs.encode(bytes(20)), cobs.encode(bytes(FRAME_BYTES + 8)),
], ids=range(15))
def test_what_is_no_reply_is_none(frame):
    assert decode_reply(frame) is None


@pytest.mark.parametrize("words", [0, 1, 64])
def test_every_flipped_bit_is_noticed(words):
    good = reply(count=words, words=words)
    assert decode_reply(good) is not None
    for bit in range(8 * len(good)):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        assert decode_reply(bytes(damaged)) is None


def test_lines_are_cut_at_zeros_in_any_portions():
    rng = random.Random(1)
    frames = [reply(words=n, count=n) for n in (0, 1, 64, 3)]
    text = b"\0\0" + b"\0".join(frames) + b"\0\0\0"
    for size in (1, 2, 100, 535, 5000):
        reader = FrameReader()
        found = [frame for at in range(0, len(text), size)
                 for frame in reader.feed(text[at:at + size])]
        assert found == frames
    reader, found, at = FrameReader(), [], 0
    while at < len(text):
        size = rng.randint(0, 700)
        found += reader.feed(text[at:at + size])
        at += size
    assert (found, reader.dropped) == (frames, 0)


def test_no_more_is_held_than_the_longest_frame():
    reader, longest = FrameReader(), line_bytes(READ, MAX_WORDS)[1] - 1
    for _ in range(100):
        assert reader.feed(b"\1" * 65536) == []
        assert len(reader._held) <= longest
    assert reader.feed(b"\0" + reply() + b"\0") == [reply()]
    assert reader.dropped == 1
    assert reader.feed(b"\1" * longest + b"\0" + b"\1" * (longest + 1) + b"\0") == [b"\1" * longest]
    assert reader.dropped == 2


def test_no_frame_is_longer_on_the_line_than_its_time_out_allows_for():
    rng = random.Random(2)
    device = ReferenceDevice()
    device.feed(hello(sequence=0, session=rng.getrandbits(32)))
    for count in range(1, MAX_WORDS + 1):
        words = np.frombuffer(bytes(8 * count), np.uint64) | np.uint64(2**64 - 1)
        write = encode_request(WRITE, sequence=1, session=1, address=0, words=words)
        read = encode_request(READ, sequence=2, session=1, address=0, count=count)
        assert len(write) <= line_bytes(WRITE, count)[0]
        assert len(read) <= line_bytes(READ, count)[0]
        assert len(reply(words=count, count=count)) + 1 <= line_bytes(READ, count)[1]
        assert len(reply(words=0, count=0)) + 1 <= line_bytes(WRITE, count)[1]
    assert len(reply(words=2, count=2)) + 1 <= line_bytes(HELLO, 0)[1]
    assert REQUEST_HEADER.size == REPLY_HEADER.size == 128


@pytest.mark.parametrize("values", [{"baud": 0}, {"latency": 0}, {"attempts": -1}])
def test_time_outs_are_positive(values):
    with pytest.raises(ValueError, match="must be positive; got"):
        Timing(**{"baud": 9600} | values)


def test_time_outs_follow_the_baud_rate():
    slow, fast = Timing(baud=9600, latency=0.05), Timing(baud=960_000, latency=0.05)
    requests = [(READ, 64)] * 4
    assert slow.replies_of(requests) == pytest.approx(0.05 + 4 * (22 + 536) / 960)
    assert fast.replies_of(requests) == pytest.approx(0.05 + 4 * (22 + 536) / 96_000)
    assert slow.hello_tries > fast.hello_tries == 5
    assert slow.sending(960) == pytest.approx(1.05)
