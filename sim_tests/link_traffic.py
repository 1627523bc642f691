"""What a bad line and a bad host send: requests of every kind, damaged in every way; seeded."""

import random
import struct
from collections.abc import Iterator

from exactum.hdl.machine_layouts import REGISTER_BASE, REGISTERS
from exactum.hdl.protocol import MAX_WORDS, VERSION, Request
from sim_tests.link_reference import ReferenceDevice, frame_of, request_frame

__all__ = ["traffic"]

HELLO, READ, WRITE = (request.value for request in (Request.HELLO, Request.READ, Request.WRITE))


class _Host:
    """Makes frames for a device whose session and expected number it knows."""

    def __init__(self, device: ReferenceDevice, rng: random.Random) -> None:
        self.device, self.rng = device, rng
        self.sent = [request_frame(HELLO, sequence=0, session=1)]

    def request(self, **options: object) -> bytes:
        """The expected READ or WRITE, in range, but for the options."""
        rng = self.rng
        count = MAX_WORDS if rng.random() < 0.03 else rng.choice((1, 1, 1, 2, 3))
        base, size = (REGISTER_BASE, REGISTERS) if rng.random() < 0.2 else (
            0, self.device.memory_words)
        count = min(count, size)
        kind = rng.choice((READ, WRITE))
        words = tuple(rng.choice((0, rng.getrandbits(64), rng.getrandbits(64) | 0x0101010101010101,
                                  rng.getrandbits(8) << 8 * rng.randrange(8)))
                      for _ in range(count)) if kind == WRITE else ()
        fields = {"request": kind, "sequence": self.device.expected,
                  "session": self.device.session, "address": base + rng.randrange(size - count + 1),
                  "count": count, "words": words} | options
        return request_frame(**fields)  # type: ignore[arg-type]

    def expected(self) -> bytes:
        return self.request()

    def again(self) -> bytes:
        return self.rng.choice(self.sent[-8:])

    def other_sequence(self) -> bytes:
        step = self.rng.choice((-6, -5, -4, -3, -2, -1, 1, 2, 1 << 15, self.rng.getrandbits(16)))
        return self.request(sequence=(self.device.expected + step) % 2**16)

    def other_session(self) -> bytes:
        return self.request(session=self.rng.choice((0, 1, self.rng.getrandbits(32),
                                                     self.device.session ^ 1 << 31)))

    def hello(self) -> bytes:
        sequence = self.rng.choice((0, 65535, 65534, self.rng.getrandbits(16)))
        return request_frame(HELLO, sequence=sequence, session=self.rng.getrandbits(32) or 1)

    def own_hello(self) -> bytes:
        return request_frame(HELLO, sequence=self.rng.getrandbits(16),
                             session=self.device.session)

    def wrong_hello(self) -> bytes:
        wrong = self.rng.choice(({"address": 0}, {"address": VERSION | 1 << 31}, {"session": 0},
                                 {"count": 1}, {"zero": 1}, {"zeros": 1}, {"words": (1,)}))
        return request_frame(**{"request": HELLO, "sequence": 3, "session": 77} | wrong)

    def wrong_length(self) -> bytes:
        kind, count, words = self.rng.choice((
            (READ, 0, 0), (READ, 65, 0), (READ, 1, 1), (READ, 257, 0), (WRITE, 0, 0),
            (WRITE, 0, 1), (WRITE, 1, 0), (WRITE, 2, 1), (WRITE, 1, 2), (WRITE, 64, 63),
            (WRITE, 65, 64), (WRITE, 0x8001, 1), (WRITE, 129, 1)))
        return self.request(request=kind, count=count, words=(9,) * words, address=0)

    def wrong_zeros(self) -> bytes:
        return self.request(**{self.rng.choice(("zero", "zeros")): 1 << self.rng.randrange(8)})

    def wrong_address(self) -> bytes:
        size = self.device.memory_words
        address, count = self.rng.choice((
            (size, 1), (size - 1, 2), (2**31 - 1, 1), (2**31 - 1, 2), (2**31 + 32, 1),
            (2**31 + 31, 2), (2**32 - 1, 1), (2**32 - 1, 2), (size - 63, 64), (2**30, 1)))
        return self.request(request=READ, address=address, count=count, words=())

    def unknown(self) -> bytes:
        return self.request(request=self.rng.choice((0, 4, 0x81, 0x82, 255)))

    def wrong_size(self) -> bytes:
        """Of right CRC, but too short or too long."""
        size = self.rng.choice((0, 1, 8, 15, 529, 530, 536, 600))
        return frame_of(bytes(self.rng.randrange(256) for _ in range(size)))

    def flipped(self) -> bytes:
        text = bytearray(self.request())
        for _ in range(self.rng.choice((1, 1, 2, 8))):
            text[self.rng.randrange(len(text))] ^= 1 << self.rng.randrange(8)
        return bytes(text) + b"\0"

    def cut(self) -> bytes:
        text = self.request()
        return text[:self.rng.randrange(len(text))] + b"\0" * self.rng.randrange(2)

    def run_together(self) -> bytes:
        return self.request()[:-1] + self.request()

    def noise(self) -> bytes:
        length = self.rng.choice((1, 5, 30, 300, 700))
        lowest = self.rng.randrange(2)
        return bytes(self.rng.randint(lowest, 255) for _ in range(length))

    def zeros(self) -> bytes:
        return b"\0" * self.rng.randrange(1, 5)

    def stray_crc(self) -> bytes:
        """A header whose CRC is that of a longer frame; nothing but a CRC; a CRC's own CRC."""
        return frame_of(struct.pack("<I", self.rng.getrandbits(32)))


WEIGHTS = {
    "expected": 45, "again": 12, "other_sequence": 6, "other_session": 4, "hello": 2,
    "own_hello": 2, "wrong_hello": 3, "wrong_length": 4, "wrong_zeros": 2, "wrong_address": 4,
    "unknown": 2, "wrong_size": 1, "flipped": 5, "cut": 4, "run_together": 2, "noise": 1,
    "zeros": 2, "stray_crc": 1,
}


def traffic(device: ReferenceDevice, chunks: int, seed: int) -> Iterator[tuple[bytes, bytes]]:
    """So many chunks, a frame or something worse each, fed to the device; with its replies.

    At the end there is a frame that is answered, whatever was before.
    """
    rng = random.Random(seed)
    host = _Host(device, rng)
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    for _ in range(chunks):
        text = getattr(host, rng.choices(names, weights)[0])()
        host.sent.append(text)
        yield text, device.feed(text)
    text = b"\0" + host.hello()
    yield text, device.feed(text)
