"""Which operand is streamed and what is left out: never slower, and what the plan really sends."""

import itertools
import math

import pytest
import torch

from exactum.benches.product_cases import random_bits, sparse_bits
from exactum.benches.product_sweep import with_empty_lines
from exactum.gen.config import preset
from exactum.gen.errors import UsageError
from exactum.hdl.formats import FORMATS, lookup
from exactum.host import orientation as module
from exactum.host.columns import Factor
from exactum.host.cycles import gemm_cycles
from exactum.host.masks import NonZeros
from exactum.host.mx import mx_quantize
from exactum.host.numerics import to_bits
from exactum.host.orientation import choose, turns
from exactum.host.plan import plan_gemm
from exactum.host.tally import tally
from exactum.host.traffic import sent_words
from exactum.host.vectors import factor

CONFIG = preset("default").replace({"vpcu.lanes": 2, "vpcu.b_depth": 128})
E4M3 = (FORMATS["e4m3"], FORMATS["e4m3"])
SHAPES = [(1, 1, 1), (5, 70, 40), (40, 70, 5), (16, 64, 16), (33, 128, 9), (3, 0, 4), (0, 3, 4),
          (3, 4, 0), (6, 200, 20), (20, 300, 3)]
PAIRS = [("e4m3", "e4m3"), ("bf16", "e5m2"), ("fp32", "fp16")]


