"""A compiled unit fed from Python: bits, cycles, stalls, what stays queued, and bad requests.

The unit is the compressor: three streams, one of them wider than 64 bits.
"""

import itertools
import re

import numpy as np
import pytest
import torch

from exactum.benches.codec_cases import bulk, format_of, mixture
from exactum.benches.stalls import PATTERNS
from exactum.gen.config import preset
from exactum.gen.errors import DeviceError, SimulationError, UsageError
from exactum.gen.native_tools import BACKENDS
from exactum.hdl.layouts import CodecOperation, CodecWord
from exactum.host.codec import compress, compress_cycles, plain_words
from exactum.host.native import NativeUnit, pack
from sim_tests.repository import ROOT

CACHE = ROOT / "build" / "native"
CONFIG = preset("tiny")
BLOCK = CONFIG.zce.block
INSTALLED = [name for name, backend in BACKENDS.items() if backend.version()]


def compiled(backend=None):
    return NativeUnit.of("compressor", CONFIG, CACHE, backend)


@pytest.fixture
def unit():
    with compiled() as found:
        yield found


def words_of(x):
    """The operation, the words of elements and the expected words of one tensor."""
    golden = compress(x, BLOCK)
    words = golden.words.tolist()
    operation = CodecOperation.const({"format": format_of(x).code, "blocks": golden.blocks})
    expected = pack([CodecWord.const({"data": word, "last": i == len(words) - 1}).as_bits()
                     for i, word in enumerate(words)], CodecWord.size)
    return operation.as_bits(), plain_words(x, BLOCK), expected


def several():
    """Some tensors' words, one after the other."""
    operations, words, expected = zip(*map(words_of, mixture(BLOCK, 1)), strict=True)
    return list(operations), list(itertools.chain(*words)), np.concatenate(expected)


@pytest.mark.parametrize("backend", INSTALLED)
def test_bits_and_cycles_are_those_of_the_golden_model(backend):
    with compiled(backend) as unit:
        assert re.fullmatch(rf"{backend} \d+\.\d\S+", unit.backend)
        for name in ("e4m3", "fp32"):
            for x in bulk(name, BLOCK, 2):
                operation, words, expected = words_of(x)
                run = unit.run({"i_operation": [operation], "i": words}, {"o": len(expected)})
                assert np.array_equal(run.outputs["o"], expected)
                cycles = compress_cycles(x.float() != 0, format_of(x).width, BLOCK)
                assert run.span("i_operation", "o") == cycles + 1
                assert run.accepted == {"i_operation": 1, "i": len(words)}


@pytest.mark.parametrize("backend", INSTALLED)
def test_stalls_change_the_cycles_and_nothing_else(backend):
    operations, words, expected = several()
    with compiled(backend) as unit:
        free = unit.run({"i_operation": operations, "i": words}, {"o": len(expected)}).cycles
        for source, sink in itertools.product(PATTERNS, repeat=2):
            stalls = {name: list(itertools.islice(PATTERNS[pattern](seed), 4096))
                      for seed, (name, pattern) in enumerate(
                          {"i_operation": source, "i": source, "o": sink}.items())}
            run = unit.run({"i_operation": operations, "i": words}, {"o": len(expected)},
                           stalls=stalls)
            assert np.array_equal(run.outputs["o"], expected)
            assert (run.cycles > free) is ((source, sink) != ("flowing", "flowing"))


def test_a_stream_that_always_stalls_but_once_takes_that_long(unit):
    operations, words, expected = several()
    stalls = {"i": [True] * 9 + [False]}
    run = unit.run({"i_operation": operations, "i": words}, {"o": len(expected)}, stalls=stalls)
    assert run.last["i"] - run.first["i"] == 10 * (len(words) - 1)
    assert np.array_equal(run.outputs["o"], expected)


def test_what_is_not_accepted_stays_queued_and_the_state_goes_on(unit):
    operations, words, expected = several()
    unit.run({"i_operation": operations[:1]})
    unit.run({"i": words[:3]})
    rest = pack(words[3:], 64)
    found = [unit.run({"i_operation": operations[1:], "i": rest}, {"o": 1}).outputs["o"]]
    rest[:] = 0
    assert unit.pending["i"] > len(words) // 2
    found += [unit.run({}, {"o": 1}).outputs["o"] for _ in expected[1:]]
    assert np.array_equal(np.concatenate(found), expected)
    assert set(unit.pending.values()) == {0}
    cycle = unit.cycle
    with pytest.raises(SimulationError, match="o gave 0 of 1"):
        unit.run({}, {"o": 1}, patience=50)
    assert unit.cycle == cycle + 50


