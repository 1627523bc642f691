"""The machine's addresses, registers, channels and commands (docs/machine.md)."""

from amaranth.lib import data, enum

__all__ = ["CHANNELS", "COMMAND_WORDS", "IDENTITY", "REGISTERS", "REGISTER_BASE", "UNIT_NAMES",
           "Channel", "Command", "Fault", "Opcode", "Register", "State", "StatusWord"]

REGISTER_BASE = 1 << 31
"""Address of the first register; from address 0 on there is the scratch memory."""

IDENTITY = int.from_bytes(b"EXACTUM1", "little")
"""The first register."""

UNIT_NAMES = ("engine", "softmax", "elementwise", "compressor", "decompressor")
"""The units by number: bit n of the masks of GO and HALT."""


class Register(enum.Enum, shape=6):
    """The registers, 64 bits each, by number."""

    IDENTITY = 0
    HASH = 1            # four of them: the configuration's hash
    GEOMETRY = 5
    STATUS = 6
    CONTROL = 7
    WATCHDOG = 8
    LINK = 9
    STALLED = 10        # cycles in which a running unit waited for its words
    LOST = 11           # results of the engine whose `lost` is set
    CYCLES = 16         # one for each unit, by number


REGISTERS = 32


class State(enum.Enum, shape=2):
    """What the sequencer does."""

    IDLE = 0
    RUNNING = 1
    FAILED = 2


class Fault(enum.Enum, shape=4):
    """Why a list of commands has failed."""

    NONE = 0
    OPCODE = 1
    CHANNEL = 2
    ADDRESS = 3
    WATCHDOG = 4


StatusWord = data.StructLayout({
    "state": 8, "fault": 8, "running": 8, "zero": 8, "busy": 32})
"""STATUS. ``running``: units that GO has set going, a bit for each. ``busy``: movers, likewise."""


class Opcode(enum.Enum, shape=4):
    """What a command does."""

    END = 0
    MOVE = 1
    WAIT = 2
    GO = 3
    HALT = 4


class Channel(enum.Enum, shape=5):
    """The movers by number: bit n of the mask of WAIT and of ``busy``."""

    ENGINE_OPERATION = 0
    ENGINE_B = 1
    ENGINE_ROW = 2
    ENGINE_MASK = 3
    ENGINE_VALUES = 4
    ENGINE_A = 5
    ENGINE_RESULT = 6
    SOFTMAX_OPERATION = 7
    SOFTMAX_ROW = 8
    SOFTMAX_RESULT = 9
    ELEMENTWISE_OPERATION = 10
    ELEMENTWISE_ROW = 11
    ELEMENTWISE_X = 12
    ELEMENTWISE_Q = 13
    ELEMENTWISE_T = 14
    ELEMENTWISE_RESULT = 15
    COMPRESSOR_OPERATION = 16
    COMPRESSOR_PLAIN = 17
    COMPRESSOR_RESULT = 18
    DECOMPRESSOR_OPERATION = 19
    DECOMPRESSOR_WORD = 20
    DECOMPRESSOR_RESULT = 21
    SOFTMAX_SUM = 22


CHANNELS = len(Channel)

COMMAND_WORDS = 3

Command = data.StructLayout({
    "opcode": 8, "channel": 8, "size": 8, "more": 1, "with_q": 1, "with_t": 1, "zero": 5,
    "mask": 32, "address": 32, "step": 32, "inner": 16, "outer": 16, "stride": 32})
"""Three words.

``size``: 2^size bytes an element. ``more``: the mover's last item is not the unit's last one: wait
for more; of GO: counts go on. ``with_q``, ``with_t``: the elements of x come with those of q, of t.
``mask``: of channels or units; of results, how many are dropped behind each row. ``address``: of
the first byte. ``step``, ``stride``: bytes from an element, and from the first one of a row, to the
next, signed. ``inner``, ``outer``: elements of a row, and rows; of words, ``outer * 2^16 + inner``
is how many items there are.
"""
