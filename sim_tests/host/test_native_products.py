"""Products through the compiled engine: a seeded sweep and the longest sums, bits and cycles."""

import itertools
from dataclasses import replace

import pytest
import torch

from exactum.benches.product_cases import random_bits, sparse_bits
from exactum.benches.product_sweep import SweepCase, check, long_sums, pairs_of_formats, sweep
from exactum.benches.stalls import PATTERNS
from exactum.gen.errors import SimulationError
from exactum.hdl.formats import FORMATS
from exactum.host.gemm import exact_gemm
from exactum.host.native import NativeUnit
from exactum.host.native_engine import NativeEngine
from exactum.host.numerics import from_bits, to_bits
from exactum.host.orientation import choose
from exactum.host.plan import plan_gemm
from exactum.host.vectors import Vectors, anchors, factor, vectors
from sim_tests.host.native_engine import CONFIG, FOLDER, MANY_LANES, engine

PAIRS = pairs_of_formats(CONFIG)
LONGEST = CONFIG.vpcu.max_k
SAME = [pair for pair in PAIRS if pair[0] == pair[1]]
MIXED = [(FORMATS[a], FORMATS[b]) for a, b in (("e5m2", "e4m3"), ("bf16", "fp32"))]


def name(pair):
    return "-".join(fmt.name for fmt in pair)


@pytest.mark.parametrize("seed", range(4))
def test_bits_lost_and_cycles_of_a_seeded_sweep(seed):
    for case in sweep(CONFIG, 75, seed):
        assert not (wrong := check(engine(), case)), f"{case}: {wrong}"


def test_the_sweep_goes_every_way():
    """Transposed or not, compressed or not."""
    ways = []
    for case in itertools.chain.from_iterable(sweep(CONFIG, 75, seed) for seed in range(4)):
        a, b = factor(case.a, case.formats[0]), factor(case.b.mT, case.formats[1])
        way = choose(CONFIG, a, b, case.formats, orientation=case.orientation,
                     compress=case.compress)
        ways.append((way.turned, way.kept is not None))
    assert min(ways.count(way) for way in itertools.product((False, True), repeat=2)) > 20


@pytest.mark.parametrize("specials", [0.0, 0.001])
@pytest.mark.parametrize(("orientation", "shape"), [("a", (7, 2500, 9)), ("b", (9, 1500, 6))])
def test_rows_longer_than_the_tile_buffer_each_with_their_own_indices(orientation, shape,
                                                                      specials):
    pair = FORMATS["bf16"], FORMATS["e5m2"]
    random = torch.Generator().manual_seed(shape[0])
    m, k, n = shape
    a, b = (sparse_bits(random_bits(fmt, size, random), 0.6, random)
            for fmt, size in zip(pair, ((m, k), (k, n)), strict=True))
    a[1], a[2, 100:] = 0, 0
    b = b.masked_fill(torch.rand(k, n, generator=random) < specials, pair[1].nan_bits)
    case = SweepCase(a=a, b=b, formats=pair, result=FORMATS["fp32"], orientation=orientation,
                     compress=True)
    way = choose(CONFIG, factor(a, pair[0]), factor(b.mT, pair[1]), pair, orientation=orientation)
    assert way.indices is not None
    assert not (wrong := check(engine(), case)), wrong


@pytest.mark.parametrize("pair", [("bf16", "fp32"), ("e4m3", "e5m2")], ids="-".join)
@pytest.mark.parametrize("orientation", ["a", "b", "auto"])
def test_compressed_products_with_block_scales(pair, orientation):
    """Bits, lost and cycles; the scales of the blocks left out, and those of NaN, too."""
    random = torch.Generator().manual_seed(len(orientation))
    formats = tuple(FORMATS[fmt] for fmt in pair)
    for k in (96, 130, CONFIG.vpcu.b_depth + 100):
        a, b = (sparse_bits(random_bits(fmt, shape, random, octaves=9), 0.05, random)
                for fmt, shape in zip(formats, ((5, k), (k, 9)), strict=True))
        a[:, 32:64], b[64:96], b[:, 2] = 0, 0, 0
        blocks = -(-k // CONFIG.vpcu.scale_block)
        scales = [torch.randint(117, 138, size, generator=random).to(torch.uint8)
                  for size in ((5, blocks), (blocks, 9))]
        scales[0][:, 1] = 250
        scales[1][2, 3] = 255 if k == 130 else 127
        plan = plan_gemm(a, b, pair, "fp32", config=CONFIG, scales=tuple(scales),
                         orientation=orientation)
        golden, lost = exact_gemm(from_bits(a, pair[0]), from_bits(b, pair[1]), pair,
                                  scales=tuple(scales), scale_block=CONFIG.vpcu.scale_block)
        done = engine().run(plan)
        assert torch.equal(done.bits, to_bits(golden))
        assert torch.equal(done.lost, lost)
        known = [vectors(*given, block=32, is_scaled=True, is_fixed=False).factor for given in (
            (a, formats[0], scales[0]), (b.mT, formats[1], scales[1].mT))]
        way = choose(CONFIG, *known, formats, scaled=True, orientation=orientation)
        assert done.cycles == way.work.cycles
        assert way.kept is not None


def test_anchors_of_what_is_sent_alone_are_found(monkeypatch):
    """A fault: the windows are those of the indices that are sent."""
    def selecting(self, rows, inner, select=Vectors.select):
        some = select(self, rows, inner)
        return some._replace(anchors=anchors(some.bits, 1, some.fmt, self.is_fixed, some.powers))

    monkeypatch.setattr(Vectors, "select", selecting)
    cases = [case for seed in range(2) for case in sweep(CONFIG, 75, seed) if case.compress]
    assert any("results differ" in text or "lost flags differ" in text for case in cases
               for text in check(engine(), case))


@pytest.mark.parametrize("pair", [*SAME, *MIXED], ids=name)
def test_the_longest_sums(pair):
    case = long_sums(pair, LONGEST, PAIRS.index(pair), FORMATS["fp32"])
    assert not (wrong := check(engine(), case)), wrong


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair not in (*SAME, *MIXED)], ids=name)
def test_sums_of_three_pieces(pair):
    case = long_sums(pair, 2 * CONFIG.vpcu.b_depth + 64, PAIRS.index(pair), pair[1])
    assert not (wrong := check(engine(), case)), wrong


