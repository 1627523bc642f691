"""Devices: what they compute, count and refuse."""

import itertools
import math
import subprocess
import sys
import threading

import pytest
import torch

from exactum import host
from exactum.gen.config import preset
from exactum.gen.errors import ConfigurationError, DeviceError, ExactumError, UsageError
from exactum.host import counting as module
from exactum.host import mx_quantize, open_device, quantize
from exactum.host.cycles import dots_cycles, gemm_cycles
from exactum.host.device import COUNTERS, Device
from exactum.host.elementwise import elementwise_cycles
from exactum.host.gemm import exact_gemm
from exactum.host.masks import NonZeros
from exactum.host.numerics import decode, format_of, to_bits
from exactum.host.softmax import exact_softmax, softmax_backward, softmax_cycles


@pytest.fixture
def device():
    with open_device() as opened:
        yield opened


def randn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_package_imports_no_torch_until_it_is_used():
    code = ("import sys, exactum.host as host; assert 'torch' not in sys.modules; "
            "assert set(dir(host)) >= set(host.__all__); "
            "host.quantize; assert 'torch' in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = host.quantise


@pytest.mark.parametrize("formats", [("e4m3", "e4m3"), ("e5m2", "e4m3"), ("fp32", "bf16")])
@pytest.mark.parametrize("result", ["fp32", "e4m3"])
def test_gemm_is_the_golden_model(device, formats, result):
    a, b = randn(5, 70) * 300, randn(70, 6)
    got = device.gemm(a, b, formats, result, exponent=-3)
    expected, _ = exact_gemm(a, b, formats, result, exponent=-3)
    assert got.dtype == expected.dtype
    assert torch.equal(to_bits(got), to_bits(expected))


def test_softmax_is_the_golden_model(device):
    x = randn(3, 4, 17)
    p = device.softmax(x, "fp16")
    assert torch.equal(p, exact_softmax(x, "fp16", config=device.config))
    assert device.counters["cycles"] == softmax_cycles(device.config, 12, 17)
    assert device.counters["bytes_out"] == x.numel() * 2
    assert device.counters["calls"] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_backward_pass_takes_the_sums_and_one_pass_of_elements(device, dtype):
    x = randn(3, 4, 17)
    p, dp = torch.softmax(x, -1).to(dtype), x.to(dtype)
    p[..., 5:] = 0
    assert torch.equal(device.softmax_backward(p, dp),
                       softmax_backward(p, dp, config=device.config))
    pair = (format_of(dtype),) * 2
    dots = [dots_cycles(device.config, NonZeros(x), None, pair)
            for x in (p, torch.ones_like(p))]
    rest = 3 * elementwise_cycles(device.config, 4, 17)
    assert device.counters["cycles"] == dots[0] + rest
    assert device.counters["cycles_dense"] == dots[1] + rest
    assert device.counters["calls"] == 1


def test_the_backward_pass_counts_what_its_formats_hold(device):
    p, dp = torch.softmax(randn(4, 100), -1), randn(4, 100)
    p[:, :70] = 0
    small = p.double().masked_fill(p == 0, 1e-60)               # zero in fp32
    cycles = []
    for left, right in ((p, dp), (small, dp.double())):
        device.reset_counters()
        device.softmax_backward(left, right)
        cycles.append(device.counters["cycles"])
    assert cycles[0] == cycles[1]
    narrow = quantize(dp, "e4m3")
    assert device.softmax_backward(quantize(p, "e4m3"), narrow).isfinite().all()


def test_counters_of_a_product(device):
    a, b = quantize(randn(5, 130).relu(), "e4m3"), quantize(randn(130, 7), "e4m3")
    assert dict(device.counters) == dict.fromkeys(COUNTERS, 0)
    device.gemm(a, b, orientation="a", compress=False)
    nonzero = decode(a) != 0
    work = gemm_cycles(device.config, nonzero, None, ("e4m3", "e4m3"), columns=7)
    zeros = 7 * int((~nonzero).sum())
    values = sum(-(-count // 8) for count in nonzero.sum(1).tolist())
    assert dict(device.counters) == {
        "calls": 1, "cycles": work.cycles, "products": 5 * 130 * 7 - zeros,
        "cycles_dense": gemm_cycles(device.config, torch.ones(5, 130).bool(), None,
                                    ("e4m3", "e4m3"), columns=7).cycles,
        "products_skipped": zeros, "transposed": 0, "words_a_saved": 0, "words_b_saved": 0,
        "bytes_in": 8 * (5 * 3 + values + 8 * (1 + 130)),     # masks and values; B in eight lanes
        "bytes_out": 5 * 7 * 4, "lost": 0, "saturations": 0}
    once = dict(device.counters)
    device.gemm(a, b, orientation="a", compress=False)
    assert dict(device.counters) == {name: 2 * count for name, count in once.items()}
    device.reset_counters()
    assert set(device.counters.values()) == {0}


def test_scaled_products_are_those_of_the_golden_model():
    config = preset("default").replace({"vpcu.scale_block": 16})
    opened = open_device("emulator", config)
    (a, scale_a), (b, scale_b) = (mx_quantize(randn(5, 70).exp(), "e4m3", block=16),
                                  mx_quantize(randn(70, 7) * 99, "e5m2", axis=0, block=16))
    a[2] = 0
    scales = scale_a, scale_b
    got = opened.gemm(a, b, ("e4m3", "e5m2"), scales=scales, orientation="a", compress=False)
    assert torch.equal(got, exact_gemm(a, b, ("e4m3", "e5m2"), scales=scales, scale_block=16)[0])
    work = gemm_cycles(config, a.float() != 0, None, ("e4m3", "e5m2"), columns=7, scaled=True)
    plain = gemm_cycles(config, a.float() != 0, None, ("e4m3", "e5m2"), columns=7)
    assert work.cycles > plain.cycles
    assert opened.counters["cycles"] == work.cycles
    assert opened.counters["products_skipped"] == 70 * 7
    values = sum(-(-count // 8) for count in (a.float() != 0).sum(1).tolist())
    assert opened.counters["bytes_in"] == 8 * (5 * 2 + values + 8 * (1 + 5 + 70)) + scale_a.numel()


FORMATS = ["e4m3", "e5m2", "fp16", "bf16", "fp32"]


def with_specials(x, share=0.01):
    return x.masked_fill(torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < share,
                         math.inf)


@pytest.mark.parametrize("formats", [*((name, name) for name in FORMATS), ("e5m2", "fp32"),
                                     ("bf16", "e4m3")], ids="-".join)
@pytest.mark.parametrize("specials", [False, True])
def test_orientation_and_compression_change_no_bit_and_no_lost_flag(formats, specials):
    a, b = randn(9, 140) * 2.0 ** randn(9, 140).mul(20), randn(140, 6) * 2.0 ** (randn(140, 6) * 20)
    a, b = a * (randn(9, 1) > 0) * (randn(1, 140) > 0), b * (randn(140, 1) > -1)
    if specials:
        b = with_specials(b)
    results, lost, cycles = [], set(), {}
    for way in itertools.product(("auto", "a", "b"), (False, True)):
        with open_device() as opened:
            results.append(to_bits(opened.gemm(a, b, formats, orientation=way[0],
                                               compress=way[1])))
            lost.add(opened.counters["lost"])
            cycles[way] = opened.counters["cycles"]
    assert all(torch.equal(results[0], other) for other in results)
    assert torch.equal(results[0], to_bits(exact_gemm(a, b, formats)[0]))
    assert len(lost) == 1
    assert (lost != {0}) == ("bf16" in formats or "fp32" in formats)
    assert cycles["auto", True] == min(cycles.values())


def test_what_zeros_decide_is_neither_sent_nor_sent_back(device):
    a, b = torch.ones(40, 70), torch.ones(70, 33)
    a[10:], a[:, 20:] = 0, 0
    b[:, 32] = 0
    device.gemm(a, b, orientation="a")
    found = dict(device.counters)
    assert found["bytes_out"] == 10 * 32 * 4
    assert found["bytes_in"] == 8 * (10 * (1 + 3) + 8 * (1 + 20))
    assert found["words_b_saved"] == 2 * 8 * 71 - 8 * 21
    assert found["words_a_saved"] == 2 * (40 * 2 + 10 * 3) - 10 * (1 + 3)
    assert found["products"] == 10 * 20 * 32
    assert found["cycles"] == gemm_cycles(device.config, torch.ones(10, 20).bool(), None,
                                          ("e4m3", "e4m3"), columns=32).cycles


def test_elements_under_a_nan_scale_are_not_skipped():
    opened = open_device("emulator", preset("default").replace({"vpcu.scale_block": 32}))
    zeros = torch.zeros(2, 64).to(torch.float8_e4m3fn)
    scales = torch.full((2, 2), 127, dtype=torch.uint8)
    scales[1, 1] = 255
    got = opened.gemm(zeros, zeros.t(), scales=(scales, None))
    assert got.isnan().tolist() == [[False, False], [True, True]]
    assert opened.counters["products"] == 32 * 2


def test_a_design_without_scales_says_so():
    opened = open_device("emulator", preset("default").replace({"vpcu.scale_block": 0}))
    zeros = torch.zeros(2, 64).to(torch.float8_e4m3fn)
    with pytest.raises(UsageError, match=r"X207.*16, 32, 64 elements; got 0"):
        opened.gemm(zeros, zeros.t(), scales=(torch.full((2, 2), 127, dtype=torch.uint8), None))
    assert opened.gemm(zeros, zeros.t(), scales=(None, None)).shape == (2, 2)


def test_a_batch_counts_as_its_products():
    a, b = randn(3, 4, 70).relu(), randn(3, 70, 5)
    b[1, 3, 2] = math.inf
    formats = ("bf16", "fp32")
    whole, parts = open_device(config="small"), open_device(config="small")
    got = whole.gemm(a, b, formats)
    for index in range(3):
        assert torch.equal(to_bits(got[index]), to_bits(parts.gemm(a[index], b[index], formats)))
    for name in set(COUNTERS) - {"calls"}:
        assert whole.counters[name] == parts.counters[name], name


def test_zeros_against_infinities_are_not_skipped(device):
    a, b = torch.zeros(2, 3), torch.ones(3, 2)
    b[1, 1] = math.inf
    got = device.gemm(a, b, ("fp16", "fp16"))
    assert got.tolist()[0][0] == 0
    assert got.isnan().tolist() == [[False, True]] * 2
    assert device.counters["products"] == 4
    assert device.counters["products_skipped"] == 8


def test_saturations_and_losses_are_counted(device):
    a = torch.tensor([[500.0, math.inf, -1e9, 464.0, math.nan, 1.0]])
    device.gemm(a, torch.ones(6, 1))
    assert device.counters["saturations"] == 3
    device.reset_counters()
    got = device.gemm(torch.full((1, 4), 448.0), torch.full((4, 2), 448.0), result="e4m3")
    assert got.float().tolist() == [[448.0, 448.0]]
    assert device.counters["saturations"] == 2
    device.reset_counters()
    device.gemm(torch.tensor([[1.0, 2.0 ** -100]]), torch.ones(2, 3), ("fp32", "fp32"))
    assert device.counters["lost"] == 3
    assert device.counters["saturations"] == 0


def test_infinities_are_counted_right_under_autocast(device):
    a, b = torch.ones(1, 300), torch.ones(300, 1)
    a[0, :257] = math.inf
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert device.gemm(a, b, ("fp32", "fp32")).item() == math.inf


def test_flushed_subnormals_are_refused(device):
    torch.set_flush_denormal(True)
    try:
        with pytest.raises(UsageError, match=r"X216.*\n.*set_flush_denormal\(False\)"):
            device.gemm(torch.ones(1, 1), torch.ones(1, 1))
    finally:
        torch.set_flush_denormal(False)


def test_negative_views_are_taken_as_their_values(device):
    x = torch.complex(torch.ones(2, 2), torch.ones(2, 2)).conj().imag
    assert x.is_neg()
    assert torch.equal(device.gemm(x, torch.eye(2)), -torch.ones(2, 2))


def test_saturations_and_bytes_of_both_operands_count(device):
    device.gemm(torch.ones(2, 64), torch.full((64, 1), 1e9), ("fp16", "e4m3"))
    assert device.counters["saturations"] == 64
    assert device.counters["bytes_in"] == 8 * (1 + 8 + 8 * (1 + 64))   # B^T is streamed


def test_operands_keep_out_of_autograd(device):
    a, b = torch.ones(2, 2, requires_grad=True), torch.ones(2, 2)
    assert not device.gemm(a, b).requires_grad


@pytest.mark.parametrize("shapes", [((0, 4), (4, 3)), ((2, 4), (4, 0)), ((2, 0), (0, 3)),
                                    ((0, 2, 4), (0, 4, 3)), ((0, 0), (0, 0))])
def test_empty_products(device, shapes):
    got = device.gemm(torch.ones(shapes[0]), torch.ones(shapes[1]))
    assert got.shape == (*shapes[0][:-1], shapes[1][-1])
    assert torch.equal(to_bits(got), torch.zeros(got.shape, dtype=torch.int64))
    assert device.counters["products"] == 0


def test_counters_are_exact_between_threads(device):
    a, b = torch.ones(2, 8), torch.ones(8, 2)
    threads = [threading.Thread(target=lambda: [device.gemm(a, b) for _ in range(25)])
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert device.counters["calls"] == 100
    assert device.counters["products"] == 100 * 32


def test_counters_are_read_only(device):
    with pytest.raises(TypeError):
        device.counters["calls"] = 3
    assert set(device.counters) == set(COUNTERS)
    assert len(device.counters) == len(COUNTERS)
    assert "'calls': 0" in repr(device.counters)


@pytest.mark.parametrize("config", [None, "default", preset("default")])
def test_the_configuration_may_be_named_or_given(config):
    assert open_device("emulator", config).config == preset("default")


def test_a_configuration_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('schema = 1\nextends = "small"\n[vpcu]\nlanes = 2\n', encoding="utf-8")
    for source in (path, str(path)):
        assert open_device("emulator", source).config.vpcu.lanes == 2


def test_devices_cannot_be_made_of_the_protocol_alone():
    with pytest.raises(TypeError, match="abstract"):
        Device(preset("tiny"))


ONES = torch.ones(2, 2)
FACTOR = module._factor


@pytest.mark.parametrize(("call", "code", "says"), [
    (lambda d: d.gemm(torch.ones(2, 3), torch.ones(4, 5)), "X201", "a is [2, 3] and b is [4, 5]"),
    (lambda d: d.gemm(ONES, [[1.0]]), "X202", "b is a torch tensor; got list"),
    (lambda d: d.gemm(ONES.int(), ONES), "X202", "a is int32"),
    (lambda d: d.gemm(ONES, ONES.to(torch.complex64)), "X202", "b is complex64"),
    (lambda d: d.gemm(ONES.to("meta"), ONES), "X202", "a is on meta; operands live on the CPU"),
    (lambda d: d.gemm(ONES, ONES, ("e4m3", "e4m33")), "X203", "did you mean `e4m3`?"),
    (lambda d: d.gemm(ONES, ONES, "e4m3"), "X203", "formats is a pair of names"),
    (lambda d: d.gemm(ONES, ONES, None), "X203", "formats is a pair of names"),
    (lambda d: d.gemm(ONES, ONES, ("bf16", "e4m3")), "X205", "tiny has the formats e4m3; got"),
    (lambda d: d.gemm(ONES, ONES, result="FP16"), "X203", "did you mean `fp16`?"),
    (lambda d: d.gemm(torch.ones(1, 2049), torch.ones(2049, 1)), "X204", "K is 2049"),
    (lambda d: d.gemm(ONES, ONES, exponent=2048), "X207", "from -2048 to 2047; got 2048"),
    (lambda d: d.gemm(ONES, ONES, exponent=0.5), "X207", "got 0.5"),
    (lambda d: d.gemm(ONES, ONES, orientation="c"), "X206", "one of auto, a, b; got 'c'"),
    (lambda d: d.gemm(ONES, ONES, orientation=["a"]), "X206", "one of auto, a, b; got ['a']"),
    (lambda d: d.gemm(ONES, ONES, compress="no"), "X206", "True or False; got 'no'"),
    (lambda d: d.softmax(torch.tensor(1.0)), "X201", "dimension"),
    (lambda d: d.softmax(torch.ones(2, 16385)), "X208", "16385"),
    (lambda d: d.softmax(ONES, "bf17"), "X203", "did you mean `bf16`?"),
    (lambda d: d.softmax(ONES.long()), "X202", "x is int64"),
    (lambda d: d.softmax_backward(ONES, torch.ones(2, 3)), "X201", "[2, 3]"),
])
def test_bad_input_gets_one_sentence(call, code, says):
    tiny = open_device("emulator", "tiny")
    with pytest.raises(UsageError) as caught:
        call(tiny)
    assert caught.value.code == code
    assert says in str(caught.value)
    assert set(tiny.counters.values()) == {0}


@pytest.mark.parametrize(("arguments", "kind", "says"), [
    (("emulater",), UsageError, "did you mean `emulator`?"),
    ((None,), UsageError, "got None"),
    (("emulator:tiny",), UsageError, "the device is called emulator, rtl, serial"),
    (("rtl:",), UsageError, "got 'rtl:'"),
    (("rtl:tiny", "tiny"), UsageError, "'rtl:tiny' names a configuration"),
    (("rtl:smal",), ConfigurationError, "did you mean `small`?"),
    (("serial:/dev/nowhere",), DeviceError, "there is no port /dev/nowhere"),
    (("emulator", "smal"), ConfigurationError, "did you mean `small`?"),
    (("emulator", "no/such/file.toml"), ConfigurationError, "X101"),
    (("emulator", 3), UsageError, "config is a Configuration, a preset's name or a path; got int"),
])
def test_devices_that_cannot_be_opened(arguments, kind, says):
    with pytest.raises(kind) as caught:
        open_device(*arguments)
    assert isinstance(caught.value, ExactumError)
    assert says in str(caught.value)


def test_a_closed_device_says_so():
    with open_device() as opened:
        pass
    for call in (lambda: opened.gemm(ONES, ONES), lambda: opened.softmax(ONES),
                 lambda: opened.softmax_backward(ONES, ONES), opened.__enter__):
        with pytest.raises(DeviceError, match="closed"):
            call()
    opened.close()


def test_the_tests_catch_uncounted_zeros(monkeypatch, device):
    """A fault: every element of A is taken for non-zero."""
    monkeypatch.setattr(module, "_factor", lambda x: FACTOR(x)._replace(
        nonzero=NonZeros(torch.ones_like(x.values))))
    with pytest.raises(AssertionError):
        test_counters_of_a_product(device)


def test_the_tests_catch_skipped_infinities(monkeypatch, device):
    """A fault: the infinities of B do not keep zeros of A from being skipped."""
    monkeypatch.setattr(module, "_factor", lambda x: FACTOR(x)._replace(special=None))
    with pytest.raises(AssertionError):
        test_zeros_against_infinities_are_not_skipped(device)
