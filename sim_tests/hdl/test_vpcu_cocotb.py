"""The cocotb bench of the VPCU on its generated Verilog."""

import pytest

from exactum.benches import runner
from exactum.gen.config import preset


@pytest.mark.parametrize("changes", [
    {"vpcu.lanes": 2, "vpcu.b_depth": 128},
    {"vpcu.lanes": 1, "vpcu.b_depth": 128, "target": "ecp5"},
    {"vpcu.lanes": 2, "vpcu.b_depth": 128, "target": "ecp5", "vpcu.formats": ["e4m3"],
     "vpcu.accumulator_width": 48, "vpcu.max_k": 2048, "vpcu.scale_block": 0},
], ids=["generic", "on an ECP5", "E4M3 alone on an ECP5"])
def test_bench_passes(changes, tmp_path):
    config = preset("small").replace(changes)
    result = runner.run("vpcu", config, build_dir=tmp_path)
    assert result.passed, str(result)
