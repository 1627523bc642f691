"""Random bytes and lawless frames into both ends of the link: what must not be done, is not."""

import random
import struct
import zlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
from cobs import cobs

from exactum.gen.errors import DeviceError
from exactum.hdl.machine_layouts import REGISTER_BASE, REGISTERS
from exactum.hdl.protocol import FRAME_BYTES, HEADER_BYTES, MAX_WORDS, VERSION, WINDOW
from exactum.host.link import Session, Timing
from sim_tests.link_reference import ReferenceDevice
from sim_tests.virtual_line import Deliveries, Direction, Line

__all__ = ["fuzz_device", "fuzz_driver"]

MEMORY = 512
HEADER = struct.Struct("<BBHIIHH")      # of requests and of replies
HELLO, READ, WRITE = 1, 2, 3


def _framed(content: bytes) -> bytes:
    return cobs.encode(content + struct.pack("<I", zlib.crc32(content))) + b"\0"


def _damaged(rng: random.Random, frame: bytes) -> bytes:
    """Some bits flipped, or bytes added, taken out or cut off; the last zero stays."""
    content = bytearray(frame[:-1])
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(content))
        match rng.randrange(4):
            case 0:
                content[place] ^= 1 << rng.randrange(8)
            case 1:
                content.insert(place, rng.getrandbits(8))
            case 2 if len(content) > 1:
                del content[place]
            case 3 if place:
                del content[place:]
    return bytes(content) + b"\0"


def _noise(rng: random.Random) -> bytes:
    """Bytes of any kind: all values, without zeros, or coded as a frame; some too long."""
    length = rng.choice((rng.randint(0, 40), rng.randint(0, 600), rng.randint(500, 3000)))
    content = rng.randbytes(length)
    match rng.randrange(3):
        case 0:
            return content + b"\0"
        case 1:
            return content.replace(b"\0", b"\1") + b"\0"
    return cobs.encode(content) + b"\0"


def _whole(line: bytes) -> bytes | None:
    """Header and data of a frame that a device must answer, else None."""
    try:
        content = cobs.decode(line)
    except cobs.DecodeError:
        return None
    if not HEADER_BYTES + 4 <= len(content) <= FRAME_BYTES:
        return None
    return content[:-4] if content[-4:] == struct.pack("<I", zlib.crc32(content[:-4])) else None


class _Requests:
    """Requests to a device, lawful ones among them, and what of them may be executed."""

    def __init__(self, rng: random.Random, device: ReferenceDevice) -> None:
        self.rng, self.device = rng, device

    def any(self) -> bytes:
        rng, device = self.rng, self.device
        request = rng.choice((HELLO, READ, READ, WRITE, WRITE, WRITE, rng.getrandbits(8)))
        sequence = (device.expected + rng.choice((0, 0, 0, 0, -1, -4, -5, 1, 7))) % 2**16
        session = rng.choice((*[device.session] * 8, 0, rng.getrandbits(32)))
        count = rng.choice((0, 1, 1, 2, 2, 63, 64, 65, 65535))
        address = rng.choice((0, 5, MEMORY - 2, MEMORY - 1, MEMORY, 2**31 - 1, REGISTER_BASE,
                              REGISTER_BASE + REGISTERS - 1, 2**32 - 1))
        words = count if request == WRITE and count <= 66 else 0
        if request == HELLO:
            address, count = rng.choice((VERSION, VERSION, 0, 2)), rng.choice((0, 0, 0, 1))
        if rng.random() < 0.05:
            words = rng.randint(0, 3)
        zero, zeros = rng.choice(((0, 0),) * 12 + ((1, 0), (0, 1)))
        header = HEADER.pack(request, zero, sequence, session, address, count, zeros)
        return _framed(header + rng.randbytes(8 * words + rng.choice((0,) * 20 + (1, 4))))

    def lawful(self, content: bytes) -> bool:
        """Whether a whole frame is executed, by the rules D2 to D6."""
        request, zero, sequence, session, address, count, zeros = HEADER.unpack_from(content)
        data = len(content) - HEADER_BYTES
        if zero or zeros or not session:
            return False
        if request == HELLO:
            return session != self.device.session and not count and not data and address == VERSION
        first = REGISTER_BASE if address >= REGISTER_BASE else 0
        end = first + (REGISTERS if first else MEMORY)
        return (request in (READ, WRITE) and session == self.device.session
                and sequence == self.device.expected and 1 <= count <= MAX_WORDS
                and data == 8 * count * (request == WRITE) and address + count <= end)


