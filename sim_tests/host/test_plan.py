"""The words of a product: anchors, packing, pieces, and the way back to a matrix."""

import itertools

import pytest
import torch

from exactum.gen.config import preset
from exactum.hdl.formats import BF16, E4M3, FORMATS, FP16, FP32
from exactum.hdl.layouts import Operation, Result
from exactum.host.plan import anchors, is_finite, is_nonzero, pieces, plan_gemm
from sim_tests.oracle import NAN, decode, exponent_of, is_zero

CONFIG = preset("small").replace({"vpcu.lanes": 2, "vpcu.b_depth": 64})


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


@pytest.mark.parametrize(("k", "expected"), [(0, [(0, 0)]), (1, [(0, 1)]), (64, [(0, 64)]),
                                             (130, [(0, 64), (64, 128), (128, 130)])])
def test_pieces_cover_k(k, expected):
    assert pieces(k, 64) == expected


def test_values_are_packed_row_by_row_and_masks_say_where_they_go():
    a = torch.zeros(2, 66, dtype=torch.int64)
    a[0, 1], a[0, 64], a[1, 65], a[1, 3] = 0x11, 0x22, 0x33, 0x80  # the last one is -0
    plan = plan_gemm(a, torch.ones(66, 1, dtype=torch.int64), ("e4m3", "e4m3"), "fp32",
                     config=CONFIG.replace({"vpcu.b_depth": 128}))
    assert plan.values == [0x2211, 0x33]
    assert plan.masks == [2, 1, 0, 2]
    assert plan.rows == [8, 8]
    operation, = (Operation.from_bits(item) for item in plan.operations)
    assert (operation.rows, operation.k, operation.keep, operation.drain) == (2, 66, 0, 1)
    assert plan.b[:4] == [0x0008_0008_0008_0008] * 2 + [1, 0]


def test_pieces_keep_the_sums_and_drain_at_the_end():
    a = torch.full((2, 130), 0x3F80)
    plan = plan_gemm(a, torch.full((130, 9), 0x3F80), ("bf16", "bf16"), "fp16", config=CONFIG,
                     exponent=-4)
    found = [Operation.from_bits(item) for item in plan.operations]
    assert [(o.k, o.keep, o.drain, o.rows, o.exponent) for o in found] == [
        (64, 0, 0, 1, -4), (64, 1, 0, 1, -4), (2, 1, 1, 1, -4)] * 4
    assert len(plan.b) == 4 * (3 * 2 + 130 * 2)
    assert (len(plan.rows), len(plan.masks), len(plan.values)) == (12, 12, 4 * (16 + 16 + 1))


@pytest.mark.parametrize("formats", [*itertools.product(("e4m3", "fp32"), repeat=2)],
                         ids="-".join)
def test_results_come_back_to_their_places(formats):
    m, n = 3, 11
    plan = plan_gemm(torch.zeros(m, 2, dtype=torch.int64), torch.zeros(2, n, dtype=torch.int64),
                     formats, "fp32", config=CONFIG)
    columns = 2 if "fp32" in formats else 8
    items = [Result.const({"data": 100 * row + start + column, "lost": row == 1}).as_bits()
             for start in range(0, n, columns) for row in range(m) for column in range(columns)]
    assert plan.results == len(items)
    bits, lost = plan.gather(items)
    assert bits.tolist() == [[100 * row + column for column in range(n)] for row in range(m)]
    assert lost.tolist() == [[row == 1] * n for row in range(m)]


@pytest.mark.parametrize(("m", "n"), [(0, 3), (3, 0)])
def test_an_empty_product_sends_nothing(m, n):
    plan = plan_gemm(torch.zeros(m, 4, dtype=torch.int64), torch.zeros(4, n, dtype=torch.int64),
                     ("e4m3", "fp16"), "fp32", config=CONFIG)
    assert (plan.operations, plan.b, plan.rows, plan.masks, plan.values) == ([],) * 5
    bits, lost = plan.gather([])
    assert bits.shape == lost.shape == (m, n)
