"""Products through the compiled engine: a seeded sweep and the longest sums, bits and cycles."""

import itertools
from dataclasses import replace

import pytest
import torch

from exactum.benches.product_sweep import check, long_sums, pairs_of_formats, sweep
from exactum.benches.stalls import PATTERNS
from exactum.hdl.formats import FORMATS
from exactum.host.native import NativeUnit
from exactum.host.native_engine import NativeEngine
from sim_tests.host.native_engine import CONFIG, FOLDER, engine

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
