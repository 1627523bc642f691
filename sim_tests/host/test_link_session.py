"""Sessions on a line without faults: what is sent, what is refused, who may call."""

import random
import threading

import numpy as np
import pytest

from exactum.gen.errors import DeviceError, UsageError
from exactum.hdl.protocol import MAX_WORDS, WINDOW, Request
from exactum.host.bus import Bus, check_generation
from exactum.host.link import Session, Timing
from sim_tests.faults import HASH, configure
from sim_tests.link_reference import ReferenceDevice, frame_of
from sim_tests.virtual_line import Direction, Line


class Bench:
    """A session with a reference device in virtual time."""

    def __init__(self, device=None, **options):
        self.device = ReferenceDevice(4096) if device is None else device
        configure(self.device)
        self.line = Line(self.device, 2_000_000)
        self.wires = 0
        self.options = {"timing": Timing(baud=2_000_000), "clock": lambda: self.line.now,
                        "random": random.Random(1).getrandbits} | options

    def connect(self):
        self.wires += 1
        return self.line.connect()

    def open(self, **options):
        return Session(self.connect, **self.options | options)


@pytest.fixture
def bench():
    return Bench()


def numbers(count, seed=1):
    return np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 256, 257, 4096])
def test_what_is_written_is_read(bench, count):
    session: Bus = bench.open()
    words = numbers(count)
    session.write(0, words)
    read = session.read(0, count)
    assert read.dtype == np.uint64
    assert read.tolist() == words.tolist()
    frames = -(-count // MAX_WORDS)
    assert [len(e.words) for e in bench.device.executed[1:]] == [
        min(MAX_WORDS, count - at) for at in range(0, count, MAX_WORDS)] * 2
    assert (session.statistics.sent, session.statistics.replies) == (1 + 2 * frames, ) * 2


def test_other_kinds_of_integers_are_converted_and_nothing_is_kept(bench):
    session = bench.open()
    words = numbers(9)
    session.write(1, words[::2])
    session.write(0, [7])
    words[:] = 0
    assert session.read(0, 6).tolist() == [7, *numbers(9)[::2].tolist()]


def test_a_window_of_requests_is_on_its_way(bench):
    session, on_way, most = bench.open(), 0, 0

    def carry(direction, frame):
        nonlocal on_way, most
        on_way += 1 if direction is Direction.TO_DEVICE else -1
        most = max(most, on_way)
        return [(0, frame)]

    bench.line.carry = carry
    session.read(0, 4096)
    assert (on_way, most) == (0, WINDOW)


def test_the_line_is_busy_while_words_stream(bench):
    session, begin = bench.open(), bench.line.now
    session.read(0, 4096)
    took = bench.line.now - begin
    assert took < 1.02 * 64 * 535 * 10 / 2e6


def test_sequence_numbers_begin_anew_after_65535(bench):
    session = bench.open(random=lambda bits: 2**bits - 3)
    for _ in range(3):
        session.write(0, numbers(300))
        assert session.read(0, 300).tolist() == numbers(300).tolist()
    assert {e.sequence for e in bench.device.executed} >= {65533, 65535, 0, 1}


@pytest.mark.parametrize(("address", "count"), [(4095, 2), (5000, 1), (2**31 + 31, 2), (0, 4097)])
def test_words_that_do_not_exist_are_refused_and_the_session_goes_on(bench, address, count):
    session = bench.open()
    with pytest.raises(DeviceError, match=r"X411: the device refuses .* there are no such words"):
        session.read(address, count)
    with pytest.raises(DeviceError, match="X411"):
        session.write(address, numbers(count))
    session.write(5, numbers(3))
    assert session.read(5, 3).tolist() == numbers(3).tolist()


@pytest.mark.parametrize(("address", "count"), [(-1, 1), (2**32, 1), (2**32 - 1, 2), (0, -1)])
def test_addresses_have_32_bits(bench, address, count):
    session = bench.open()
    with pytest.raises(UsageError, match="X207"):
        session.read(address, count)
    if count > 0:
        with pytest.raises(UsageError, match="X207"):
            session.write(address, numbers(count))
    with pytest.raises(UsageError, match="X201"):
        session.write(0, numbers(4).reshape(2, 2))
    for words in ([0.5], np.ones(2), [True], ["x"], [-1, 2**63]):
        with pytest.raises(UsageError, match="X202"):
            session.write(0, words)


def test_the_configuration_is_compared_if_it_is_given(bench):
    bench.open(configuration_hash=HASH).close()
    with pytest.raises(DeviceError, match=f"X408: .* {HASH[:16]}, not 0000000000000000"):
        bench.open(configuration_hash="0" * 64)
    bench.device.registers[0] = 0
    with pytest.raises(DeviceError, match="X408: what answers at the line is not Exactum's"):
        bench.open(configuration_hash=HASH)
    bench.open().close()
    assert bench.line.hosts == []


class OtherVersion(ReferenceDevice):
    """Refuses a HELLO with this status, or answers it with this version."""

    def __init__(self, status, version):
        super().__init__()
        self.status, self.version = status, version

    def _reply(self, request, status, sequence, words=()):
        if request == Request.HELLO.value:
            words = [self.version, 0] if words else words
            status = type(status)(self.status)
        return super()._reply(request, status, sequence, words)


@pytest.mark.parametrize(("status", "version"), [(6, 1), (3, 1), (5, 1), (0, 2), (0, 1)],
                         ids=["VERSION", "LENGTH", "REQUEST", "version 2", "no window"])
def test_another_protocol_is_noticed(status, version):
    with pytest.raises(DeviceError, match="X407"):
        Bench(OtherVersion(status, version)).open()


class Noise(ReferenceDevice):
    def feed(self, data):
        return b"\x55\xaa\0\x12"


class Nothing(ReferenceDevice):
    def feed(self, data):
        return b""


@pytest.mark.parametrize(("device", "words"), [
    (Noise, "X410: the line sends .* bytes, but no frame of the protocol\n.*2000000 baud"),
    (Nothing, "X404: the line does not answer\n  next: check cable, power and bitstream")])
def test_what_does_not_answer_is_told_from_what_answers_noise(device, words):
    bench = Bench(device())
    with pytest.raises(DeviceError, match=words):
        bench.open()
    assert bench.line.now <= Timing(baud=2_000_000).opening + 1e-9
    assert bench.line.hosts == []


def test_a_flood_of_noise_does_not_keep_a_call_beyond_its_deadline(bench):
    session, begin = bench.open(), bench.line.now

    def flood():
        for host in bench.line.hosts:
            host.inbox += b"\1\2\0"
        bench.line.schedule(0.001, flood)

    bench.line.carry = lambda direction, frame: []
    flood()
    with pytest.raises(DeviceError, match="X404"):
        session.read(0, 1)
    assert bench.line.now - begin <= session.timing.call([(2, 1)]) + 1e-9


def test_each_call_raises_the_same_error_until_the_device_is_opened_again(bench):
    session = bench.open()
    generation = session.generation
    bench.device.power_cycle()
    for call in (lambda: session.read(0, 1), lambda: session.write(0, numbers(1))) * 2:
        with pytest.raises(DeviceError, match="X405: the device was reset"):
            call()
    check_generation(session, generation)
    session.reopen()
    assert session.generation > generation
    with pytest.raises(DeviceError, match=f"X412: .* generation {generation} of the device"):
        check_generation(session, generation)
    assert session.read(0, 1).tolist() == [0]
    assert bench.wires == 1


def test_a_closed_session_says_so_and_may_be_opened_again(bench):
    with bench.open() as session:
        session.write(3, numbers(1))
    for _ in range(2):
        session.close()
        with pytest.raises(DeviceError, match="X403"):
            session.read(3, 1)
    assert bench.line.hosts == []
    session.reopen()
    assert session.read(3, 1).tolist() == numbers(1).tolist()
    assert bench.wires == 2


def test_the_last_to_open_a_device_has_it(bench):
    first, second = bench.open(), bench.open()
    second.write(0, numbers(1))
    with pytest.raises(DeviceError, match="X406: another program has opened the device"):
        first.read(0, 1)
    assert second.read(0, 1).tolist() == numbers(1).tolist()
    first.reopen()
    assert first.read(0, 1).tolist() == numbers(1).tolist()
    with pytest.raises(DeviceError, match="X406"):
        second.read(0, 1)


class Interrupting:
    """A wire at which Ctrl-C is pressed once, while it waits."""

    def __init__(self, wire):
        self.wire, self.after = wire, None
        self.name, self.send, self.close = wire.name, wire.send, wire.close

    def receive(self, timeout):
        if self.after is not None:
            self.after -= 1
            if self.after < 0:
                self.after = None
                raise KeyboardInterrupt
        return self.wire.receive(timeout)


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_an_interrupted_call_leaves_a_session_that_goes_on(bench, after):
    wire = Interrupting(bench.line.connect())
    session = Session(lambda: wire, **bench.options)
    session.write(0, numbers(700))
    wire.after = after
    with pytest.raises(KeyboardInterrupt):
        session.write(1000, numbers(700, 2))
    assert session.read(0, 700).tolist() == numbers(700).tolist()
    wire.after = after
    with pytest.raises(KeyboardInterrupt):
        session.read(0, 700)
    session.write(1000, numbers(700, 3))
    assert session.read(1000, 700).tolist() == numbers(700, 3).tolist()
    done = [(e.session, e.sequence) for e in bench.device.executed]
    assert len(set(done)) == len(done)


def test_interrupted_opening_leaves_a_closed_wire(bench):
    wire = Interrupting(bench.line.connect())
    wire.after = 0
    with pytest.raises(KeyboardInterrupt):
        Session(lambda: wire, **bench.options)
    assert bench.line.hosts == []


class Direct:
    """A wire straight into a device, for threads."""

    name = "direct"

    def __init__(self, device):
        self.device, self.inbox = device, b""

    def send(self, content, timeout):
        self.inbox += self.device.feed(content)

    def receive(self, timeout):
        taken, self.inbox = self.inbox, b""
        return taken

    def close(self):
        pass


def test_threads_take_turns():
    session = Session(lambda: Direct(ReferenceDevice(4096)), timing=Timing(baud=2_000_000))
    wrong = []

    def work(place):
        for seed in range(10):
            session.write(512 * place, numbers(150, 100 * place + seed))
            if session.read(512 * place, 150).tolist() != numbers(150, 100 * place + seed).tolist():
                wrong.append((place, seed))

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert session.statistics.repeated == session.statistics.dropped == 0


def test_a_refusal_of_an_older_request_has_the_window_sent_again_once(bench):
    """The first of four is lost: the three refusals are answered by four frames, not by twelve."""
    session, count = bench.open(), 0

    def carry(direction, frame):
        nonlocal count
        count += direction is Direction.TO_DEVICE
        return [] if direction is Direction.TO_DEVICE and count == 1 else [(0, frame)]

    bench.line.carry = carry
    begin = bench.line.now
    session.read(0, 4 * 64)
    assert count == 8
    assert session.statistics.repeated == 4
    assert bench.line.now - begin < session.timing.latency      # no time-out was waited for


def test_frames_of_no_meaning_are_counted(bench):
    session = bench.open()
    for host in bench.line.hosts:
        host.inbox += b"\1\2\3\0" + frame_of(bytes(16)) + b"\1" * 5000 + b"\0"
    session.read(0, 1)
    assert session.statistics.dropped == 3


@pytest.mark.parametrize("baud", [9600, 115_200, 12_000_000])
def test_a_host_that_was_killed_is_outlasted_at_any_baud_rate(bench, baud):
    """Its four replies of 64 words are sent first: two seconds of them at 9600 baud."""
    bench.line.baud = baud
    timing = Timing(baud=baud)
    wire = Interrupting(bench.line.connect())
    old = Session(lambda: wire, **bench.options | {"timing": timing})
    bench.device.memory |= dict.fromkeys(range(256), 2**64 - 1)
    wire.after = 0
    with pytest.raises(KeyboardInterrupt):
        old.read(0, 256)
    old.close()
    begin = bench.line.now
    new = bench.open(timing=timing)
    assert bench.line.now - begin <= timing.opening
    assert new.read(0, 2).tolist() == [2**64 - 1] * 2
