"""The compiled compression units against the golden model: bits, cycles, rates, damaged streams."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from exactum.benches.codec_cases import format_of
from exactum.benches.codec_sweep import (
    DAMAGES,
    NativeCodec,
    corners,
    damaged,
    random_blocks,
)
from exactum.benches.stalls import PATTERNS
from exactum.gen.config import preset
from exactum.gen.errors import SimulationError
from exactum.hdl.formats import FORMATS, lookup
from exactum.hdl.layouts import CodecOperation, CodecWord
from exactum.host.codec import compress, plain_words
from exactum.host.native import pack
from sim_tests.repository import ROOT

DENSITIES = (0, 0.02, 0.3, 0.63, 0.8, 0.84, 0.9, 0.98, 1)


@pytest.fixture(scope="module")
def codec():
    with NativeCodec(preset("default"), ROOT / "build" / "native") as units:
        yield units


@pytest.mark.parametrize("name", FORMATS)
def test_bits_and_cycles_are_those_of_the_models(codec, name):
    random = np.random.default_rng(1)
    parts = [random_blocks(name, blocks, density, random)
             for density in DENSITIES for blocks in (1, 2, 40)]
    parts += [corners(name, random, 200)]
    # A stretch with many zeros lets much wait for the dense one behind it, which may then run out.
    parts += [torch.cat([random_blocks(name, blocks, density, random).view(torch.uint8)
                         for blocks, density in ((60, 0.1), (900, 1), (30, 0.9))])
              .view(parts[0].dtype)]
    assert [(x.numel(), found) for x in parts if (found := codec.check(x).faults)] == []


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("density", "loss"), [
    (0, 0), (0.3, 0), (0.63, 0), (0.8, 0), (0.98, 1 / 512), (1, 1 / 512)])
def test_a_word_of_elements_per_cycle(codec, name, density, loss):
    run = codec.check(random_blocks(name, 500, density, np.random.default_rng(2)))
    for cycles in (run.compress_cycles, run.decompress_cycles):
        assert cycles <= run.plain_words * (1 + loss) + 70  # the latency


@pytest.mark.parametrize("name", ["e4m3", "bf16", "fp32"])
def test_a_word_per_cycle_from_operation_to_operation(codec, name):
    random = np.random.default_rng(3)
    tensors = [random_blocks(name, 4, 0.7, random) for _ in range(20)]
    operation = CodecOperation.const({"format": lookup(name).code, "blocks": 4}).as_bits()
    plain = np.concatenate([np.array(plain_words(x), np.uint64) for x in tensors])
    packed = [compress(x).words.tolist() for x in tensors]
    stream = pack([CodecWord.const({"data": word, "last": i == len(words) - 1}).as_bits()
                   for words in packed for i, word in enumerate(words)], CodecWord.size)
    run = codec.compressor.run({"i_operation": [operation] * 20, "i": plain}, {"o": len(stream)})
    assert np.array_equal(run.outputs["o"], stream)
    assert run.cycles <= len(plain) + 70
    run = codec.decompressor.run({"i_operation": [operation] * 20, "i": stream},
                                 {"o": len(plain)})
    assert run.cycles <= len(plain) + 70


def test_no_stall_changes_a_bit(codec):
    random = np.random.default_rng(4)
    x = random_blocks("bf16", 60, 0.8, random)
    for source, sink in itertools.product(PATTERNS, repeat=2):
        stalls = {name: list(itertools.islice(PATTERNS[pattern](seed), 4096))
                  for seed, (name, pattern) in enumerate({"i": source, "o": sink}.items())}
        assert codec.check(x, stalls=stalls).faults == ()


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_streams_give_an_error_or_words_and_never_a_hang(codec, name):
    random = np.random.default_rng(5)
    outcomes = Counter()
    for kind, words, blocks, x in damaged(name, 300, random):
        outcome, faults = codec.check_damaged(format_of(x), words, blocks)
        assert faults == (), (kind, blocks, words.tolist())
        outcomes[kind, outcome] += 1
        if outcomes.total() % 20 == 0:
            assert codec.check(x).faults == ()  # the unit is idle, its cycles are the usual
    for kind in DAMAGES:
        assert outcomes[kind, "error"] > 0
    assert outcomes["one bit flipped", "decoded"] > 0


@pytest.mark.parametrize("name", ["e4m3", "fp16", "fp32"])
def test_a_reset_in_the_midst_leaves_nothing_behind(codec, name):
    """Most data registers are not reset: what says that their data count must be."""
    random = np.random.default_rng(6)
    x = random_blocks(name, 12, 0.8, random)
    fmt, packed = lookup(name), compress(x)
    operation = CodecOperation.const({"format": fmt.code, "blocks": 40}).as_bits()
    stream = pack(packed.words.tolist(), CodecWord.size)
    words = {codec.compressor: np.array(plain_words(x), np.uint64), codec.decompressor: stream}
    for cycles in range(1, 120):
        for unit, parts in words.items():
            with pytest.raises(SimulationError):
                unit.run({"i_operation": [operation] * 2, "i": parts}, {"o": 10_000}, limit=cycles)
            unit.reset()
        assert codec.check(random_blocks(name, 3, random.random(), random)).faults == (), cycles
