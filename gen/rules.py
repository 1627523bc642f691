"""The rules over several keys of a configuration, each with the sentence that names it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..hdl.formats import FORMATS, Format
from ..hdl.protocol import LEAST_CYCLES
from .errors import Problem
from .sources import at

__all__ = ["RULES", "Rule", "bit_cycles", "broken_rules"]


@dataclass(frozen=True)
class Rule:
    """A condition over several keys: the values of ``keys`` in, the broken sentence or None out.

    ``blamed`` is the key that a problem names where nothing says which of them was set last.
    """

    keys: tuple[str, ...]
    blamed: str
    text: str
    check: Callable[..., str | None]


def _exact_width(formats: Iterable[str], width: int, max_k: int) -> str | None:
    spans = {name: f.max_exponent - f.min_exponent + f.mantissa_width
             for name in formats if not (f := FORMATS[name]).is_wide}
    if not spans:
        return None
    widest = max(spans, key=lambda name: spans[name])
    least = 2 * spans[widest] + 3 + _log2(max_k)
    if width >= least:
        return None
    return (f"sums of {widest} products are exact only with vpcu.accumulator_width >= "
            f"{2 * spans[widest] + 3} + log2(vpcu.max_k) = {least}; got {width} with "
            f"vpcu.max_k = {max_k}")


def _wide_width(formats: Iterable[str], width: int, max_k: int) -> str | None:
    wide = {name: _frame(f) for name in formats if (f := FORMATS[name]).is_wide}
    if not wide:
        return None
    widest = max(wide, key=lambda name: wide[name])
    constant = 2 * wide[widest] + 1
    least = constant + _log2(max_k)
    if width >= least:
        return None
    return (f"the largest product of {widest} keeps all its bits only with "
            f"vpcu.accumulator_width >= {constant} + log2(vpcu.max_k) = {least}; got "
            f"{width} with vpcu.max_k = {max_k}")


def _frame(fmt: Format) -> int:
    """Bits of a significand in a lane; the 8- and 16-bit formats have the longest of them."""
    peers = (f for f in FORMATS.values() if f.width <= max(16, fmt.width))
    return max(f.significand_width for f in peers)


def _tile_depth(b_depth: int, max_k: int) -> str | None:
    if b_depth <= max_k:
        return None
    return f"vpcu.b_depth may not exceed vpcu.max_k = {max_k}; got {b_depth}"


def _row_length(lanes: int, max_length: int) -> str | None:
    if lanes <= max_length:
        return None
    return f"softmax.lanes may not exceed softmax.max_length = {max_length}; got {lanes}"


def _bit_cycles(clock_mhz: float, baud: int) -> str | None:
    cycles = bit_cycles(clock_mhz, baud)
    if cycles >= LEAST_CYCLES and abs(clock_mhz * 1e6 / cycles / baud - 1) <= _BAUD_ERROR:
        return None
    better = round(clock_mhz * 1e6 / max(LEAST_CYCLES, cycles))
    return (f"a bit of device.baud lasts {LEAST_CYCLES} or more cycles of clock_mhz, to within "
            f"{100 * _BAUD_ERROR:g} %; got {baud} at {clock_mhz:g} MHz, and {better} is possible")


def bit_cycles(clock_mhz: float, baud: int) -> int:
    """Clock cycles that a bit on the serial port lasts, rounded."""
    return round(clock_mhz * 1e6 / baud)


def _log2(value: int) -> int:
    return value.bit_length() - 1


_BAUD_ERROR = 0.02      # of the 5 % that ten bits allow, receiver and sender together

RULES = (
    Rule(("vpcu.formats", "vpcu.accumulator_width", "vpcu.max_k"), "vpcu.accumulator_width",
         "Sums of the enabled formats of at most 5 exponent bits are exact (rule N4): "
         "`vpcu.accumulator_width` >= 37 (e4m3), 65 (e5m2) or 81 (fp16) + log2(`vpcu.max_k`).",
         _exact_width),
    Rule(("vpcu.formats", "vpcu.accumulator_width", "vpcu.max_k"), "vpcu.accumulator_width",
         "The window holds at least the largest product of bf16 and fp32 whole: "
         "`vpcu.accumulator_width` >= 23 (bf16) or 49 (fp32) + log2(`vpcu.max_k`).",
         _wide_width),
    Rule(("vpcu.b_depth", "vpcu.max_k"), "vpcu.b_depth",
         "`vpcu.b_depth` <= `vpcu.max_k`.", _tile_depth),
    Rule(("softmax.lanes", "softmax.max_length"), "softmax.lanes",
         "`softmax.lanes` <= `softmax.max_length`.", _row_length),
    Rule(("clock_mhz", "device.baud"), "device.baud",
         "A bit of `device.baud` lasts a whole number of cycles of `clock_mhz`, 4 or more, to "
         "within 2 %.", _bit_cycles),
)


def broken_rules(values: Mapping[str, Any], bad: frozenset[str]) -> Iterator[Problem]:
    """The rules broken by ``values``, but for those that read a key which is bad by itself."""
    for rule in RULES:
        if not bad.intersection(part for key in rule.keys for part in (key, key.split(".")[0])):
            message = rule.check(*(at(values, key) for key in rule.keys))
            if message:
                yield Problem("X107", message, rule.blamed, keys=rule.keys)
