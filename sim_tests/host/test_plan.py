"""The words of a product: anchors, packing, pieces, and the way back to a matrix."""

import itertools

import pytest
import torch

from exactum.gen.config import preset
from exactum.hdl.formats import FORMATS
from exactum.hdl.layouts import AnchorWord, Operation, Result, mask_word
from exactum.host import vectors
from exactum.host.plan import plan_gemm
from exactum.host.tiling import pieces, tile_words
from sim_tests.oracle import exponent_of

PLAIN = {"orientation": "a", "compress": False}
CONFIG = preset("small").replace({"vpcu.lanes": 2, "vpcu.b_depth": 64, "vpcu.scale_block": 0})
SCALED = CONFIG.replace({"vpcu.scale_block": 32})


def test_values_are_packed_row_by_row_and_masks_say_where_they_go():
    a = torch.zeros(2, 66, dtype=torch.int64)
    a[0, 1], a[0, 64], a[1, 65], a[1, 3] = 0x11, 0x22, 0x33, 0x80  # the last one is -0
    plan = plan_gemm(a, torch.ones(66, 1, dtype=torch.int64), ("e4m3", "e4m3"), "fp32",
                     config=CONFIG.replace({"vpcu.b_depth": 128}), **PLAIN)
    assert plan.values == [0x2211, 0x33]
    assert plan.masks == [2, 1, 0, 2]
    assert plan.rows == [8, 8]
    operation, = (Operation.from_bits(item) for item in plan.operations)
    assert (operation.rows, operation.k, operation.keep, operation.drain) == (2, 66, 0, 1)
    assert plan.b[:4] == [0x0008_0008_0008_0008] * 2 + [1, 0]


def test_pieces_keep_the_sums_and_drain_at_the_end():
    a = torch.full((2, 130), 0x3F80)
    plan = plan_gemm(a, torch.full((130, 9), 0x3F80), ("bf16", "bf16"), "fp16", config=CONFIG,
                     exponent=-4, **PLAIN)
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
                     formats, "fp32", config=CONFIG, **PLAIN)
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
                     ("e4m3", "fp16"), "fp32", config=CONFIG, **PLAIN)
    assert (plan.operations, plan.b, plan.rows, plan.masks, plan.values) == ([],) * 5
    bits, lost = plan.gather([])
    assert bits.shape == lost.shape == (m, n)