def product(shape, formats, seed, *, empty=True, specials=0.0):
    """Bit patterns a [M, K] and b [K, N]."""
    random = torch.Generator().manual_seed(seed)
    m, k, n = shape
    pair = tuple(map(lookup, formats))
    densities = (0.1, 0.5, 1.0)
    a = sparse_bits(random_bits(pair[0], (m, k), random), densities[seed % 3], random)
    b = sparse_bits(random_bits(pair[1], (k, n), random), densities[seed // 3 % 3], random)
    if empty:
        a, b = with_empty_lines(a, b, random)
    hit = torch.rand(b.shape, generator=random) < specials
    return a, b.masked_fill(hit, pair[1].nan_bits)


def factors(a, b, formats):
    return factor(a, lookup(formats[0])), factor(b.mT, lookup(formats[1]))


def fixed(a, b, formats):
    """Cycles of the product as it stands, everything sent."""
    left, right = factors(a, b, formats)
    special = None if right.special is None else right.special.mT
    return gemm_cycles(CONFIG, left.nonzero, special, formats, columns=b.shape[1]).cycles


@pytest.mark.parametrize("formats", PAIRS, ids="-".join)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_way_is_faster_than_the_one_chosen(shape, formats):
    for seed, specials in itertools.product(range(9), (0.0, 0.02)):
        a, b = product(shape, formats, seed, empty=seed % 2 == 0, specials=specials)
        pair = tuple(map(lookup, formats))
        ways = {(o, c): choose(CONFIG, *factors(a, b, formats), pair, orientation=o,
                               compress=c).work.cycles
                for o, c in itertools.product(("auto", "a", "b"), (False, True))}
        assert ways["a", False] == fixed(a, b, formats)
        assert ways["b", False] == fixed(b.mT, a.mT, formats[::-1])
        assert ways["a", True] <= ways["a", False]
        assert ways["b", True] <= ways["b", False]
        assert ways["auto", True] == min(ways.values())
        assert ways["auto", False] == min(ways["a", False], ways["b", False])


@pytest.mark.parametrize("formats", PAIRS, ids="-".join)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("block", [0, 32])
def test_the_words_are_those_of_the_plan(shape, formats, block):
    """Of every way; and the words saved are the difference to everything sent."""
    config = CONFIG.replace({"vpcu.scale_block": block})
    pair = tuple(map(lookup, formats))
    for seed, orientation in itertools.product(range(4), ("a", "b", "auto")):
        a, b = product(shape, formats, seed)
        blocks = -(-shape[1] // 32)
        scales = (torch.full((shape[0], blocks), 130, dtype=torch.uint8), None) if block else (
            None, None)
        options = {"orientation": orientation, "scaled": bool(block)}
        lengths = {}
        for compress in (False, True):
            plan = plan_gemm(a, b, formats, "fp32", config=config, orientation=orientation,
                             compress=compress, scales=scales)
            way = choose(config, *factors(a, b, formats), pair, compress=compress, **options)
            lengths[compress] = len(plan.masks) + len(plan.values), len(plan.b)
            order = pair[::-1] if way.turned else pair
            assert plan.turned == way.turned
            assert lengths[compress] == sent_words(
                config, way.nonzero, way.columns, order, scaled=bool(block), indices=way.indices)
        found = tally(config, *factors(a, b, formats), pair, orientation=orientation,
                      scales=(bool(block), False))
        beside = found.bytes_in - 8 * sum(lengths[True])
        assert 0 <= beside <= (2 * len(plan.masks) if block else 0)
        assert (beside > 0) == bool(block and plan.masks and shape[1])
        if orientation != "auto":
            saved = [before - after for before, after in zip(*lengths.values(), strict=True)]
            assert [found.words_a_saved, found.words_b_saved] == saved


def test_of_ways_that_take_equally_long_a_is_streamed_and_compressed():
    way = choose(CONFIG, *[Factor(NonZeros(torch.ones(16, 64).bool()))] * 2, E4M3)
    assert (way.turned, way.kept) == (False, None)
    a = torch.ones(1, 64).bool()
    a[0, 5] = False                      # a tile that loads one index less is there sooner
    way = choose(CONFIG, Factor(NonZeros(a)), Factor(NonZeros(torch.ones(9, 64).bool())), E4M3)
    assert way.kept is not None


def test_windows_that_move_may_make_compression_slower_and_then_it_is_not_chosen():
    """Without the first 40 indices, of three windows with elements the second one has none."""
    config = CONFIG.replace({"vpcu.b_depth": 256})
    a = torch.zeros(200, 192).bool()
    for start in (60, 100, 168):
        a[:, start:start + 4] = True
    a[0, 40:] = True                     # no other index is without elements
    left, right = Factor(NonZeros(a)), Factor(NonZeros(torch.ones(1, 192).bool()))
    chosen = choose(config, left, right, E4M3, orientation="a")
    plain, shorter = (gemm_cycles(config, x, None, E4M3, columns=1).cycles for x in (a, a[:, 40:]))
    assert (chosen.kept, chosen.work.cycles) == (None, plain)
    assert shorter > plain


def test_rows_longer_than_the_tile_buffer_take_only_their_own_indices():
    a, b = product((60, 400, 8), PAIRS[0], 0, empty=False)
    whole, own = (choose(CONFIG, *factors(a, b, PAIRS[0]), E4M3, orientation="a", compress=c)
                  for c in (False, True))
    assert own.indices is not None
    assert own.work.cycles < whole.work.cycles / 5        # a tenth of the elements, mostly loading


def test_scales_of_a_dropped_block_do_not_move_the_others():
    x = torch.randn(4, 96, generator=torch.Generator().manual_seed(1))
    x[:, 32:64] = 0
    x[:, 64:] *= 1000
    elements, scales = mx_quantize(x, "e4m3")
    bits = to_bits(elements)
    plan = plan_gemm(bits, bits.mT, PAIRS[0], "fp32", config=CONFIG, scales=(scales, None))
    words = [mask >> 64 for mask in plan.masks[:4]]
    assert words == [int(row[0]) | int(row[2]) << 8 for row in scales]


def test_an_unknown_orientation_is_named():
    with pytest.raises(UsageError, match=r"X206.*one of auto, a, b; got 'c'[^$]*leave it out"):
        turns("c")


def test_the_tests_catch_a_model_that_always_streams_a(monkeypatch):
    monkeypatch.setattr(module, "turns", lambda orientation: turns("a"))
    with pytest.raises(AssertionError):
        test_no_way_is_faster_than_the_one_chosen((5, 70, 40), PAIRS[0])


def test_the_tests_catch_compression_at_any_price(monkeypatch):
    """A fault: what is compressed is taken, though it takes longer."""
    def greedy(config, a, b, formats, scaled, allowed, compress, found, best=module.best_way):
        with monkeypatch.context() as patch:
            if compress and (found is not None or a.nonzero.shape[1] > config.vpcu.b_depth):
                patch.setattr(module, "fewest_cycles", lambda *_: math.inf)  # all else is left
            return best(config, a, b, formats, scaled, allowed, compress, found)

    monkeypatch.setattr(module, "best_way", greedy)
    with pytest.raises(AssertionError):
        test_no_way_is_faster_than_the_one_chosen((6, 200, 20), PAIRS[0])
