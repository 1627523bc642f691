"""Frames of docs/protocol.md as bytes: requests are encoded, replies decoded."""

import struct
import zlib
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from amaranth.lib import data
from cobs import cobs
from numpy.typing import NDArray

from ...hdl.protocol import (
    CRC_BYTES,
    FRAME_BYTES,
    HEADER_BYTES,
    HELLO_WORDS,
    MAX_WORDS,
    REPLY,
    REPLY_HEADER,
    REQUEST_HEADER,
    VERSION,
    Request,
)

__all__ = ["HELLO", "READ", "WRITE", "FrameReader", "Reply", "Words", "decode_reply",
           "encode_request", "hello", "line_bytes", "number"]

Words = NDArray[np.uint64]


def number(member: Any) -> int:
    """The value of an enumeration's member: to a type checker Amaranth's have none."""
    return member.value


HELLO, READ, WRITE = number(Request.HELLO), number(Request.READ), number(Request.WRITE)


def _packed(layout: data.StructLayout) -> struct.Struct:
    """A header, as `struct` packs it."""
    return struct.Struct("<" + "".join({8: "B", 16: "H", 32: "I"}[field.width]
                                       for _, field in layout))


_REQUEST, _REPLY = _packed(REQUEST_HEADER), _packed(REPLY_HEADER)
_CRC = struct.Struct("<I")


def _with_cobs(length: int) -> int:
    """Bytes on the line at most, of ``length`` bytes; without the zero at the end."""
    return length + max(1, -(-length // 254))


_SHORTEST, _LONGEST = HEADER_BYTES + CRC_BYTES, _with_cobs(FRAME_BYTES)


@cache
def line_bytes(request: int, count: int) -> tuple[int, int]:
    """Bytes at most that a request for ``count`` words, and its reply, take on the line."""
    bare = _with_cobs(_SHORTEST) + 1
    full = _with_cobs(_SHORTEST + 8 * (HELLO_WORDS if request == HELLO else count)) + 1
    return (full, bare) if request == WRITE else (bare, full)


def encode_request(request: int, *, sequence: int, session: int, address: int, count: int = 0,
                   words: Words | None = None) -> bytes:
    """A request as it goes over the line, with the zero byte that ends it.

    Parameters
    ----------
    request : int
        1 HELLO, 2 READ, 3 WRITE; others are sent as they are.
    sequence, session, address : int
        Of 16, 32 and 32 bits; the address is that of a word.
    count : int
        Words, 0 to 64; of a WRITE those of ``words``.
    words : array, optional
        What is to be written: uint64 [count].

    Raises
    ------
    ValueError
        More words than a frame carries.
    """
    content = b""
    if words is not None:
        count, content = len(words), words.astype("<u8", copy=False).tobytes()
    if not 0 <= count <= MAX_WORDS:
        raise ValueError(f"a frame carries 0 to {MAX_WORDS} words; got {count}")
    content = _REQUEST.pack(request, 0, sequence, session, address, count, 0) + content
    return cobs.encode(content + _CRC.pack(zlib.crc32(content))) + b"\0"


def hello(*, sequence: int, session: int, version: int = VERSION) -> bytes:
    """A HELLO as it goes over the line."""
    return encode_request(HELLO, sequence=sequence, session=session, address=version)


class Reply(NamedTuple):
    """A reply whose CRC is right; ``request`` is without 0x80, ``words`` uint64."""

    request: int
    status: int
    sequence: int
    session: int
    generation: int
    expected: int
    words: Words


def decode_reply(frame: bytes) -> Reply | None:
    """The reply in a frame (without its zero byte); None if it is damaged or none.

    The length is checked before anything is copied, and that of the data against the header.
    """
    if not _SHORTEST < len(frame) <= _LONGEST:
        return None
    try:
        content = cobs.decode(frame)
    except cobs.DecodeError:
        return None
    if not _SHORTEST <= len(content) <= FRAME_BYTES:
        return None
    end = len(content) - CRC_BYTES
    if _CRC.unpack_from(content, end)[0] != zlib.crc32(memoryview(content)[:end]):
        return None
    request, status, sequence, session, generation, expected, count = _REPLY.unpack_from(content)
    if not request & REPLY or 8 * count != end - HEADER_BYTES:
        return None
    words = np.frombuffer(content, "<u8", count, HEADER_BYTES).astype(np.uint64, copy=False)
    return Reply(request ^ REPLY, status, sequence, session, generation, expected, words)


class FrameReader:
    """Cuts what arrives at its zero bytes; never holds more than the longest frame.

    Attributes
    ----------
    dropped : int
        Frames that were too long.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._held = bytearray()
        self._too_long = False

    def feed(self, received: bytes) -> list[bytes]:
        """Take bytes in any portions; the frames that they end, without the zeros."""
        frames = []
        *ends, rest = received.split(b"\0")
        for piece in ends:
            self._take(piece)
            if self._too_long:
                self.dropped += 1
            elif self._held:
                frames.append(bytes(self._held))
            self._held.clear()
            self._too_long = False
        self._take(rest)
        return frames

    def _take(self, piece: bytes) -> None:
        if len(self._held) + len(piece) > _LONGEST:
            self._too_long = True
            self._held.clear()
        elif not self._too_long:
            self._held += piece