def values_of(bits, scales, fmt, block):
    """Rows of exact values, and of exponents (None where there is none), [rows][k]."""
    powers = [[row[k // block] - 127 for k in range(bits.shape[1])] for row in scales]
    exponents = [[None if p == 128 or (e := exponent_of(x, fmt)) is None else e + p
                  for x, p in zip(row, shifts, strict=True)]
                 for row, shifts in zip(bits.tolist(), powers, strict=True)]
    return powers, exponents


@pytest.mark.parametrize("formats", [("e4m3", "e5m2"), ("bf16", "e4m3"), ("fp32", "fp16")],
                         ids="-".join)
@pytest.mark.parametrize("k", [0, 1, 64, 70, 130])
@pytest.mark.parametrize("block", [16, 32, 64])
def test_scaled_words_say_where_each_block_lies(formats, k, block):
    """Read the streams as docs/vpcu.md has them, and find anchors, scales and elements again."""
    config = CONFIG.replace({"vpcu.scale_block": block})
    random = torch.Generator().manual_seed(k + block)
    fmt_a, fmt_b = (FORMATS[name] for name in formats)
    a, b = (torch.randint(0, 1 << f.width, shape, generator=random) & ~(1 << f.mantissa_width)
            for f, shape in ((fmt_a, (2, k)), (fmt_b, (k, 3))))
    blocks = -(-k // block)
    scales = torch.randint(100, 140, (2, blocks), generator=random).to(torch.uint8), \
        torch.randint(100, 140, (blocks, 3), generator=random).to(torch.uint8)
    if blocks:
        scales[1][-1, 0] = 255
    plan = plan_gemm(a, b, formats, "fp32", config=config, scales=scales, **PLAIN)

    rows = values_of(a, scales[0].tolist(), fmt_a, block)
    columns = values_of(b.t(), scales[1].t().tolist(), fmt_b, block)
    anchors_a, anchors_b = (
        [max((e for e in row if e is not None), default=fmt.min_exponent) for row in exponents]
        for (_, exponents), fmt in ((rows, fmt_a), (columns, fmt_b)))
    cuts = pieces(k, 64)
    operations = [Operation.from_bits(item) for item in plan.operations]
    assert {o.scaled for o in operations} == {1}
    tiles = -(-3 // plan.columns)
    assert plan.rows == [x & 0xFFFF for x in anchors_a for _ in cuts] * tiles

    words, seen = iter(plan.b), 0
    per_lane = plan.columns // config.vpcu.lanes
    for index, operation in enumerate(operations):
        passes = max(1, len(operations) // tiles)
        start, (low, high) = index // passes * plan.columns, cuts[index % len(cuts)]
        kinds = ["column"]
        for place in range(low, high):
            kinds += ["block", place] if place % block == 0 else [place]
        place = low
        for kind in kinds:
            for column in range(start, start + plan.columns, per_lane):
                word, seen = next(words), seen + 1
                for n in range(column, min(3, column + per_lane)):
                    got = AnchorWord.from_bits(word)[n - column]
                    if kind == "column":
                        assert got == anchors_b[n]
                    elif kind == "block":
                        power = columns[0][n][place]
                        assert got == anchors_b[n] - (0 if power == 128 else power)
                    else:
                        unknown = columns[0][n][kind] == 128
                        width = 64 if per_lane == 1 else 16
                        element = word >> 16 * (n - column) & (1 << width) - 1
                        assert element == (fmt_b.nan_bits if unknown else b[kind, n])
            place = kind + 1 if isinstance(kind, int) else place
        assert operation.k == high - low
    assert seen == len(plan.b)
    assert seen == tiles * (2 if len(cuts) > 1 else 1) * sum(
        tile_words(config, high - low, True) for low, high in cuts)

    windows = max(1, -(-k // 64))
    masks = [mask_word(block).from_bits(item) for item in plan.masks[:2 * windows]]
    for place, word in enumerate(masks):
        row, window = divmod(place, windows)
        for part in range(64 // block):
            first = window * 64 // block + part
            assert word.scales[part] == (scales[0][row, first] if first < blocks else 127)


def test_a_nan_scale_of_a_makes_its_elements_nan():
    a = torch.zeros(2, 40, dtype=torch.int64)
    scales = torch.full((2, 2), 130, dtype=torch.uint8)
    scales[0, 1] = 255
    plan = plan_gemm(a, torch.ones(40, 1, dtype=torch.int64), ("e4m3", "e4m3"), "fp32",
                     config=SCALED, scales=(scales, None), **PLAIN)
    words = [mask_word(32).from_bits(item) for item in plan.masks]
    assert [(word.mask, [*word.scales]) for word in words] == [(0xFF << 32, [130, 127]),
                                                               (0, [130, 130])]
    assert plan.values == [0x7F7F_7F7F_7F7F_7F7F]


def test_without_scales_all_bytes_are_one():
    plan = plan_gemm(torch.ones(1, 70, dtype=torch.int64), torch.ones(70, 1, dtype=torch.int64),
                     ("e4m3", "e4m3"), "fp32", config=SCALED.replace({"vpcu.b_depth": 128}),
                     **PLAIN)
    words = [mask_word(32).from_bits(item) for item in plan.masks]
    assert [[*word.scales] for word in words] == [[127, 127]] * 2
    assert [Operation.from_bits(item).scaled for item in plan.operations] == [0]
    assert len(plan.b) == 71 * 2


def test_scales_need_a_configuration_that_has_them():
    with pytest.raises(ValueError, match=r"vpcu\.scale_block is 0"):
        plan_gemm(torch.ones(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.int64),
                  ("e4m3", "e4m3"), "fp32", config=CONFIG,
                  scales=(torch.full((1, 1), 127, dtype=torch.uint8), None))


def unscaled_anchors(monkeypatch):
    """A fault: anchors are those of the elements alone."""
    plain = vectors.anchors
    monkeypatch.setattr(vectors, "anchors", lambda bits, dim, fmt, is_fixed, powers=None: plain(
        bits, dim, fmt, is_fixed))


def nan_scales_as_powers(monkeypatch):
    """A fault: the byte 255 is 2^128."""
    monkeypatch.setattr(vectors, "NAN_SCALE", 256)


@pytest.mark.parametrize("fault", [unscaled_anchors, nan_scales_as_powers])
def test_the_tests_catch_faults(monkeypatch, fault):
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        test_scaled_words_say_where_each_block_lies(("bf16", "e4m3"), 70, 32)
