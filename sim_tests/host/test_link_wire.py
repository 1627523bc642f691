"""Wires in real time: pseudo terminals and sockets, with a reference device at the other end."""

import errno
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import tty

import numpy as np
import pytest
import serial

from exactum.gen.errors import DeviceError, UsageError
from exactum.host.link import (
    DescriptorWire,
    SerialWire,
    Session,
    SocketWire,
    Timing,
    open_serial,
)
from sim_tests.faults import HASH, configure
from sim_tests.link_reference import ReferenceDevice
from sim_tests.repository import ROOT

BAUD = 2_000_000


class Board:
    """A reference device behind a pseudo terminal, served by a thread; ``path`` is its port."""

    def __init__(self, memory_words=512):
        self.device = ReferenceDevice(memory_words)
        configure(self.device)
        self.descriptor, self.slave = pty.openpty()
        tty.setraw(self.slave)
        self.path = os.ttyname(self.slave)
        self.answers = True
        self._plugged = True
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while self._plugged:
            if select.select([self.descriptor], [], [], 0.02)[0]:
                replies = self.device.feed(os.read(self.descriptor, 65536))
                while replies and self.answers:
                    replies = replies[os.write(self.descriptor, replies):]

    def unplug(self):
        self._plugged = False
        self._thread.join()
        for descriptor in (self.descriptor, self.slave):
            if descriptor >= 0:
                os.close(descriptor)
        self.descriptor = self.slave = -1


@pytest.fixture
def board():
    board = Board()
    yield board
    board.unplug()


def numbers(count):
    return np.random.default_rng(count).integers(0, 2**64, count, np.uint64)


def test_words_go_over_a_pseudo_terminal_and_back(board):
    with open_serial(f"serial:{board.path}", baud=BAUD, configuration_hash=HASH) as session:
        session.write(0, numbers(500))
        assert session.read(0, 500).tolist() == numbers(500).tolist()
        statistics = session.statistics
        assert (statistics.repeated, statistics.dropped, statistics.lost) == (0, 0, 0)
    with pytest.raises(DeviceError, match="X403"):
        session.read(0, 1)


def test_a_port_is_opened_by_one_at_a_time(board):
    first = open_serial(f"serial:{board.path}", baud=BAUD)
    with pytest.raises(DeviceError, match=f"X402: another program has {board.path} open"):
        open_serial(f"serial:{board.path}", baud=BAUD)
    first.close()
    open_serial(f"serial:{board.path}", baud=BAUD).close()


def test_a_killed_host_leaves_nothing_behind(board):
    script = ("import sys, numpy as np\n"
              "from exactum.host.link import open_serial\n"
              "session = open_serial(sys.argv[1], baud=2000000)\n"
              "print('open', flush=True)\n"
              "while True: session.write(0, np.full(500, 7, np.uint64))\n")
    with subprocess.Popen([sys.executable, "-c", script, f"serial:{board.path}"], cwd=ROOT,
                          stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout.readline() == "open\n"
        with pytest.raises(DeviceError, match="X402"):
            open_serial(f"serial:{board.path}", baud=BAUD)
        time.sleep(0.05)
        host.send_signal(signal.SIGKILL)
        host.wait(10)
    begin = time.monotonic()
    with open_serial(f"serial:{board.path}", baud=BAUD) as session:
        assert time.monotonic() - begin < 1
        session.write(0, numbers(500))
        assert session.read(0, 500).tolist() == numbers(500).tolist()


def test_an_unplugged_board_is_noticed_and_found_again(board, tmp_path):
    port = tmp_path / "board"
    port.symlink_to(board.path)
    session = open_serial(f"serial:{port}", baud=BAUD)
    session.write(0, numbers(3))
    board.unplug()
    with pytest.raises(DeviceError, match=f"X404: {port} is gone"):
        session.read(0, 3)
    port.unlink()
    with pytest.raises(DeviceError, match=f"X401: there is no port {port}"):
        session.reopen()
    other = Board()
    try:
        port.symlink_to(other.path)
        begin = time.monotonic()
        session.reopen()
        session.write(0, numbers(3))
        assert session.read(0, 3).tolist() == numbers(3).tolist()
        assert time.monotonic() - begin < 1
    finally:
        session.close()
        other.unplug()


def test_a_silent_board_is_given_up(board):
    timing = Timing(baud=BAUD, latency=0.02)
    session = Session(lambda: SerialWire(board.path, BAUD), timing=timing)
    board.answers = False
    begin = time.monotonic()
    with pytest.raises(DeviceError, match=f"X404: {board.path} did not answer 5 times"):
        session.read(0, 64)
    assert time.monotonic() - begin < timing.call([(2, 64)]) + 0.5
    board.answers = True
    session.reopen()
    assert len(session.read(0, 64)) == 64
    session.close()


def test_a_missing_port_is_named():
    with pytest.raises(DeviceError, match="X401: there is no port /dev/no-such-port\n  next: plug"):
        SerialWire("/dev/no-such-port", BAUD)


@pytest.mark.parametrize(("number", "words"), [
    (errno.EACCES, "X409: you may not open /dev/x\n  next: sudo usermod -aG dialout"),
    (errno.EBUSY, "X402: another program has /dev/x open"),
    (errno.ENODEV, "X401: there is no port /dev/x"),
    (errno.EIO, "X401: /dev/x cannot be opened at 2000000 baud: Input/output error"),
])
def test_ports_that_cannot_be_opened_say_why(monkeypatch, number, words):
    def refuse(*_, **__):
        raise serial.SerialException(number, os.strerror(number))

    monkeypatch.setattr(serial, "Serial", refuse)
    with pytest.raises(DeviceError, match=words):
        SerialWire("/dev/x", BAUD)


def test_a_file_is_no_port(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    with pytest.raises(DeviceError, match=f"X401: {path} cannot be opened"):
        SerialWire(str(path), BAUD)


@pytest.mark.parametrize("name", ["serial", "serial:", "usb:/dev/x", ""])
def test_other_names_are_refused(name):
    with pytest.raises(UsageError, match="X211: a board is called serial:PATH"):
        open_serial(name, baud=BAUD)


def test_sockets_and_what_happens_at_their_ends():
    here, there = socket.socketpair()
    wire = SocketWire(here, "a socket")
    wire.send(b"abc", 1)
    assert there.recv(10) == b"abc"
    there.send(b"xyz")
    assert wire.receive(1) == b"xyz"
    begin = time.monotonic()
    assert wire.receive(0.05) == b""
    assert time.monotonic() - begin >= 0.05
    with pytest.raises(DeviceError, match="X404: a socket takes no bytes"):
        wire.send(bytes(1 << 24), 0.05)
    there.close()
    with pytest.raises(DeviceError, match="X404: a socket is gone"):
        wire.receive(1)
    with pytest.raises(DeviceError, match="X404: a socket is gone"):
        wire.send(b"x", 1)
    for _ in range(2):
        wire.close()
    with pytest.raises(DeviceError, match="X404"):
        wire.receive(0)


def test_pipes_that_nobody_writes_any_more():
    reader, writer = os.pipe()
    wire = DescriptorWire(reader, "a pipe")
    os.close(writer)
    with pytest.raises(DeviceError, match="X404: a pipe is gone: the other side is gone"):
        wire.receive(1)
    wire.close()
