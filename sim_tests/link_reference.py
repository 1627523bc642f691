"""The device's side of docs/protocol.md in plain Python, over a dictionary of words.

::

    device = ReferenceDevice(memory_words=512)
    replies = device.feed(bytes_from_the_host)

It shares constants with the gateware, no code.
"""

import struct
import zlib
from typing import NamedTuple

from exactum.hdl.machine_layouts import REGISTER_BASE, REGISTERS, Register
from exactum.hdl.protocol import (
    CRC_BYTES,
    FRAME_BYTES,
    HEADER_BYTES,
    MAX_WORDS,
    REPLY,
    VERSION,
    WINDOW,
    Request,
    Status,
)

__all__ = ["Access", "Executed", "ReferenceDevice", "decode", "encode", "frame_of", "request_frame",
           "unframed"]

REQUEST_FORMAT = "<BBHIIHH"
REPLY_FORMAT = "<BBHIIHH"
STOP = 1
"""Bit 0 of CONTROL."""


class Executed(NamedTuple):
    """A request that was executed: of HELLO one that began a session, then ``words`` is empty."""

    request: Request
    session: int
    sequence: int
    address: int
    words: tuple[int, ...]
    """What was written or read."""


class Access(NamedTuple):
    """A word's way over the bus; ``data`` is 0 of a read."""

    write: int
    address: int
    data: int


def encode(data: bytes) -> bytes:
    """COBS, without the zero that ends a frame."""
    runs = data.split(b"\0")
    text = bytearray()
    for number, run in enumerate(runs):
        while len(run) > 254 or (len(run) == 254 and number < len(runs) - 1):
            text += b"\xff" + run[:254]
            run = run[254:]
        text += bytes([len(run) + 1]) + run
    return bytes(text)


def decode(text: bytes) -> bytes | None:
    """The bytes before COBS; None if the last run is cut short or there is a zero."""
    data, at = bytearray(), 0
    if 0 in text:
        return None
    while at < len(text):
        code = text[at]
        run = text[at + 1:at + code]
        if len(run) < code - 1:
            return None
        data += run
        at += code
        if code < 255 and at < len(text):
            data.append(0)
    return bytes(data)


def frame_of(content: bytes) -> bytes:
    """A frame from header and data: CRC, COBS and the zero at its end are added."""
    return encode(content + struct.pack("<I", zlib.crc32(content))) + b"\0"


def unframed(text: bytes) -> bytes | None:
    """Header and data of a frame without its zero; None if COBS, length or CRC are wrong."""
    data = decode(text)
    if data is None or not HEADER_BYTES + CRC_BYTES <= len(data) <= FRAME_BYTES:
        return None
    content, crc = data[:-CRC_BYTES], data[-CRC_BYTES:]
    return content if struct.pack("<I", zlib.crc32(content)) == crc else None


def request_frame(request: int, *, sequence: int, session: int, address: int = VERSION,
                  count: int = 0, words: tuple[int, ...] = (), zero: int = 0,
                  zeros: int = 0) -> bytes:
    """A request as it goes over the wire, lawful or not."""
    header = struct.pack(REQUEST_FORMAT, request, zero, sequence, session, address, count, zeros)
    return frame_of(header + struct.pack(f"<{len(words)}Q", *words))


