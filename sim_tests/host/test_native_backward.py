"""Backward passes on the compiled units, the engine's sums and the elementwise unit behind them:
the bits of the golden model, in the cycles that a device counts.
"""

import pytest
import torch

from exactum.benches.elementwise_cases import (
    Operation,
    Row,
    pack_beats,
    pack_operation,
    pack_rows,
    unpack_rows,
)
from exactum.gen.config import preset
from exactum.hdl.formats import FORMATS
from exactum.host import open_device
from exactum.host.dots import plan_dots
from exactum.host.log_softmax import log_softmax_backward
from exactum.host.native import NativeUnit
from exactum.host.numerics import quantize, to_bits
from exactum.host.softmax import exact_softmax, softmax_backward, softmax_cycles
from sim_tests.host.native_engine import CONFIG, engine
from sim_tests.repository import ROOT

# As test_native_elementwise compiles it.
UNIT = preset("tiny").replace({"elementwise.lanes": 1, "target": "ecp5"})
DESIGN = CONFIG.replace({"elementwise.lanes": 1})
ONE = 0x3F800000


@pytest.fixture(scope="module")
def elementwise():
    with NativeUnit.of("elementwise", UNIT, ROOT / "build" / "native") as found:
        yield found


def normal(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sums(a, b, formats):
    """Dot products of rows of bits, as bits, and the cycles."""
    done = engine().run(plan_dots(a, b, formats, config=CONFIG))
    return done.bits[:, 0].tolist(), done.cycles


def passed(unit, rows, formats, mode):
    """Rows through the elementwise unit: rows of bits, and the cycles."""
    operation = Operation(rows, formats, mode)
    beats = pack_beats(operation, 1)
    run = unit.run({"i_operation": [pack_operation(operation)], "i_row": pack_rows(operation),
                    "i": beats}, {"o": len(beats)})
    outputs = [int.from_bytes(item.tobytes(), "little") for item in run.outputs["o"]]
    return unpack_rows(outputs, 1), run.span("i", "o")


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_gradient_of_softmax(elementwise, fmt):
    x, dp = normal((19, 70), 1) * 3, normal((19, 70), 2)
    x[3, 5:], dp[4, 3], dp[5, :2] = -torch.inf, torch.inf, torch.nan
    p = exact_softmax(x, fmt, config=CONFIG)
    p_bits, dp_bits = to_bits(p).long(), to_bits(dp).long()
    dots, cycles = sums(p_bits, dp_bits, (fmt, "fp32"))
    rows = [Row(b, a, [0] * len(a), (dot, 0, 0))
            for a, b, dot in zip(p_bits.tolist(), dp_bits.tolist(), dots, strict=True)]
    found, more = passed(elementwise, rows, ("fp32", fmt, "fp32"), (False, True, False))
    assert found == to_bits(softmax_backward(p, dp, config=CONFIG)).tolist()
    device = open_device("emulator", DESIGN)
    device.softmax_backward(p, dp)
    assert device.counters["cycles"] == cycles + more


def test_the_gradient_of_log_softmax(elementwise):
    x, g = normal((11, 33), 3) * 4, normal((11, 33), 4)
    log_p = torch.log_softmax(x, -1)
    p = exact_softmax(log_p, "fp32", config=CONFIG)
    g_bits = to_bits(g).long()
    totals, cycles = sums(torch.full_like(g_bits, ONE), g_bits, ("fp32", "fp32"))
    rows = [Row(a, [0] * len(a), b, (0, total, 0)) for a, b, total in
            zip(to_bits(p).tolist(), g_bits.tolist(), totals, strict=True)]
    found, more = passed(elementwise, rows, ("fp32",) * 3, (True, False, True))
    assert found == to_bits(log_softmax_backward(log_p, g, config=CONFIG)).tolist()
    device = open_device("emulator", DESIGN)
    device.log_softmax_backward(log_p, g)
    assert device.counters["cycles"] == cycles + more + softmax_cycles(DESIGN, 11, 33)


def test_scale_and_mask_of_scores(elementwise):
    scores, mask = normal((7, 21), 5) * 30, normal((7, 21), 6)
    mask[:, 9:12] = -torch.inf
    factor = quantize(torch.tensor([21 ** -0.5]), "fp32")
    rows = [Row(a, [0] * len(a), b, (0, to_bits(factor).item(), 0)) for a, b in
            zip(to_bits(scores).tolist(), to_bits(-mask).tolist(), strict=True)]
    found, _ = passed(elementwise, rows, ("fp32",) * 3, (True, False, False))
    assert found == to_bits(scores * factor + mask).tolist()
