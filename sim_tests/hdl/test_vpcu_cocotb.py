"""The cocotb bench of the VPCU on its generated Verilog."""

from exactum.benches import runner
from exactum.gen.config import preset


def test_bench_passes(tmp_path):
    config = preset("small").replace({"vpcu.lanes": 2, "vpcu.b_depth": 128})
    result = runner.run("vpcu", config, build_dir=tmp_path)
    assert result.passed, str(result)
