"""Blocks by the thousand, and damaged streams, through the natively compiled compression units."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..gen.config import Configuration, preset
from ..gen.errors import SimulationError
from ..hdl.formats import Format, lookup
from ..hdl.header import RING_DEPTH
from ..hdl.layouts import CodecOperation, PlainWord
from ..host.codec import compress, compress_cycles, decompress_cycles, plain_words, read_stream
from ..host.native import NativeUnit
from .codec_cases import CASES, format_of
from .pair_cases import draw

__all__ = ["DAMAGES", "CodecRun", "NativeCodec", "corners", "damaged", "every_pair",
           "random_blocks"]

BLOCK = preset("default").zce.block


def _tensor(fmt: Format, patterns: np.ndarray) -> Tensor:
    integers = {8: np.uint8, 16: np.uint16, 32: np.uint32}[fmt.width]
    octets = torch.from_numpy(patterns.astype(integers).view(np.uint8))
    return octets.view(getattr(torch, fmt.torch_name))


def random_blocks(name: str, blocks: int, density: float, random: np.random.Generator) -> Tensor:
    """Elements of which the fraction ``density`` is not zero: also subnormals, NaN and Inf.

    The zeros, in random places, are of either sign.
    """
    return _where(lookup(name), random.random(blocks * BLOCK) < density, random)


def every_pair(name: str, random: np.random.Generator) -> Tensor:
    """Blocks of eight: every pattern of zeros in a block behind every one in the block before."""
    patterns = np.arange(256)
    pairs = np.stack(np.meshgrid(patterns, patterns, indexing="ij"), axis=-1).reshape(-1, 1)
    return _where(lookup(name), (pairs >> np.arange(8) & 1).reshape(-1) != 0, random)


def _where(fmt: Format, nonzero: np.ndarray, random: np.random.Generator) -> Tensor:
    """Any values, but zeros (of either sign) just where they are wanted."""
    sign = 1 << (fmt.width - 1)
    values = draw(fmt, len(nonzero), random)
    values = np.where(values % sign == 0, 1, values)
    return _tensor(fmt, np.where(nonzero, values, random.integers(0, 2, len(nonzero)) * sign))


def corners(name: str, random: np.random.Generator, blocks: int) -> Tensor:
    """The corner blocks of ``CASES``, in random order, again and again."""
    fmt = lookup(name)
    cases = np.array([case(fmt) for case in CASES.values()], np.int64)
    return _tensor(fmt, cases[random.integers(0, len(cases), blocks)].reshape(-1))


def _cut(words, random):
    return words[:random.integers(1, len(words))] if len(words) > 1 else words[:0]


def _flipped(words, random):
    bit = np.uint64(1) << np.uint64(random.integers(64))
    flipped = words.copy()
    flipped[random.integers(len(words))] ^= bit
    return flipped


DAMAGES = {
    "truncated": _cut,
    "overlong": lambda words, random: np.concatenate(
        [words, random.integers(0, 1 << 64, random.integers(1, 100), np.uint64)]),
    "one bit flipped": _flipped,
    "some words wrong": lambda words, random: np.where(
        random.random(len(words)) < 0.2,
        random.integers(0, 1 << 64, len(words), np.uint64), words),
    "noise": lambda words, random: random.integers(0, 1 << 64, len(words), np.uint64),
    "padding not zero": lambda words, random: np.concatenate(
        [words[:-1], words[-1:] | np.uint64(1 << 63)]),
}
"""How a stream is damaged: (words, random) to words, of which there may then be none."""


def damaged(name: str, count: int, random: np.random.Generator
            ) -> Iterator[tuple[str, np.ndarray, int, Tensor]]:
    """Damaged streams: what was done, the words, the number of blocks, and what was compressed."""
    kinds = list(DAMAGES)
    while count:
        x = random_blocks(name, int(random.integers(1, 5)), random.choice([0, .3, .8, .9, 1]),
                          random)
        packed = compress(x, BLOCK)
        kind = kinds[count % len(kinds)]
        words = DAMAGES[kind](packed.words.numpy(), random)
        if len(words):
            count -= 1
            yield kind, words, packed.blocks, x


@dataclass(frozen=True)
class CodecRun:
    """What became of a tensor: its words, and what differed (nothing, if all is well)."""

    plain_words: int
    packed_words: int
    compress_cycles: int
    decompress_cycles: int
    faults: tuple[str, ...]


class NativeCodec:
    """Both units, compiled; use it as a context manager."""

    def __init__(self, config: Configuration, folder: str | Path | None = None,
                 block: int = BLOCK) -> None:
        self.block = block
        if block != config.zce.block:   # which no configuration says: these units are apart
            zce = config.zce.model_copy(update={"block": block})
            config = config.model_copy(update={"zce": zce})
        self.compressor = NativeUnit.of("compressor", config, folder)
        self.decompressor = NativeUnit.of("decompressor", config, folder)

    def __enter__(self) -> "NativeCodec":
        return self

    def __exit__(self, *exception: object) -> None:
        self.compressor.close()
        self.decompressor.close()

    def check(self, x: Tensor, **options) -> CodecRun:
        """Compress and decompress; compare bits with the golden model, and cycles with theirs.

        With ``stalls`` among the options, which are those of ``NativeUnit.run``, no cycles. Of
        blocks shorter than 64 the compressor's may differ by as much as its model says.
        """
        fmt, golden = format_of(x), compress(x, self.block)
        operation = CodecOperation.const({"format": fmt.code, "blocks": golden.blocks}).as_bits()
        plain = np.array(plain_words(x, self.block), np.uint64)
        packed = _with_last(golden.words.numpy())
        first = self.compressor.run({"i_operation": [operation], "i": plain}, {"o": len(packed)},
                                    **options)
        second = self.decompressor.run({"i_operation": [operation], "i": packed},
                                       {"o": len(plain)}, **options)
        nonzero = x.float() != 0
        cycles = [run.span("i_operation", "o") - 1 for run in (first, second)]
        faults = []
        if not np.array_equal(first.outputs["o"], packed):
            faults.append("the bit stream")
        if not np.array_equal(second.outputs["o"], _with_last(_positive_zeros(plain, fmt))):
            faults.append("the elements")
        if not options:
            model = compress_cycles(nonzero, fmt.width, self.block)
            if abs(cycles[0] - model) > (0 if self.block == 64 else 3 + model / 500):
                faults.append("the compressor's cycles")
            if cycles[1] != decompress_cycles(nonzero, fmt.width, self.block):
                faults.append("the decompressor's cycles")
        return CodecRun(len(plain), len(packed), *cycles, tuple(faults))

    def check_damaged(self, fmt: Format, words: np.ndarray, blocks: int, patience: int = 2_000
                      ) -> tuple[str, tuple[str, ...]]:
        """Decompress what may be no stream: the outcome, and what is wrong with it (or nothing).

        The outcome is ``"error"`` or ``"decoded"``. The words are those of the golden model; all
        of the stream is taken; nothing more comes.
        """
        plain, good = read_stream(torch.from_numpy(words), blocks, fmt.width, self.block)
        if len(plain) < blocks * self.block * fmt.width // 64:
            plain.append(0)
        expected = _with_last(np.array(plain, np.uint64))
        expected[-1, 1] |= np.uint64((not good) << PlainWord["error"].offset - 64)
        operation = CodecOperation.const({"format": fmt.code, "blocks": blocks}).as_bits()
        unit = self.decompressor
        faults = []
        try:
            run = unit.run({"i_operation": [operation], "i": _with_last(words)},
                           {"o": len(expected)}, patience=patience)
            if not np.array_equal(run.outputs["o"], expected):
                faults.append("the words")
            unit.run({}, patience=patience)     # whatever is left is taken
            faults += self._one_more(patience=2 * RING_DEPTH)
        except SimulationError as error:
            faults.append(str(error))
            unit.reset()
        return "decoded" if good else "error", tuple(faults)

    def _one_more(self, patience: int) -> list[str]:
        """Wait, also until what was taken is dropped; a fault if a word comes."""
        try:
            self.decompressor.run({}, {"o": 1}, patience=patience)
        except SimulationError:
            return []
        return ["a word too many"]


def _with_last(words: np.ndarray) -> np.ndarray:
    """Payloads [n, 2] of words, ``last`` with the last."""
    payloads = np.zeros((len(words), 2), np.uint64)
    payloads[:, 0] = words
    payloads[-1, 1] = 1
    return payloads


def _positive_zeros(words: np.ndarray, fmt: Format) -> np.ndarray:
    elements = words.view({8: np.uint8, 16: np.uint16, 32: np.uint32}[fmt.width])
    return np.where(elements == 1 << (fmt.width - 1), 0, elements).astype(elements.dtype).view(
        np.uint64)
