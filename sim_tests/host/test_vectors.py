"""What the host knows of operands from their bit patterns: zeros, specials, anchors, scales."""

import pytest
import torch

from exactum.hdl.formats import BF16, E4M3, FORMATS, FP16, FP32
from exactum.host import vectors as module
from exactum.host.vectors import anchors, factor, is_finite, is_nonzero, vectors
from sim_tests.oracle import NAN, decode, exponent_of, is_zero


@pytest.mark.parametrize("fmt", [E4M3, FORMATS["e5m2"], FP16, BF16], ids=lambda f: f.name)
def test_predicates_and_anchors_are_those_of_the_oracle(fmt):
    bits = torch.arange(0, 1 << fmt.width, 1 if fmt.width == 8 else 37)
    values = [decode(x, fmt) for x in bits.tolist()]
    assert is_nonzero(bits, fmt).tolist() == [not is_zero(x, fmt) for x in bits.tolist()]
    assert is_finite(bits, fmt).tolist() == [v != NAN and abs(v) != float("inf") for v in values]
    expected = [fmt.min_exponent if (e := exponent_of(x, fmt)) is None else e
                for x in bits.tolist()]
    assert anchors(bits[:, None], 1, fmt, False).tolist() == expected
    assert anchors(bits[:, None], 1, fmt, True).tolist() == [fmt.max_exponent] * len(bits)


def test_an_anchor_is_the_largest_of_its_row_or_column():
    one = FP32.bias << 23
    bits = torch.tensor([[one, one + (5 << 23), FP32.nan_bits], [0, 1, FP32.infinity_bits]])
    assert anchors(bits, 1, FP32, False).tolist() == [5, -126]
    assert anchors(bits, 0, FP32, False).tolist() == [0, 5, -126]
    assert anchors(bits[:, :0], 1, FP32, False).tolist() == [-126, -126]


def test_a_factor_says_where_there_are_zeros_and_specials():
    bits = torch.tensor([[0, 0x80, 0x7F], [1, 0, 0x38]])
    found = factor(bits, E4M3)
    assert found.nonzero.mask.tolist() == [[False, False, True], [True, False, True]]
    assert found.special.tolist() == [[False, False, True], [False, False, False]]
    assert factor(bits[1:], E4M3).special is None


def selected(is_scaled=False):
    one = BF16.bias << 7
    bits = torch.tensor([[one, one + (40 << 7), one], [one, one, 0]])
    scales = torch.tensor([[130], [120]], dtype=torch.uint8)
    found = vectors(bits, BF16, scales if is_scaled else None, block=32, is_scaled=is_scaled,
                    is_fixed=False)
    return found, found.select(torch.tensor([True, True]), torch.tensor([True, False, True]))


@pytest.mark.parametrize(("is_scaled", "expected"), [(False, [40, 0]), (True, [43, -7])])
def test_anchors_stay_those_of_whole_rows(is_scaled, expected):
    """Rule N4: an index that is not sent still counts."""
    whole, some = selected(is_scaled)
    assert whole.anchors.tolist() == some.anchors.tolist() == expected
    assert some.bits.shape == (2, 2)
    assert (some.powers is None) == (not is_scaled)


@pytest.mark.parametrize(("is_fixed", "anchor"), [(True, 127), (False, -126)])
def test_padding_is_zeros_at_the_anchor_of_an_empty_row(is_fixed, anchor):
    whole = vectors(torch.ones(3, 2, dtype=torch.int64), BF16, None, block=32, is_scaled=False,
                    is_fixed=is_fixed)
    found = whole.padded(4)
    assert found.bits.tolist() == [[1, 1]] * 3 + [[0, 0]]
    assert found.anchors.tolist()[3] == anchor == anchors(found.bits[3:], 1, BF16, is_fixed)


def test_the_tests_catch_anchors_of_what_is_sent(monkeypatch):
    """A fault: the windows are those of the indices that are sent."""
    select = module.Vectors.select

    def selecting(self, rows, inner):
        some = select(self, rows, inner)
        return some._replace(anchors=anchors(some.bits, 1, some.fmt, False, some.powers))

    monkeypatch.setattr(module.Vectors, "select", selecting)
    with pytest.raises(AssertionError):
        test_anchors_stay_those_of_whole_rows(False, [40, 0])
