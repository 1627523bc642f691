"""Bench of the compressor: words and cycles against the golden model, in bulk."""

import json
import os
from itertools import product
from pathlib import Path

import cocotb

from ..hdl.formats import FORMATS
from ..hdl.layouts import CodecOperation, CodecWord
from ..host.codec import compress, compress_cycles, plain_words
from .codec_cases import bulk, format_of, mixture
from .stalls import PATTERNS
from .streams import StreamSink, StreamSource, finish, start

BLOCK = json.loads(Path(os.environ["EXACTUM_DESCRIPTION"]).read_text())["parameters"]["block"]
SEED = int(os.environ.get("EXACTUM_SEED", "1"))


def payloads(x):
    """The operation, the words of elements and the expected words of one tensor."""
    golden = compress(x, BLOCK)
    words = golden.words.tolist()
    operation = CodecOperation.const({"format": format_of(x).code, "blocks": golden.blocks})
    expected = [CodecWord.const({"data": word, "last": i == len(words) - 1}).as_bits()
                for i, word in enumerate(words)]
    return operation.as_bits(), plain_words(x, BLOCK), expected


@cocotb.test()
@cocotb.parametrize(name=list(FORMATS))
async def corners_and_random_blocks_in_bulk(dut, name):
    await start(dut, limit=1_000_000)
    operations, source, sink = (StreamSource(dut, "i_operation"), StreamSource(dut, "i"),
                                StreamSink(dut, "o"))
    for x in bulk(name, BLOCK, SEED):
        operation, words, expected = payloads(x)
        source.put(*words)
        operations.put(operation)
        assert await sink.take(len(expected)) == expected
        cycles = sink.stamps[-1] - operations.stamps[-1]
        assert cycles == compress_cycles(x.float() != 0, format_of(x).width, BLOCK)
    await finish(operations, source, sink)


@cocotb.test()
@cocotb.parametrize(stalls=list(product(PATTERNS, PATTERNS)))
async def operations_back_to_back_under_stalls(dut, stalls):
    await start(dut)
    operations = StreamSource(dut, "i_operation")
    source = StreamSource(dut, "i", PATTERNS[stalls[0]](SEED))
    sink = StreamSink(dut, "o", PATTERNS[stalls[1]](SEED + 1))
    everything = []
    for x in mixture(BLOCK, SEED):
        operation, words, expected = payloads(x)
        operations.put(operation)
        source.put(*words)
        everything += expected
    assert await sink.take(len(everything)) == everything
    await finish(operations, source, sink)
