"""The compiled machine and the emulator: every verb, bit for bit, every counter, every cycle."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from exactum.gen.config import preset
from exactum.gen.errors import DeviceError, UsageError
from exactum.hdl.machine_layouts import REGISTER_BASE, Register
from exactum.host import machine_attention, mx_quantize, open_device, quantize
from exactum.host.device import COUNTERS
from exactum.host.machine import runner as module
from exactum.host.machine import streams, works
from exactum.host.machine_device import MachineDevice
from exactum.host.native_bus import NativeBus
from sim_tests.host import native_engine
from sim_tests.host.machine_model import ModelBus
from sim_tests.host.native_machine import CONFIG, FOLDER, FORMATS, check, randn, same

INF, NAN = math.inf, math.nan


@pytest.fixture(scope="module")
def machine():
    with MachineDevice(CONFIG, NativeBus(CONFIG, FOLDER)) as opened:
        yield opened


@pytest.fixture(scope="module")
def model():
    """A machine of the shared engine's configuration, with little memory, in Python."""
    config = native_engine.CONFIG.replace({"device.memory_words": 512})
    return MachineDevice(config, ModelBus(config, native_engine.engine().unit))


def sparse(*shape, share=0.5):
    random = torch.Generator().manual_seed(sum(shape))
    return randn(*shape, seed=1) * (torch.rand(shape, generator=random) < share)


def with_specials(x):
    x = x.clone()
    x.view(-1)[::7], x.view(-1)[3::11] = INF, NAN
    x.view(-1)[::29] = 0.0
    return x


PAIRS = [*((name, name) for name in FORMATS), ("e5m2", "e4m3"), ("bf16", "fp32"), ("fp16", "e5m2")]


@pytest.mark.parametrize("formats", PAIRS, ids="-".join)
def test_products(machine, formats):
    """In several tiles; those of 8-bit results saturate, those of wide operands lose bits."""
    is_wide = bool({"bf16", "fp32"} & set(formats))
    octaves = 25 if is_wide else 5
    a, b = (x * 2.0 ** randn(*x.shape).mul(octaves) for x in (randn(5, 50), sparse(50, 9)))
    for result in (formats[0], "fp32"):
        found = check(machine, lambda d, result=result: d.gemm(a, b, formats, result, exponent=-2))
        assert found["cycles"] > 0
    assert (found["lost"] > 0) == is_wide
    found = check(machine, lambda d: d.gemm(a, b, formats, "e5m2", exponent=12))
    assert found["saturations"] > 0
    check(machine, lambda d: d.gemm(with_specials(a), with_specials(b), formats))


def test_results_that_are_clamped_are_counted_and_the_largest_ones_are_not(machine):
    a = torch.tensor([[448.0, 0], [465.0, 0], [464, 2.0 ** -9], [-1e4, 0], [INF, 1], [1, 1]])
    found = check(machine, lambda d: d.gemm(a, torch.ones(2, 3), ("fp32", "fp32"), "e4m3"))
    assert found["saturations"] == 4 * 3
    batch = torch.stack([a, a / 100])
    check(machine, lambda d: d.gemm(batch, torch.ones(2, 2, 3), ("fp16", "fp16"), "e4m3"))


@pytest.mark.parametrize("shapes", [
    ((0, 4), (4, 3)), ((2, 4), (4, 0)), ((2, 0), (0, 3)), ((0, 2, 4), (0, 4, 3)), ((0, 0), (0, 0)),
    ((1, 1), (1, 1)), ((3, 1, 70), (3, 70, 5))])
def test_products_of_odd_sizes(machine, shapes):
    check(machine, lambda d: d.gemm(randn(*shapes[0]), randn(*shapes[1])))
    check(machine, lambda d: d.gemm(torch.zeros(shapes[0]), randn(*shapes[1])))


@pytest.mark.parametrize("specials", [False, True])
def test_sums_beyond_the_tile_buffer(machine, specials):
    a, b = sparse(4, 300, share=0.2), randn(300, 3)
    if specials:
        b = with_specials(b)
    for orientation in ("auto", "a", "b"):
        check(machine, lambda d, o=orientation: d.gemm(a, b, ("e4m3", "bf16"), orientation=o))