def fuzz_device(frames: int, seed: int) -> dict[str, int]:
    """So many frames into a reference device; counts of what it did, and of what it did wrong."""
    rng, device = random.Random(seed), ReferenceDevice(MEMORY)
    requests, found = _Requests(rng, device), Counter()
    recent = [requests.any()]
    for number in range(frames):
        kind = rng.randrange(4)
        if kind < 2:
            frame = requests.any()
            recent = [*recent[-9:], frame]
        else:
            frame = _noise(rng) if kind == 2 else _damaged(rng, rng.choice(recent))
        lines = [line for line in frame.split(b"\0") if line]
        executed, answers, wrong = len(device.executed), 0, False
        for line in lines:
            content = _whole(line)
            may = content is not None and requests.lawful(content)
            replies = device.feed(line + b"\0").count(0) - (not found["answered"] and not answers)
            wrong |= max(0, replies) != (content is not None)
            wrong |= len(device.executed) - executed != may
            executed = len(device.executed)
            answers += content is not None
            found["executed"] += may
        found["answered"] += answers
        found["wrong"] += wrong
        if number % 1000 == 0:
            device.executed.clear()
            device.bus.clear()
    return {"frames": frames, **{key: found[key] for key in ("answered", "executed", "wrong")}}


class _Liar:
    """Adds lawless replies to what a device sends."""

    def __init__(self, rng: random.Random, portion: int) -> None:
        self.rng, self.portion = rng, portion
        self.frames = 0
        self.quiet = False
        self.recent = [_framed(bytes(16))]

    def carry(self, direction: Direction, frame: bytes) -> Deliveries:
        if direction is Direction.TO_DEVICE or self.quiet:
            return [(0, frame)]
        genuine = frame.lstrip(b"\0")
        self.recent = [*self.recent[-9:], genuine]
        made = [self._lie(genuine) for _ in range(self.portion)]
        self.frames += len(made)
        made.insert(self.rng.randint(0, len(made)), frame)
        return [(0, b"\0".join(made))]

    def _lie(self, genuine: bytes) -> bytes:
        rng = self.rng
        match rng.randrange(4):
            case 0:
                return _noise(rng)
            case 1:
                return _damaged(rng, rng.choice(self.recent))
            case 2:
                return rng.choice(self.recent)
        return self._lawless(_whole(genuine[:-1]) or bytes(HEADER_BYTES))

    def _lawless(self, content: bytes) -> bytes:
        """A reply of right CRC in which something is wrong that must be noticed."""
        rng = self.rng
        kind, status, sequence, session, generation, expected, count = HEADER.unpack_from(content)
        wrong = rng.randrange(6)
        if wrong == 0:
            session = (session + rng.randint(1, 2**32 - 1)) % 2**32
        elif wrong == 1:
            if rng.random() < 0.02:             # believed, too
                generation = (generation + rng.choice((1, 2**31))) % 2**32
            else:
                sequence = (sequence + rng.randint(WINDOW, 2**16 - WINDOW)) % 2**16
        elif wrong == 2:
            count = rng.choice([n for n in (0, 1, 2, 3, 64, 66) if n != count])
        elif wrong == 3:
            kind = rng.choice([n for n in (0, 2, 0x80, 0x81, 0x82, 0x83, 0x84, 0xFF) if n != kind])
        elif wrong == 4:
            # Believed, as it must be: seldom, or nothing would ever be read.
            status = rng.choice((1, 3, 4, 5, 6, 255)) if rng.random() < 0.02 else 2
            expected = rng.getrandbits(16)
            count = 0
        else:
            count = rng.choice((count + 1, 65535))
            return _framed(HEADER.pack(kind, status, sequence, session, generation, expected,
                                       count) + content[HEADER_BYTES:])
        return _framed(HEADER.pack(kind, status, sequence, session, generation, expected, count)
                       + rng.randbytes(8 * min(count, MAX_WORDS)))


def _calls(rng: random.Random) -> Iterator[tuple[int, int, int]]:
    while True:
        count = rng.choice((1, 1, 2, 64, 65, 200, 256))
        yield rng.choice((READ, WRITE)), rng.randint(0, MEMORY - count), count


def fuzz_driver(frames: int, seed: int, portion: int = 20) -> dict[str, int]:
    """So many false frames among true replies; counts of calls, of errors, and of wrong ones."""
    rng, device = random.Random(seed), ReferenceDevice(MEMORY)
    line, liar, found = Line(device, 2_000_000), _Liar(rng, portion), Counter()
    line.carry = liar.carry
    liar.quiet = True
    session = Session(line.connect, timing=Timing(baud=line.baud), clock=lambda: line.now,
                      random=rng.getrandbits)
    for request, address, count in _calls(rng):
        if liar.frames >= frames:
            break
        liar.quiet = False
        words = np.frombuffer(rng.randbytes(8 * count), np.uint64)
        begin, limit = line.now, session.timing.call([(request, count)] * -(-count // MAX_WORDS))
        found["calls"] += 1
        try:
            if request == WRITE:
                session.write(address, words)
            else:
                words = session.read(address, count)
            held = [device.memory.get(place, 0) for place in range(address, address + count)]
            found["wrong"] += words.tolist() != held
        except DeviceError as error:
            found["errors"] += 1
            found["wrong"] += error.code not in ("X404", "X405", "X406", "X411")
            liar.quiet = True
            session.reopen()
        found["wrong"] += line.now - begin > limit + session.timing.opening
        device.executed.clear()
        device.bus.clear()
        for host in line.hosts:
            host.waited = 0
    return {"frames": liar.frames, **{key: found[key] for key in ("calls", "errors", "wrong")}}
