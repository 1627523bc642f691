"""The golden codec: round trips, sizes, and the format bit by bit."""

import random
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exactum.benches.codec_cases import CASES, bits_to_tensor, tensor_of, zero_fraction
from exactum.gen.errors import UsageError
from exactum.hdl.formats import FORMATS, lookup
from exactum.host.codec import compress, compressed_bits, decompress, plain_words, read_stream


def patterns(x):
    """Bit patterns of a tensor, as ints."""
    width = 8 * x.element_size()
    integers = {8: torch.int8, 16: torch.int16, 32: torch.int32}[width]
    return [v % (1 << width) for v in x.reshape(-1).view(integers).tolist()]


def positive_zeros(x):
    """Bit patterns of a tensor, -0 as +0."""
    return [0 if p == 1 << (8 * x.element_size() - 1) else p for p in patterns(x)]


def stream_by_hand(elements, width, block):
    """The format of docs/zce.md as one big int and its number of bits, element by element."""
    stream = position = 0

    def append(value, bits):
        nonlocal stream, position
        stream |= value << position
        position += bits

    for at in range(0, len(elements), block):
        part = (elements[at:at + block] + [0] * block)[:block]
        nonzero = [e for e in part if e]
        sparse = block + len(nonzero) * width < block * width
        append(int(sparse), 1)
        if sparse:
            append(sum((e != 0) << i for i, e in enumerate(part)), block)
        for element in nonzero if sparse else part:
            append(element, width)
    return stream, position


def check(x, block=64):
    """Compress, compare with the format by hand, decompress, compare with the tensor."""
    packed = compress(x, block)
    width = packed.element_width
    stream, bits = stream_by_hand(positive_zeros(x), width, block)
    assert sum(w << 64 * i for i, w in enumerate(packed.words.tolist())) == stream
    assert len(packed.words) == -(-bits // 64)
    assert compressed_bits(x.float() != 0, width, block) == bits
    back = decompress(packed)
    assert (back.shape, back.dtype) == (x.shape, x.dtype)
    assert patterns(back) == positive_zeros(x)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", CASES)
def test_corner_blocks(name, case):
    check(tensor_of(name, CASES[case]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(FORMATS)), st.integers(0, 300), st.floats(0, 1),
       st.integers(0, 1000), st.sampled_from([8, 16, 32, 64]))
def test_round_trip(name, elements, zeros, seed, block):
    check(zero_fraction(name, elements, zeros, seed), block)


@pytest.mark.parametrize("name", ["e4m3", "bf16", "fp32"])
def test_every_pattern_of_zeros_in_a_block_of_eight(name):
    sign = 1 << (lookup(name).width - 1)
    for mask in product((0, 1), repeat=8):
        check(bits_to_tensor(name, [sign | 5 if bit else 0 for bit in mask]), 8)


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_every_8_bit_value_survives(name):
    check(bits_to_tensor(name, range(256)))
    check(bits_to_tensor(name, [v for p in range(256) for v in (p, 0, 0, 0)]))


def test_shapes_and_strides_come_back():
    x = zero_fraction("bf16", 7 * 11 * 5, 0.6).reshape(7, 11, 5)
    for view in (x, x.transpose(0, 2), x[:, ::2], x[0, 0, 0], x[:0]):
        back = decompress(compress(view))
        assert back.shape == view.shape
        assert patterns(back) == positive_zeros(view.contiguous())


def test_the_example_of_the_documentation():
    x = torch.zeros(64).to(torch.float8_e4m3fn)
    x[0], x[9] = 1.0, -2.0
    packed = compress(x)
    assert [f"{w:016x}" for w in packed.words.tolist()] == ["0000000000000403", "0000000000018070"]
    assert compressed_bits(x.float() != 0, 8) == 81


def test_damaged_streams_are_refused():
    packed = compress(zero_fraction("fp16", 200, 0.5))
    words = packed.words.tolist()
    rng = random.Random(1)
    for damaged in (words[:-1], words[:1], [*words, 0], [*words[:-1], words[-1] | 1 << 63]):
        stream = torch.tensor(damaged, dtype=torch.uint64)
        assert not read_stream(stream, packed.blocks, 16)[1]
        with pytest.raises(UsageError, match="X215"):
            decompress(type(packed)(words=stream, blocks=packed.blocks, element_width=16, block=64,
                                    shape=packed.shape, dtype=packed.dtype))
    for _ in range(200):  # never anything but words and a verdict
        noise = torch.tensor([rng.getrandbits(64) for _ in range(rng.randint(0, 20))],
                             dtype=torch.uint64)
        plain, _ = read_stream(noise, 3, rng.choice((8, 16, 32)))
        assert all(0 <= word < 2**64 for word in plain)


def test_plain_words_hold_whole_blocks():
    words = plain_words(zero_fraction("fp32", 65, 0))
    assert len(words) == 64
    assert words[32] >> 32 == 0


def test_a_tensor_of_no_format_is_refused():
    with pytest.raises(UsageError, match="float64"):
        compress(torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("block", [0, 7, 24, 128, -8, 8.0, "64", True, None])
def test_illegal_blocks_are_refused(block):
    with pytest.raises(UsageError, match=r"X207: block is 8, 16, 32 or 64 elements; got ") as error:
        compress(torch.zeros(64), block)
    assert repr(block) in str(error.value)
