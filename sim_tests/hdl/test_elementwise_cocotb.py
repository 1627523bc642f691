"""The elementwise unit's generated Verilog in Icarus, against the golden model."""

from exactum.benches import runner
from exactum.gen.config import preset


def test_verilog_equals_the_golden_model(tmp_path):
    config = preset("small").replace({"elementwise.lanes": 2})
    result = runner.run("elementwise", config, build_dir=tmp_path)
    assert result.passed, str(result)