class ReferenceDevice:
    """Answers frames as a device does, at once and without limits of room.

    Parameters
    ----------
    memory_words : int
        Words of the scratch memory.

    Attributes
    ----------
    memory, registers : dict
        Words by address, and registers by number; 0 where there is none. What a subclass wants of
        its registers it does in ``read`` and ``write``.
    executed : list of Executed
        In their order, each once.
    bus : list of Access
        The same as words.
    taken, dropped, repeated : int
        Frames taken (all of these are answered), dropped (D1), and answered again (D5).
    """

    def __init__(self, memory_words: int = 512) -> None:
        self.memory_words = memory_words
        self.memory: dict[int, int] = {}
        self.registers: dict[int, int] = {}
        self.executed: list[Executed] = []
        self.bus: list[Access] = []
        self.power_cycle()

    def power_cycle(self) -> None:
        """Forget the session, what was kept, and half of a frame; ``executed`` and ``bus`` stay."""
        self.memory.clear()
        self.registers.clear()
        self.taken = self.dropped = self.repeated = 0
        self.session = self.generation = self.expected = 0
        self._kept: dict[int, bytes] = {}
        self._line = b""
        self._begins = True

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the host, in any portions; gives the bytes of the replies."""
        *lines, self._line = (self._line + data).split(b"\0")
        replies = bytearray()
        for line in filter(None, lines):
            content = unframed(line)
            if content is None:
                self.dropped += 1
                continue
            self.taken += 1
            # What the host has last seen of a device that was reset nobody knows.
            replies += b"\0" * self._begins + frame_of(self._answer(content))
            self._begins = False
        return bytes(replies)

    def read(self, address: int) -> int:
        """A word of memory or a register, at an address that there is."""
        if address >= REGISTER_BASE:
            return self.registers.get(address - REGISTER_BASE, 0)
        return self.memory.get(address, 0)

    def write(self, address: int, word: int) -> None:
        """Likewise."""
        if address >= REGISTER_BASE:
            self.registers[address - REGISTER_BASE] = word
        else:
            self.memory[address] = word

    def _answer(self, content: bytes) -> bytes:
        """The reply, header and data, to a frame whose CRC is right."""
        request, _, sequence, session, *_ = struct.unpack_from(REQUEST_FORMAT, content)
        if request == Request.HELLO.value:
            return self._hello(content)
        if not session or session != self.session:
            return self._reply(request, Status.SESSION, sequence)
        if sequence in self._kept:
            self.repeated += 1
            return self._kept[sequence]
        if sequence != self.expected:
            return self._reply(request, Status.SEQUENCE, sequence)
        status, words = self._execute(content)
        self.expected = (sequence + 1) % 2**16
        reply = self._reply(request, status, sequence, words)
        self._kept[sequence] = reply
        self._kept.pop((sequence - WINDOW) % 2**16, None)
        return reply

    def _hello(self, content: bytes) -> bytes:
        request, zero, sequence, session, version, count, zeros = struct.unpack_from(
            REQUEST_FORMAT, content)
        if version != VERSION:
            return self._reply(request, Status.VERSION, sequence)
        if len(content) != HEADER_BYTES or zero or count or zeros:
            return self._reply(request, Status.LENGTH, sequence)
        if not session:
            return self._reply(request, Status.SESSION, sequence)
        if session != self.session:
            self._write(REGISTER_BASE + Register.CONTROL.value, STOP)
            self.session, self.expected = session, (sequence + 1) % 2**16
            self.generation = (self.generation + 1) % 2**32
            self._kept.clear()
            self.executed.append(Executed(Request.HELLO, session, sequence, version, ()))
        return self._reply(request, Status.OK, sequence,
                           [VERSION | WINDOW << 16 | MAX_WORDS << 32, 0])

    def _execute(self, content: bytes) -> tuple[Status, list[int]]:
        """Status and words of the reply to the expected request."""
        request, zero, sequence, session, address, count, zeros = struct.unpack_from(
            REQUEST_FORMAT, content)
        if request not in (Request.READ.value, Request.WRITE.value):
            return Status.REQUEST, []
        data = content[HEADER_BYTES:]
        written = request == Request.WRITE.value
        if zero or zeros or not 1 <= count <= MAX_WORDS or len(data) != 8 * count * written:
            return Status.LENGTH, []
        base, size = (REGISTER_BASE, REGISTERS) if address >= REGISTER_BASE else (
            0, self.memory_words)
        if address + count > base + size:
            return Status.ADDRESS, []
        addresses = range(address, address + count)
        if written:
            words = list(struct.unpack(f"<{count}Q", data))
            for place, word in zip(addresses, words, strict=True):
                self._write(place, word)
        else:
            words = [self._read(place) for place in addresses]
        self.executed.append(Executed(Request(request), session, sequence, address, tuple(words)))
        return Status.OK, [] if written else words

    def _read(self, address: int) -> int:
        self.bus.append(Access(0, address, 0))
        return self.read(address)

    def _write(self, address: int, word: int) -> None:
        self.bus.append(Access(1, address, word))
        self.write(address, word)

    def _reply(self, request: int, status: Status, sequence: int,
               words: list[int] | tuple[int, ...] = ()) -> bytes:
        return struct.pack(REPLY_FORMAT, request | REPLY, status.value, sequence, self.session,
                           self.generation, self.expected, len(words)
                           ) + struct.pack(f"<{len(words)}Q", *words)
