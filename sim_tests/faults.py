"""What can go wrong between a host and a device: a seeded injector on a virtual line.

::

    injector = Injector(line, "flipped bit", random)
    injector.arm({Direction.TO_DEVICE: 3, Direction.TO_HOST: 3})   # strikes one of these frames
    ...                                                           # an operation
    injector.end()                                                # the link is back
"""

import random
import struct
from collections.abc import Callable, Mapping

from exactum.hdl.machine_layouts import IDENTITY, Register
from exactum.hdl.protocol import Request
from sim_tests.link_reference import ReferenceDevice, request_frame, unframed
from sim_tests.virtual_line import Deliveries, Direction, Line

__all__ = ["FAULTS", "HASH", "SINGLE", "Injector", "configure"]

HASH = "0123456789abcdef" * 4
OTHER_HASH = "fedcba9876543210" * 4


def configure(device: ReferenceDevice, digest: str = HASH) -> None:
    """Lose everything, and state this configuration."""
    device.power_cycle()
    device.registers[Register.IDENTITY.value] = IDENTITY
    for number in range(4):
        part = bytes.fromhex(digest)[8 * number:8 * number + 8]
        device.registers[Register.HASH.value + number] = int.from_bytes(part, "little")


class Injector:
    """One fault, once, at a random frame.

    Parameters
    ----------
    line : Line
        Its ``carry`` becomes this object's.
    fault : str
        A key of ``FAULTS``.
    rng : random.Random
        Decides everything.

    Attributes
    ----------
    fired : bool
        Whether it has happened.
    back : float
        When the link is, or was, as it should be again; infinite: not before ``end``.
    """

    def __init__(self, line: Line, fault: str, rng: random.Random) -> None:
        self.line, self.fault, self.rng = line, fault, rng
        self.fired = False
        self.back = 0.0
        self.earlier: dict[Direction, list[bytes]] = {direction: [] for direction in Direction}
        self.held: tuple[Direction, bytes] | None = None
        self._countdown: int | None = None
        self._direction = Direction.TO_DEVICE
        self._meanwhile: Callable[[Direction, bytes], Deliveries] | None = None
        line.carry = self._carry

    def arm(self, frames: Mapping[Direction, int]) -> None:
        """Strike one of so many frames."""
        self._direction = FAULTS[self.fault][1] or self.rng.choice(list(Direction))
        self._countdown = self.rng.randrange(frames[self._direction])

    def end(self) -> None:
        """The link is as it should be, if it is not yet."""
        self._countdown = self._meanwhile = None
        if self.back == float("inf"):
            self.back = self.line.now
            if self.fault == "wrong bitstream":
                configure(self.line.device)

    def last(self, seconds: float, meanwhile: Callable[[Direction, bytes], Deliveries]) -> None:
        """From now on for so long this becomes of each frame."""
        self.back = self.line.now + seconds
        self._meanwhile = meanwhile

    def _carry(self, direction: Direction, frame: bytes) -> Deliveries:
        if self._meanwhile is not None:
            if self.line.now < self.back:
                return self._meanwhile(direction, frame)
            self._meanwhile = None
        if direction is self._direction and self._countdown is not None:
            self._countdown -= 1
            if self._countdown < 0:
                self._countdown = None
                self.fired = True
                self.back = self.line.now
                return FAULTS[self.fault][0](self, direction, frame)
        self.earlier[direction].append(frame)
        if self.held is not None and self.held[0] is direction:
            late, self.held = self.held[1], None
            return [(0, frame), (0, late)]
        return [(0, frame)]


