"""The softmax unit's generated Verilog in Icarus, against the golden model."""

from exactum.benches import runner
from exactum.gen.config import preset


def test_verilog_equals_the_golden_model(tmp_path):
    result = runner.run("softmax", preset("small"), build_dir=tmp_path)
    assert result.passed, str(result)
