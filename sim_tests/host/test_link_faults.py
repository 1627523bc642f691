"""Every fault against every operation, in virtual time; and that faulty drivers are found out.

``make faults`` does more of them and writes benchmarks/results/faults.json.
"""

import struct
import zlib

import pytest
from cobs import cobs

from exactum.host.link import Session, channel, window
from exactum.host.link.frames import encode_request
from sim_tests.fault_runs import cells, run_cell
from sim_tests.faults import SINGLE

INJECTIONS = 200


@pytest.mark.parametrize(("fault", "operation"), cells())
def test_no_fault_does_harm(fault, operation):
    cell = run_cell(fault, operation, INJECTIONS)
    assert cell.injections == INJECTIONS
    assert cell.clean, cell.notes
    if fault in SINGLE:
        assert cell.raised == 0, cell.errors


def _without_crc(monkeypatch):
    def careless(frame):
        try:
            content = cobs.decode(frame)[:-4]
        except cobs.DecodeError:
            return None
        return honest(cobs.encode(content + struct.pack("<I", zlib.crc32(content))))

    honest = channel.decode_reply
    monkeypatch.setattr(channel, "decode_reply", careless)


def _any_sequence(monkeypatch):
    def find(self, sequence):
        return next(iter(self.open), None)
    monkeypatch.setattr(window.Window, "find", find)


def _any_session(monkeypatch):
    def take(self, reply):
        if reply.status == 0:
            reply = reply._replace(session=self._peer.session, generation=self._peer.generation)
        return honest(self, reply)

    honest = Session._take
    monkeypatch.setattr(Session, "_take", take)


def _new_numbers(monkeypatch):
    """What is sent again is a new request."""
    def send_again(self):
        for flight in self._window.open:
            flight.sequence = self._window.next_sequence
            self._window.next_sequence = (flight.sequence + 1) % 2**16
            content = cobs.decode(flight.frame[:-1])[:-4]
            content = content[:2] + struct.pack("<H", flight.sequence) + content[4:]
            flight.frame = cobs.encode(content + struct.pack("<I", zlib.crc32(content))) + b"\0"
        honest(self)

    honest = Session._send_again
    monkeypatch.setattr(Session, "_send_again", send_again)


def _window_of_open_ones(monkeypatch):
    def room(self, most):
        return len(self.open) < most
    monkeypatch.setattr(window.Window, "room", room)


def _endless(monkeypatch):
    def wait(self, limit):
        self._window.attempts = 0
        honest(self, float("inf"))

    honest = Session._await
    monkeypatch.setattr(Session, "_await", wait)


def _any_bitstream(monkeypatch):
    monkeypatch.setattr(Session, "_check_configuration", lambda *_: None)


def _once_only(monkeypatch):
    def send_again(self):
        raise self._ended("X404", "lost", "no second try")
    monkeypatch.setattr(Session, "_send_again", send_again)


@pytest.mark.parametrize(("damage", "fault", "operation", "kind"), [
    (_without_crc, "flipped bit", "read", "silent"),
    (_any_sequence, "reordered frames", "stream out", "silent"),
    (_any_session, "two hosts", "read", "silent"),
    (_new_numbers, "dropped frame", "stream in", "silent"),
    (_window_of_open_ones, "dropped frame", "stream out", "raised"),
    (_endless, "silent for ever", "read", "hung"),
    (_any_bitstream, "wrong bitstream", "read", "silent"),
    (_once_only, "dropped frame", "write", "raised"),
])
def test_a_faulty_driver_is_found_out(monkeypatch, damage, fault, operation, kind):
    damage(monkeypatch)
    cell = run_cell(fault, operation, 5 if kind == "hung" else 100)
    assert getattr(cell, kind) > 0


def test_double_executions_are_seen():
    class Twice(Session):
        """Begins its session anew, with the old one's number, and counts from where it was."""

        def _send_again(self):
            number, window = self._peer.session, self._window
            first = window.open[0].sequence
            for other in (number ^ 1 or 2, number):
                greeting = encode_request(1, sequence=first - 1 & 0xFFFF, session=other, address=1)
                self._channel.send(b"\0" + greeting, frames=1)
            self._peer = type(self._peer)(number, self._peer.generation + 2, 4, 64)
            super()._send_again()

    cell = run_cell("dropped frame", "write", INJECTIONS, make=Twice)
    assert cell.doubled > 0