def test_a_run_without_progress_says_how_far_the_streams_got(unit):
    operation, words, expected = words_of(torch.ones(2 * BLOCK))
    with pytest.raises(SimulationError, match=r"X504: compressor: nothing was transferred in 100 "
                       rf"cycles: o gave {len(expected)} of {len(expected) + 1}, i left 5 waiting"):
        unit.run({"i_operation": [operation], "i": words + [0] * 5}, {"o": len(expected) + 1},
                 patience=100)
    with pytest.raises(SimulationError, match="20 cycles are over"):
        unit.run({"i_operation": [operation]}, {"o": 1000}, limit=20)
    unit.reset()
    assert unit.cycle == 0
    run = unit.run({"i_operation": [operation], "i": words}, {"o": len(expected)})
    assert np.array_equal(run.outputs["o"], expected)
    assert unit.cycle == run.cycles


def test_two_units_are_apart():
    operations, words, expected = several()
    with compiled() as one, compiled() as other:
        one.run({"i_operation": operations, "i": words}, {"o": 3})
        run = other.run({"i_operation": operations, "i": words}, {"o": len(expected)})
        assert np.array_equal(run.outputs["o"], expected)
        rest = one.run({}, {"o": len(expected) - 3})
        assert np.array_equal(rest.outputs["o"], expected[3:])


@pytest.mark.parametrize(("arguments", "options", "words"), [
    (({"x": [1]},), {}, "X206: an input stream of compressor is one of .*; got 'x'"),
    (({"o": [1]},), {}, "X206: an input stream"),
    (({}, {"i": 1}), {}, "X206: an output stream of compressor is one of o; got 'i'"),
    (({}, {"o": -1}), {}, "X207: a count of items is 0 or more; got -1 of o"),
    (({"i": np.zeros((2, 2), np.uint64)},), {}, r"X202: items of i \(64 bits\) .*\[2, 2\]"),
    (({"i": np.zeros(2, np.int64)},), {}, "X202: .*got int64"),
    (({"i_operation": [1], "i": np.zeros(2, np.int64)},), {}, "X202: .*got int64"),
    (({"i": [1], "i_operation": [1 << 27]},), {}, "X207: an item of i_operation has at most 27"),
    (({"i": [1 << 64]},), {}, r"X207: an item of 64 bits is 0 to 2\^64 - 1"),
    (({"i": [-1]},), {}, "X207"),
    (({},), {"stalls": {"z": [False]}}, "X206: a stream of compressor .*; got 'z'"),
    (({},), {"stalls": {"o": [True, True]}}, "X207: a stall pattern of o"),
    (({},), {"stalls": {"o": []}}, "X207: a stall pattern of o"),
])
def test_bad_requests_change_nothing(unit, arguments, options, words):
    with pytest.raises(UsageError, match=words):
        unit.run(*arguments, **options)
    assert unit.cycle == 0
    assert set(unit.pending.values()) == {0}


def test_a_closed_unit_says_so(unit):
    unit.close()
    unit.close()
    for call in (unit.reset, lambda: unit.cycle, lambda: unit.run({})):
        with pytest.raises(DeviceError, match="X403"):
            call()


def test_what_is_no_library_cannot_be_loaded(tmp_path):
    (tmp_path / "unit.so").write_bytes(b"not a library")
    with pytest.raises(DeviceError, match=r"X401: .*unit\.json"):
        NativeUnit(tmp_path / "unit.so")
    (tmp_path / "unit.json").write_text("{}")
    with pytest.raises(DeviceError, match=r"X401: the compiled unit .*unit\.so cannot be loaded"):
        NativeUnit(tmp_path / "unit.so")


def test_payloads_are_packed_low_word_first():
    assert pack([3, (1 << 64) - 1], 64).tolist() == [3, (1 << 64) - 1]
    assert pack([(5 << 64) | 7, 1], 65).tolist() == [[7, 5], [1, 0]]
    assert pack([], 130).shape == (0, 3)
