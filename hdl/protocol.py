"""The link's frames, byte by byte (docs/protocol.md): what gateware and driver share."""

from amaranth.lib import data, enum

__all__ = ["BUS_REPLY", "CRC_BYTES", "FRAME_BYTES", "HEADER_BYTES", "HELLO_WORDS",
           "LEAST_CYCLES", "MAX_WORDS", "REPLY", "REPLY_HEADER", "REQUEST_HEADER", "VERSION",
           "WINDOW", "BusRequest", "Request", "Status"]

VERSION = 1
"""Of the protocol: device and driver must agree."""

WINDOW = 4
"""Requests that may be on their way at once, and replies that a device keeps."""

LEAST_CYCLES = 4
"""Clock cycles that a bit on the line lasts at least: a receiver finds its middle to one."""

MAX_WORDS = 64
"""64-bit words that a frame carries."""

HEADER_BYTES = 16
CRC_BYTES = 4
FRAME_BYTES = HEADER_BYTES + 8 * MAX_WORDS + CRC_BYTES
"""Longest frame, before COBS."""

HELLO_WORDS = 2
"""Words of a HELLO's reply: (version, window, most words, 0), 16 bits each; then features."""

REPLY = 0x80
"""Set in the first byte of a reply."""


class Request(enum.Enum, shape=8):
    """First byte of a request."""

    HELLO = 1
    READ = 2
    WRITE = 3


class Status(enum.Enum, shape=8):
    """Second byte of a reply.

    All but OK say that nothing was done: a session that is not the device's, a sequence number that
    is not its turn, a length that does not suit the request, words outside of every range of
    addresses, an unknown request, another version.
    """

    OK = 0
    SESSION = 1
    SEQUENCE = 2
    LENGTH = 3
    ADDRESS = 4
    REQUEST = 5
    VERSION = 6


REQUEST_HEADER = data.StructLayout({
    "request": 8, "zero": 8, "sequence": 16, "session": 32,
    "address": 32, "count": 16, "zeros": 16})
"""``address``: first word, or a HELLO's version. ``count``: words."""

REPLY_HEADER = data.StructLayout({
    "request": 8, "status": 8, "sequence": 16, "session": 32,
    "generation": 32, "expected": 16, "count": 16})
"""``session``, ``generation``, ``expected``: the device's, after the request. ``count``: words."""

BusRequest = data.StructLayout({"data": 64, "address": 32, "write": 1})
"""A word to be read or written; only reads are answered, in order."""

BUS_REPLY = 64
"""The word that was read."""
