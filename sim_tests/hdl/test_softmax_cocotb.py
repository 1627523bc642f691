"""The softmax unit's generated Verilog in Icarus, against the golden model."""

import pytest

from exactum.benches import runner
from exactum.gen.config import preset


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_verilog_equals_the_golden_model(name, tmp_path):
    result = runner.run("softmax", preset(name), build_dir=tmp_path)
    assert result.passed, str(result)
