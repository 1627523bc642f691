"""Bench of the decompressor: elements and cycles against the golden model, damaged streams."""

import json
import os
import random
from itertools import product
from pathlib import Path

import cocotb
import torch

from ..hdl.formats import FORMATS
from ..hdl.layouts import CodecOperation, CodecWord, PlainWord
from ..host.codec import compress, decompress_cycles, read_stream
from .codec_cases import bulk, format_of, mixture
from .stalls import PATTERNS
from .streams import StreamSink, StreamSource, finish, start

BLOCK = json.loads(Path(os.environ["EXACTUM_DESCRIPTION"]).read_text())["parameters"]["block"]
SEED = int(os.environ.get("EXACTUM_SEED", "1"))


def payloads(fmt, words, blocks):
    """The operation, the words and the expected elements of one stream, good or damaged."""
    operation = CodecOperation.const({"format": fmt.code, "blocks": blocks})
    plain, good = read_stream(torch.tensor(words, dtype=torch.uint64), blocks, fmt.width, BLOCK)
    if len(plain) < blocks * BLOCK * fmt.width // 64:
        plain.append(0)
    stream = [CodecWord.const({"data": word, "last": i == len(words) - 1}).as_bits()
              for i, word in enumerate(words)]
    ends = [i == len(plain) - 1 for i in range(len(plain))]
    expected = [PlainWord.const({"data": word, "last": end, "error": end and not good}).as_bits()
                for word, end in zip(plain, ends, strict=True)]
    return operation.as_bits(), stream, expected


@cocotb.test()
@cocotb.parametrize(name=list(FORMATS))
async def corners_and_random_blocks_in_bulk(dut, name):
    await start(dut, limit=1_000_000)
    operations, source, sink = (StreamSource(dut, "i_operation"), StreamSource(dut, "i"),
                                StreamSink(dut, "o"))
    for x in bulk(name, BLOCK, SEED):
        golden = compress(x, BLOCK)
        operation, words, expected = payloads(format_of(x), golden.words.tolist(), golden.blocks)
        source.put(*words)
        operations.put(operation)
        assert await sink.take(len(expected)) == expected
        cycles = sink.stamps[-1] - operations.stamps[-1]
        assert cycles == decompress_cycles(x.float() != 0, format_of(x).width, BLOCK)
    await finish(operations, source, sink)


@cocotb.test()
@cocotb.parametrize(stalls=list(product(PATTERNS, PATTERNS)))
async def good_and_damaged_streams_under_stalls(dut, stalls):
    rng = random.Random(f"{SEED} {stalls}")
    await start(dut)
    operations = StreamSource(dut, "i_operation")
    source = StreamSource(dut, "i", PATTERNS[stalls[0]](SEED))
    sink = StreamSink(dut, "o", PATTERNS[stalls[1]](SEED + 1))
    everything = []
    for x in mixture(BLOCK, SEED):
        golden = compress(x, BLOCK)
        words = golden.words.tolist()
        damaged = rng.choice([words[:rng.randint(1, len(words))], [*words, *words[:3]],
                              [rng.getrandbits(64) for _ in words]])
        for item in (words, damaged):
            operation, stream, expected = payloads(format_of(x), item, golden.blocks)
            operations.put(operation)
            source.put(*stream)
            everything += expected
    assert await sink.take(len(everything)) == everything
    await source.sent()  # what follows an error is dropped
    await finish(operations, source, sink)
