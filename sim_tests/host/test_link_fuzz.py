"""Random and lawless frames into driver and reference device; ``make fuzz`` sends a million."""

import struct
import zlib

import pytest
from cobs import cobs

from exactum.host.link import channel, session
from sim_tests import link_reference
from sim_tests.link_fuzz import fuzz_device, fuzz_driver

FRAMES = 20_000


def _recoded(frame):
    """With the CRC that its bytes should have."""
    try:
        content = cobs.decode(frame)[:-4]
    except cobs.DecodeError:
        return frame
    return cobs.encode(content + struct.pack("<I", zlib.crc32(content)))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_device_does_only_what_it_may(seed):
    done = fuzz_device(FRAMES, seed)
    assert done["wrong"] == 0
    assert done["executed"] > FRAMES / 100
    assert done["answered"] > FRAMES / 3


@pytest.mark.parametrize("seed", [1, 2])
def test_a_driver_believes_only_what_it_may(seed):
    done = fuzz_driver(FRAMES, seed)
    assert done["wrong"] == 0
    assert 0 < done["errors"] < done["calls"] / 4


def test_a_device_that_ignores_the_crc_is_found_out(monkeypatch):
    honest = link_reference.unframed
    monkeypatch.setattr(link_reference, "unframed", lambda text: honest(_recoded(text)))
    assert fuzz_device(5000, 1)["wrong"] > 0


def test_a_driver_that_ignores_the_crc_is_found_out(monkeypatch):
    honest = channel.decode_reply
    monkeypatch.setattr(channel, "decode_reply", lambda frame: honest(_recoded(frame)))
    assert fuzz_driver(5000, 1)["wrong"] > 0


def test_a_driver_that_takes_any_length_is_found_out(monkeypatch):
    def take(self, reply):
        flight = self._window.find(reply.sequence)
        if flight is not None and flight.into is not None and reply.status == 0:
            reply = reply._replace(words=reply.words[:1].repeat(flight.count))
        return honest(self, reply)

    honest = session.Session._take
    monkeypatch.setattr(session.Session, "_take", take)
    assert fuzz_driver(5000, 1)["wrong"] > 0
