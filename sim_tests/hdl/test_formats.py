"""The format table against torch's own, and against the published bit patterns."""

import pytest
import torch

from exactum.hdl.formats import BF16, E4M3, E5M2, FORMATS, FP16, FP32, FormatCode, lookup

INTEGERS = {8: torch.uint8, 16: torch.int16, 32: torch.int32}


def value_of(bits: int, fmt) -> float:
    pattern = torch.tensor([bits], dtype=INTEGERS[fmt.width])
    return pattern.view(getattr(torch, fmt.torch_name)).item()


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
def test_table_agrees_with_torch_finfo(fmt):
    info = torch.finfo(getattr(torch, fmt.torch_name))
    assert info.bits == fmt.width
    assert value_of(fmt.max_finite_bits, fmt) == info.max
    assert 2.0**fmt.min_exponent == info.tiny
    assert info.max / 2 < 2.0**fmt.max_exponent <= info.max
    assert value_of(1, fmt) == 2.0 ** (fmt.min_exponent - fmt.mantissa_width)


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
def test_special_patterns_mean_what_they_say(fmt):
    nan = value_of(fmt.nan_bits, fmt)
    assert nan != nan
    if fmt.ieee:
        assert value_of(fmt.infinity_bits, fmt) == float("inf")


def test_canonical_patterns_are_the_documented_ones():
    assert FP32.nan_bits == 0x7FC00000
    assert (FP16.nan_bits, BF16.nan_bits, E5M2.nan_bits, E4M3.nan_bits) == (
        0x7E00, 0x7FC0, 0x7E, 0x7F)


def test_e4m3_has_no_infinity():
    with pytest.raises(ValueError, match="e4m3 has no infinity"):
        _ = E4M3.infinity_bits


def test_codes_are_distinct_and_complete():
    assert {f.code for f in FORMATS.values()} == set(FormatCode)


@pytest.mark.parametrize("name", ["fp8", "", None, 7])
def test_unknown_format_names_the_legal_ones(name):
    with pytest.raises(ValueError, match="one of e4m3, e5m2, fp16, bf16, fp32; got"):
        lookup(name)
