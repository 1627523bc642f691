"""The oracle itself, against ml_dtypes and by hand: whoever judges must be judged."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from exactum.hdl.formats import BF16, E4M3, E5M2, FORMATS, FP16, FP32
from sim_tests.oracle import NAN, decode, dot, encode

DTYPES = {E4M3.name: ml_dtypes.float8_e4m3fn, E5M2.name: ml_dtypes.float8_e5m2,
          FP16.name: np.float16, BF16.name: ml_dtypes.bfloat16}
ONE = {f.name: f.bias << f.mantissa_width for f in FORMATS.values()}


@pytest.mark.parametrize("name", DTYPES)
def test_decode_equals_ml_dtypes_on_every_pattern(name):
    fmt = FORMATS[name]
    patterns = np.arange(1 << fmt.width, dtype=np.uint8 if fmt.width == 8 else np.uint16)
    with np.errstate(invalid="ignore"):  # bf16's signalling NaNs
        expected = patterns.view(DTYPES[name]).astype(np.float64)
    for bits, value in zip(patterns.tolist(), expected.tolist(), strict=True):
        ours = decode(bits, fmt)
        assert (ours == NAN) if value != value else (ours == value)


@pytest.mark.parametrize("name", DTYPES)
def test_encode_equals_ml_dtypes_on_random_and_midway_values(name):
    fmt = FORMATS[name]
    generator = np.random.default_rng(1)
    values = (generator.standard_normal(4000) * 2.0 ** generator.integers(-30, 18, 4000))
    grid = np.arange(fmt.max_finite_bits, dtype=np.uint8 if fmt.width == 8 else np.uint16)
    grid = generator.permutation(grid.view(DTYPES[name]).astype(np.float64))[:2000]
    values = np.concatenate([values, grid, grid * (1 + 2.0**-(fmt.mantissa_width + 2))])
    values = values.astype(np.float32)
    with np.errstate(over="ignore"):
        expected = values.astype(DTYPES[name])
    expected = expected.view(np.uint8 if fmt.width == 8 else np.uint16)
    for value, bits in zip(values.tolist(), expected.tolist(), strict=True):
        if value != 0 and abs(value) < 2.0**126:
            ours = encode(Fraction(value), fmt, "overflow")
            assert ours == bits or decode(bits, fmt) == NAN == decode(ours, fmt)


def test_rules_by_hand():
    one = ONE["e4m3"]
    assert dot([], [], (E4M3, E4M3), result=FP32) == (0, False)
    assert dot([one, one | 0x80], [one, one], (E4M3, E4M3), result=FP32) == (0, False)
    assert dot([0x7F], [0], (E4M3, E4M3), result=FP32)[0] == 0x7FC00000
    assert dot([E5M2.infinity_bits], [0], (E5M2, E4M3), result=FP32)[0] == 0x7FC00000
    assert dot([E5M2.infinity_bits], [one], (E5M2, E4M3), result=FP32)[0] == 0x7F800000
    assert dot([E5M2.infinity_bits], [one], (E5M2, E4M3), result=E4M3)[0] == 0x7E
    huge, tiny = 0x7F000000, 0x00800000
    bits, lost = dot([huge, tiny], [huge, tiny], (FP32, FP32), result=FP32)
    assert (bits, lost) == (0x7F800000, True)
    assert dot([1], [ONE["bf16"]], (FP32, BF16), result=FP32) == (1, False)


def test_products_are_dropped_toward_zero_one_by_one():
    one, small = ONE["fp32"], (127 - 20) << 23
    minus_small = small | 1 << 31
    narrow = {"accumulator_width": 24, "max_k": 64}
    # The window ends at 2^(0 + 3 + 6 - 24) = 2^-15: both small products vanish, of either sign.
    assert dot([one, small], [one, one], (FP32, FP32), result=FP32, **narrow) == (one, True)
    assert dot([one, minus_small], [one, one], (FP32, FP32), result=FP32, **narrow) == (one, True)