def _flipped(injector: Injector, _: Direction, frame: bytes) -> Deliveries:
    place = injector.rng.randrange(8 * len(frame))
    damaged = bytearray(frame)
    damaged[place // 8] ^= 1 << place % 8
    return [(0, damaged)]


def _burst(injector: Injector, _: Direction, frame: bytes) -> Deliveries:
    length = injector.rng.randint(2, min(40, len(frame)))
    place = injector.rng.randint(0, len(frame) - length)
    noise = injector.rng.randbytes(length)
    return [(0, frame[:place] + noise + frame[place + length:])]


def _dropped_byte(injector: Injector, _: Direction, frame: bytes) -> Deliveries:
    place = injector.rng.randrange(len(frame))
    return [(0, frame[:place] + frame[place + 1:])]


def _inserted_byte(injector: Injector, _: Direction, frame: bytes) -> Deliveries:
    place = injector.rng.randint(0, len(frame))
    added = injector.rng.choice((b"\0", injector.rng.randbytes(1)))
    return [(0, frame[:place] + added + frame[place:])]


def _dropped_frame(injector: Injector, _: Direction, frame: bytes) -> Deliveries:
    return []


def _duplicated(injector: Injector, _: Direction, frame: bytes) -> Deliveries:
    return [(0, frame), (injector.rng.choice((0, 0.002, 0.05)), frame)]


def _reordered(injector: Injector, direction: Direction, frame: bytes) -> Deliveries:
    """It comes after the next one, or so much later."""
    injector.held = direction, frame

    def give_up() -> None:
        if injector.held == (direction, frame):
            injector.held = None
            injector.line.transmit(direction, frame, honest=True)

    injector.line.schedule(injector.rng.choice((0.01, 0.3)), give_up)
    return []


def _truncated(injector: Injector, _: Direction, frame: bytes) -> Deliveries:
    cut = frame[:injector.rng.randrange(len(frame))]
    return [(0, cut + injector.rng.choice((b"", b"\0")))]


def _stale(injector: Injector, direction: Direction, frame: bytes) -> Deliveries:
    """One of the frames before it comes again, before or after it."""
    old = injector.rng.choice(injector.earlier[direction])
    return injector.rng.choice(([(0, frame), (0, old)], [(0, old), (0, frame)],
                                [(0, frame), (0.02, old)]))


def _silent(injector: Injector, direction: Direction, frame: bytes) -> Deliveries:
    seconds = injector.rng.uniform(0.02, 0.6) if injector.fault == "silent for a while" \
        else float("inf")
    silent = injector.rng.choice((list(Direction), [direction]))
    injector.last(seconds, lambda direction, frame: [] if direction in silent else [(0, frame)])
    return []


def _late(injector: Injector, direction: Direction, frame: bytes) -> Deliveries:
    """From now on each reply is later than the driver allows for, or nearly so."""
    seconds = injector.rng.uniform(0.05, 0.45)

    def meanwhile(direction: Direction, frame: bytes) -> Deliveries:
        return [(seconds if direction is Direction.TO_HOST else 0, frame)]

    injector.last(float("inf"), meanwhile)
    return meanwhile(direction, frame)


def _reset(injector: Injector, direction: Direction, frame: bytes) -> Deliveries:
    """The device is as after power-up; what it was sending or taking is cut short."""
    configure(injector.line.device)
    return injector.rng.choice(([], _truncated(injector, direction, frame)))


def _unplugged(injector: Injector, _: Direction, frame: bytes) -> Deliveries:
    """For a while, with or without the device's power."""
    line = injector.line
    line.unplug()
    if injector.rng.random() < 0.5:
        configure(line.device)
    seconds = injector.rng.uniform(0.02, 0.6)
    injector.back = line.now + seconds

    def replug() -> None:
        line.plugged = True

    line.schedule(seconds, replug)
    return []


def _wrong_baud(injector: Injector, direction: Direction, frame: bytes) -> Deliveries:
    ratio = injector.rng.choice((0.3, 0.7, 1.5, 4))

    def garbage(_: Direction, frame: bytes) -> Deliveries:
        return [(0, injector.rng.randbytes(round(ratio * len(frame))))]

    injector.last(float("inf"), garbage)
    return garbage(direction, frame)


def _wrong_bitstream(injector: Injector, _: Direction, frame: bytes) -> Deliveries:
    configure(injector.line.device, OTHER_HASH)
    injector.back = float("inf")
    return []


def _killed(injector: Injector, _: Direction, frame: bytes) -> Deliveries:
    """The host ends; what it was sending goes out, or the half of it."""
    for host in injector.line.hosts:
        host.killed = True
    return injector.rng.choice(([(0, frame)], [(0, frame[:injector.rng.randrange(len(frame))])]))


def _two_hosts(injector: Injector, direction: Direction, frame: bytes) -> Deliveries:
    """Another host opens the device, in the midst of a frame maybe, and goes on with requests.

    All hosts see all replies, or one takes bytes from the other; and its numbers are those of the
    first one's requests.
    """
    line, rng = injector.line, injector.rng
    thief = rng.random() < 0.5

    def meanwhile(direction: Direction, frame: bytes) -> Deliveries:
        if not thief or direction is Direction.TO_DEVICE:
            return [(0, frame)]
        cuts = sorted(rng.randint(0, len(frame)) for _ in range(2))
        return [(0, rng.choice((frame[cuts[0]:cuts[1]], frame[:cuts[0]] + frame[cuts[1]:])))]

    injector.last(0.3, meanwhile)       # then its last frame has passed
    struck = unframed(frame.strip(b"\0"))
    session = rng.randint(1, 2**32 - 1)
    at = 12 if direction is Direction.TO_DEVICE else 14
    first, count = struct.unpack_from(f"<2xH{at - 4}xH", struck or bytes(16))
    sequence = (first - 1) % 2**16
    hello = request_frame(Request.HELLO.value, sequence=sequence, session=session)
    reads = [request_frame(Request.READ.value, sequence=(sequence + 1 + n) % 2**16,
                           session=session, address=n, count=count or 1) for n in range(4)]
    for number, read in enumerate(reads):
        line.schedule(rng.uniform(0, 0.01) + 0.01 * number,
                      lambda read=read: line.transmit(Direction.TO_DEVICE, read, honest=True))
    place = rng.choice((0, rng.randrange(len(frame)), len(frame)))
    if direction is Direction.TO_DEVICE:
        line.schedule(0.005, lambda: line.transmit(Direction.TO_DEVICE, b"\0" + hello, honest=True))
        return [(0, frame[:place] + hello + frame[place:])]
    line.transmit(Direction.TO_DEVICE, b"\0" + hello, honest=True)
    return [(0, frame)]


def _noisy(injector: Injector, direction: Direction, frame: bytes) -> Deliveries:
    """From now on one frame in six meets one of the faults of single frames."""
    rng = injector.rng

    def meanwhile(direction: Direction, frame: bytes) -> Deliveries:
        if rng.random() < 1 / 6:
            return FAULTS[rng.choice(SINGLE)][0](injector, direction, frame)
        return [(0, frame)]

    injector.last(float("inf"), meanwhile)
    return meanwhile(direction, frame)


def _slow(injector: Injector, _: Direction, frame: bytes) -> Deliveries:
    """The wire does it (`HostWire`)."""
    return [(0, frame)]


Strike = Callable[[Injector, Direction, bytes], Deliveries]

FAULTS: dict[str, tuple[Strike, Direction | None]] = {
    "flipped bit": (_flipped, None),
    "burst": (_burst, None),
    "dropped byte": (_dropped_byte, None),
    "inserted byte": (_inserted_byte, None),
    "dropped frame": (_dropped_frame, None),
    "duplicated frame": (_duplicated, None),
    "reordered frames": (_reordered, None),
    "truncated frame": (_truncated, None),
    "stale reply": (_stale, Direction.TO_HOST),
    "stale request": (_stale, Direction.TO_DEVICE),
    "noisy line": (_noisy, None),
    "late replies": (_late, None),
    "silent for a while": (_silent, None),
    "silent for ever": (_silent, None),
    "reset": (_reset, None),
    "unplugged": (_unplugged, None),
    "wrong baud rate": (_wrong_baud, None),
    "wrong bitstream": (_wrong_bitstream, None),
    "host killed": (_killed, Direction.TO_DEVICE),
    "two hosts": (_two_hosts, None),
    "slow host": (_slow, None),
}
"""Each fault: what it does to the frame that it strikes, and in which direction (None: any)."""

SINGLE = ("flipped bit", "burst", "dropped byte", "inserted byte", "dropped frame",
          "duplicated frame", "reordered frames", "truncated frame", "stale reply")
"""Those of one frame, which no operation may mind."""