def test_products_in_every_way_of_sending_them(machine):
    a, b = sparse(9, 70, share=0.3), sparse(70, 6)
    a[:, 20:40], b[:, 2] = 0, 0
    for orientation, compress in itertools.product(("a", "b"), (False, True)):
        check(machine, lambda d, o=orientation, c=compress: d.gemm(
            a, b, ("fp16", "e4m3"), orientation=o, compress=c))


@pytest.mark.parametrize("both", [False, True])
def test_products_with_block_scales(machine, both):
    (a, scale_a), (b, scale_b) = mx_quantize(randn(5, 100).exp(), "e4m3"), mx_quantize(
        randn(100, 6) * 99, "e5m2", axis=0)
    scale_a[1, 1] = 255
    scales = (scale_a, scale_b if both else None)
    check(machine, lambda d: d.gemm(a, b, ("e4m3", "e5m2"), scales=scales))
    batches = [x.expand(2, *x.shape) for x in (a, b, scale_a, scale_b)]
    check(machine, lambda d: d.gemm(*batches[:2], ("e4m3", "e5m2"), scales=tuple(batches[2:])))


def test_plans_beyond_the_scratch_memory(machine):
    """Operands and results each take more than its 1024 words."""
    check(machine, lambda d: d.gemm(randn(80, 60), randn(60, 40), compress=False))
    check(machine, lambda d: d.softmax(randn(90, 60), "fp32"))
    check(machine, lambda d: d.softmax_backward(randn(60, 64), randn(60, 64)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_softmax(machine, dtype):
    x = with_specials(randn(3, 5, 13)).to(dtype)
    x[0, 1:] = randn(4, 13)
    for result in FORMATS:
        check(machine, lambda d, result=result: d.softmax(x, result))
    check(machine, lambda d: d.log_softmax(x, "fp16"))


@pytest.mark.parametrize("length", [63, 64, 65, 128, 200])
def test_softmax_in_blocks(machine, length):
    check(machine, lambda d: d.softmax(randn(3, length), "fp16"))
    check(machine, lambda d: d.log_softmax(quantize(randn(2, length), "e5m2")))


@pytest.mark.parametrize("shape", [(7,), (1, 1), (4, 1), (3, 0), (0, 5), (2, 3, 9), (2, 1, 3, 4)])
def test_rows_of_odd_shapes(machine, shape):
    x, g = randn(*shape), randn(*shape, seed=2)
    check(machine, lambda d: d.softmax(x))
    check(machine, lambda d: d.log_softmax(x))
    check(machine, lambda d: d.softmax_backward(x, g))
    check(machine, lambda d: d.log_softmax_backward(x, g))


@pytest.mark.parametrize("dtypes", [
    (torch.float32, torch.float32), (torch.float16, torch.bfloat16),
    (torch.float8_e4m3fn, torch.float32), (torch.float64, torch.float64)])
def test_backward_of_softmax(machine, dtypes):
    p, dp = (x.to(dtype) for x, dtype in zip(
        (torch.softmax(randn(2, 3, 30), -1), randn(2, 3, 30)), dtypes, strict=True))
    check(machine, lambda d: d.softmax_backward(p, dp))
    check(machine, lambda d: d.log_softmax_backward(p.float().log().to(p.dtype), dp))
    if dtypes[1] == torch.float32:
        check(machine, lambda d: d.softmax_backward(p, with_specials(dp)))


MASKS = {"none": {}, "causal": {"causal": True},
         "float": {"mask": with_specials(randn(1, 4, 6, 9))},
         "bool, a row without keys": {"mask": torch.arange(9) > 2 * torch.arange(6)[:, None]}}


@pytest.mark.parametrize("masking", MASKS)
def test_attention(machine, masking):
    q, k, v, g = (randn(*shape) for shape in (
        (1, 4, 6, 8), (1, 2, 9, 8), (1, 2, 9, 5), (1, 4, 6, 5)))
    options = {"formats": ("e4m3", "fp16"), "scaled": True, **MASKS[masking]}
    check(machine, lambda d: d.attention(q, k, v, **options))
    check(machine, lambda d: d.attention_backward(g, q, k, v, gradients=("e5m2", "bf16"),
                                                  scaled_gradients=(True, True), **options))


def test_attention_of_infinities(machine):
    q, k, v = with_specials(randn(1, 1, 5, 4)), randn(1, 1, 70, 4), randn(1, 1, 70, 3)
    for options in ({}, {"causal": True}, {"mask": randn(5, 70)}):
        check(machine, lambda d, options=options: d.attention(
            q, k, v, formats=("fp16", "bf16"), result="e4m3", **options))


@pytest.mark.parametrize("sizes", [(0, 4, 3, 8), (1, 0, 5, 4), (1, 3, 0, 4), (1, 3, 5, 0)])
def test_attention_of_nothing(machine, sizes):
    batch, rows, keys, width = sizes
    q, k = torch.zeros(batch, 2, rows, 4), torch.zeros(batch, 1, keys, 4)
    v = randn(batch, 1, keys, width)
    for x in (q, randn(*q.shape)):
        check(machine, lambda d, x=x: d.attention(x, k + x.sum(), v, formats=("e4m3", "fp16")))


@pytest.fixture
def ways(monkeypatch):
    """How P V was computed where P stays in the scratch memory, for each group of heads."""
    taken = []

    class Watched(machine_attention.Residence):
        def weight(self, *arguments):
            taken.append("as it is")
            return super().weight(*arguments)

        def p(self, *arguments):
            taken.append("read back")
            return super().p(*arguments)

    monkeypatch.setattr(machine_attention, "Residence", Watched)
    return taken


SEEN = torch.rand(24, 24, generator=torch.Generator().manual_seed(3)) > 0.5
SEEN[3], SEEN[10:12] = False, False
RESIDENT = {
    "none": ({}, ["as it is"] * 2), "causal": ({"causal": True}, ["as it is"] * 2),
    "float": ({"mask": with_specials(randn(2, 24, 24))}, ["as it is"] * 2),
    "bool, rows without keys": ({"mask": SEEN}, ["read back"] * 2),
    "both": ({"causal": True, "mask": randn(24, 24)}, ["as it is"] * 2),
    "8-bit results": ({"result": "e4m3", "scaled": True}, ["as it is"] * 2),
    "P in bf16": ({"formats": ("fp16", "bf16")}, [])}


@pytest.mark.parametrize("case", RESIDENT)
def test_scores_that_stay_in_the_memory(machine, ways, case):
    options, wanted = RESIDENT[case]
    q, k, v = (randn(1, 2, 24, 16, seed=seed) for seed in range(3))
    check(machine, lambda d: d.attention(q, k, v, **({"formats": ("fp16", "fp16")} | options)))
    assert ways == wanted


@pytest.mark.parametrize("options", [
    {}, {"causal": True}, {"mask": torch.arange(6) <= torch.arange(8)[:, None]},
    {"mask": randn(4, 8, 6)}, {"formats": ("e5m2", "e4m3"), "result": "fp16", "scaled": True}],
    ids=["none", "causal", "bool", "float", "formats"])
def test_a_small_attention_is_one_list_of_commands(machine, monkeypatch, options):
    """For each group of heads; the host starts it, and reads what comes out."""
    starts, write = [], machine.runner.bus.write

    def watched(address, words):
        if address == REGISTER_BASE + Register.CONTROL.value:
            starts.append(int(words[0]) & 3)
        write(address, words)

    monkeypatch.setattr(machine.runner.bus, "write", watched)
    q, k, v = randn(1, 4, 8, 10), randn(1, 2, 6, 10), randn(1, 2, 6, 3)
    options = {"formats": ("e4m3", "fp16")} | options
    q, k = q.abs(), k.abs()     # no column of P is zero
    check(machine, lambda d: d.attention(q, k, v, **options))
    assert starts == [2, 2]


def test_rows_that_see_nothing_are_zeros_of_the_memory(machine, ways):
    """Streamed as they are: where V is not finite, nothing may be left out."""
    q, k, v = (randn(1, 2, 24, 16, seed=seed) for seed in range(3))
    v[0, 1, 5, 3], v[0, 0, 2, 2] = NAN, INF
    check(machine, lambda d: d.attention(q, k, v, mask=SEEN, formats=("fp16", "fp16")))
    assert ways == ["as it is"] * 2


def test_infinite_scores_are_masked_by_the_host(machine, ways):
    """The elementwise unit would make NaN of +Inf - Inf."""
    q, k, v = (randn(1, 2, 24, 16, seed=seed) for seed in range(3))
    q[0, 0, 3, 1] = INF
    check(machine, lambda d: d.attention(q, k, v, causal=True, formats=("fp16", "fp16")))
    assert not ways
    check(machine, lambda d: d.attention(q, k, v, formats=("fp16", "fp16")))
    assert ways


@pytest.mark.parametrize(("formats", "keys"), [
    (("fp16", "e4m3"), 64), (("e4m3", "fp16"), 28), (("e4m3", "fp16"), 40), (("e5m2", "fp16"), 64)])
def test_rows_of_p_of_all_lengths(machine, ways, formats, keys):
    """ENGINE_A has room for the values of all masks that the engine takes ahead of them."""
    q, k, v = randn(1, 1, 20, 4), randn(1, 1, keys, 4, seed=1), randn(1, 1, keys, 8, seed=2)
    check(machine, lambda d: d.attention(q, k, v, formats=formats, scaled=True))
    check(machine, lambda d: d.attention(q, k, v, formats=formats, causal=True))
    assert len(ways) == 2


def test_scores_that_stay_cross_the_bus_once(machine, monkeypatch):
    q, k, v = (randn(1, 1, 32, 16, seed=seed) for seed in range(3))
    bus, words = machine.runner.bus, []

    class Counted:
        generation = 1

        def read(self, address, count):
            words[-1] += count if address < REGISTER_BASE else 0
            return bus.read(address, count)

        def write(self, address, given):
            words[-1] += len(given)
            bus.write(address, given)

    monkeypatch.setattr(machine.runner, "bus", Counted())
    results = []
    for stays in (True, False):
        words.append(0)
        with monkeypatch.context() as patch:
            if not stays:
                patch.setattr(machine_attention, "resident_words", lambda *sizes: 1 << 20)
            results.append(machine.attention(q, k, v, causal=True, formats=("e4m3", "e4m3")))
    assert same(*results)
    # Composed, x goes in and out of two units more, and P in and out.
    assert words[1] - words[0] > 3 * 32 * 32 // 2, words


def test_the_tests_catch_a_stream_that_is_ended_too_early(machine, monkeypatch):
    """A fault: a unit that has to wait for its words is not frozen."""
    whole = streams.Items.take

    def take(self, address, room):
        chunk = whole(self, address, room)
        return chunk._replace(move=replace(chunk.move, more=False))

    monkeypatch.setattr(streams.Items, "take", take)
    with pytest.raises(AssertionError):
        check(machine, lambda d: d.gemm(randn(80, 60), randn(60, 40), compress=False))


def test_the_tests_catch_results_that_are_not_dropped(machine, monkeypatch):
    """A fault: those of columns that are not there are taken for results."""
    tiles = works._tiles
    monkeypatch.setattr(works, "_tiles", lambda plan: [
        shape._replace(drop=0) for shape in tiles(plan)])
    with pytest.raises(AssertionError):
        check(machine, lambda d: d.gemm(randn(5, 8), randn(8, 6), orientation="a"))
    machine.runner.reset()


def test_the_model_gives_what_the_emulator_gives(model):
    """Of every unit, within the memory and beyond."""
    for size in (3, 40):
        check(model, lambda d, m=size: d.gemm(randn(m, 70), randn(70, 20), ("bf16", "fp32")))
        check(model, lambda d, m=size: d.softmax(randn(m, 50)))
        check(model, lambda d, m=size: d.softmax_backward(randn(m, 50), randn(m, 50, seed=1)))
        check(model, lambda d, m=size: d.log_softmax_backward(randn(m, 9), randn(m, 9, seed=1)))
    check(model, lambda d: d.softmax(randn(2, 1500).bfloat16()))


def test_a_row_that_does_not_fit_says_so(model):
    with pytest.raises(UsageError, match=r"X217.*514 words of scratch memory.*383"):
        model.softmax(randn(2, 1024))


def test_a_device_of_another_configuration_is_refused():
    other = CONFIG.replace({"softmax.lanes": 2})
    bus = ModelBus(other, None)
    with pytest.raises(DeviceError) as caught:
        MachineDevice(CONFIG, bus)
    assert bus.closed
    assert caught.value.code == "X408"
    assert CONFIG.hash in str(caught.value)
    assert other.hash in str(caught.value)


def test_a_device_of_another_kind_is_refused(monkeypatch):
    bus = ModelBus(CONFIG, None)
    monkeypatch.setattr(bus, "register", lambda number: 0)
    with pytest.raises(DeviceError, match="X414"):
        MachineDevice(CONFIG, bus)


def test_a_list_that_fails_says_why_and_the_next_one_runs(machine, monkeypatch):
    a, b = randn(2, 3), randn(3, 2)
    bad = module.go("engine").copy()
    bad[0] |= 99
    with monkeypatch.context() as patch:
        patch.setattr(module, "go", lambda unit: bad)
        with pytest.raises(DeviceError, match=r"X415.*fault OPCODE"):
            machine.gemm(a, b)
    check(machine, lambda d: d.gemm(a, b))


def test_a_machine_whose_words_do_not_come_fails(machine, monkeypatch):
    a, b = randn(2, 3), randn(3, 2)
    bus, watchdog = machine.runner.bus, REGISTER_BASE + Register.WATCHDOG.value
    patience = bus.read(watchdog, 1)
    bus.write(watchdog, patience // 100)
    with monkeypatch.context() as patch:
        patch.setattr(module, "go", lambda unit: module.halt(unit))
        with pytest.raises(DeviceError, match=r"X415.*fault WATCHDOG"):
            machine.gemm(a, b)
    bus.write(watchdog, patience)
    check(machine, lambda d: d.gemm(a, b))


def test_a_machine_that_does_not_get_on_is_given_up(monkeypatch):
    bus = ModelBus(CONFIG, None)
    device = MachineDevice(CONFIG, bus)
    monkeypatch.setattr(bus, "run", lambda at: setattr(bus, "state", module.State.RUNNING))
    device.runner.timeout = 0.0
    with pytest.raises(DeviceError, match=r"X416.*state RUNNING"):
        device.gemm(randn(2, 3), randn(3, 2))
    assert bus.state == module.State.IDLE       # it was stopped


def test_rtl_is_opened_by_name_and_closed(monkeypatch):
    buses = []

    def opened(config):
        buses.append(ModelBus(config, None))
        return buses[0]

    monkeypatch.setattr("exactum.host.native_bus.NativeBus", opened)
    with open_device("rtl:tiny") as device:
        assert device.config == preset("tiny")
        assert set(device.counters) == set(COUNTERS)
    assert buses[0].closed
    with pytest.raises(DeviceError, match="X403"):
        device.softmax(randn(2, 3))


@pytest.mark.parametrize("call", [1, 2, 3, 7, 20, 60])
def test_an_operation_that_is_interrupted_leaves_nothing_behind(machine, monkeypatch, call):
    """Ctrl-C at a call of the bus: the next operation is as if it had not been."""
    counts = itertools.count(1)
    for name in ("read", "write"):
        original = getattr(machine.runner.bus, name)

        def interrupted(*arguments, original=original):
            if next(counts) == call:
                raise KeyboardInterrupt
            return original(*arguments)

        monkeypatch.setattr(machine.runner.bus, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        machine.gemm(randn(12, 150), randn(150, 20))
    monkeypatch.undo()
    check(machine, lambda d: d.gemm(randn(3, 20), randn(20, 4)))


def test_a_run_of_the_unit_that_is_cut_short_is_forgotten(machine, monkeypatch):
    bus, run = machine.runner.bus, machine.runner.bus.unit.run
    before = bus.generation

    def interrupted(*arguments, **options):
        run(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(bus.unit, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bus.read(0, 4)
    monkeypatch.undo()
    check(machine, lambda d: d.gemm(randn(3, 20), randn(20, 4)))
    assert bus.generation == before + 1


def test_a_device_that_is_opened_anew_works_on(machine):
    machine.reopen()
    check(machine, lambda d: d.softmax(randn(3, 20)))