@pytest.mark.parametrize("sink", PATTERNS)
@pytest.mark.parametrize("source", PATTERNS)
def test_stalls_change_nothing(source, sink):
    streams = engine().unit.inputs
    stalls = {port: list(itertools.islice(PATTERNS[source](seed), 1000))
              for seed, port in enumerate(streams)}
    stalls["o"] = list(itertools.islice(PATTERNS[sink](9), 1000))
    for case in sweep(CONFIG, 7, len(source) + 10 * len(sink)):
        assert not (wrong := check(engine(), case, stalls=stalls)), f"{case}: {wrong}"


def test_a_long_sum_holds_what_it_says():
    case = long_sums((FORMATS["fp16"], FORMATS["fp16"]), 4096, 1, FORMATS["fp32"])
    golden = torch.float16
    a, b = (x.to(torch.int16).view(golden).double() for x in (case.a, case.b))
    sums = (a @ b)[0]
    assert sums[1] == 0
    assert sums[2] == 2.0 ** -24
    assert sums[3:5].isnan().all()
    assert sums[[0, 5, 6]].isfinite().all()
    assert (case.b[:, 5] == FORMATS["fp16"].max_finite_bits).all()


def test_many_lanes_bits_lost_and_cycles():
    for case in sweep(MANY_LANES, 60, seed=16):
        assert not (wrong := check(engine(MANY_LANES), case)), f"{case}: {wrong}"


@pytest.mark.parametrize(("config", "formats"), [
    (CONFIG, ("fp32", "bf16")), (CONFIG, ("e4m3", "e5m2")), (MANY_LANES, ("e4m3", "e4m3"))])
def test_a_reset_in_any_cycle_leaves_nothing_behind(config, formats):
    """A product is given up; the next one, of no index or a few, has its own bits and cycles."""
    random = torch.Generator().manual_seed(5)
    pair = tuple(FORMATS[fmt] for fmt in formats)
    tested, columns = engine(config), 4 * config.vpcu.lanes + 1
    long, *short = (
        SweepCase(a=random_bits(pair[0], (m, k), random), b=random_bits(pair[1], (k, n), random),
                  formats=pair, result=FORMATS["fp32"], orientation="a", compress=False)
        for m, k, n in ((3, 20, columns), (1, 0, columns), (2, 3, 1)))
    whole = tested.gemm(long.a, long.b, formats, orientation="a", compress=False).cycles
    for limit in range(1, whole):
        with pytest.raises(SimulationError, match=f"{limit} cycles are over"):
            check(tested, long, limit=limit)
        tested.unit.reset()
        case = short[limit % 2]
        assert not (wrong := check(tested, case)), f"reset after {limit} cycles: {wrong}"


def test_verilog_with_too_narrow_a_window_is_found():
    narrow = CONFIG.replace({"vpcu.lanes": 1, "vpcu.formats": ["bf16"],
                             "vpcu.accumulator_width": 72})
    wide = narrow.replace({"vpcu.accumulator_width": 100})
    with NativeUnit.of("engine", narrow, FOLDER) as unit:
        found = [check(NativeEngine(wide, unit), case) for case in sweep(wide, 25, 1)]
        assert any("lost flags differ" in wrong for faults in found for wrong in faults)
        assert not any(check(NativeEngine(narrow, unit), case) for case in sweep(narrow, 25, 1))


def test_a_wrong_bit_a_wrong_flag_and_a_wrong_count_are_found(monkeypatch):
    case = next(sweep(CONFIG, 1, 1))
    assert case.a.any()
    engine_gemm = engine().gemm
    for change, words in (({"bits": 1}, "1 results differ, first"), ({"lost": 1}, "1 lost flags"),
                          ({"cycles": 1}, "cycles, cycle model")):
        def damaged(*arguments, change=change, **options):
            done = engine_gemm(*arguments, **options)
            bits, lost = done.bits.clone(), done.lost.clone()
            bits[0, 0] ^= change.get("bits", 0)
            lost[0, 0] ^= bool(change.get("lost"))
            return replace(done, bits=bits, lost=lost,
                           cycles=done.cycles + change.get("cycles", 0))

        monkeypatch.setattr(engine(), "gemm", damaged)
        wrong, = check(engine(), case)
        assert words in wrong
