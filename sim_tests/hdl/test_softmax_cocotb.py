"""The softmax unit's generated Verilog in Icarus, against the golden model."""

import pytest

from exactum.benches import runner
from exactum.gen.config import preset


@pytest.mark.parametrize(("softmax", "tests"), [
    ({}, None),
    ({"lanes": 16, "max_length": 16}, ["stalls_change_nothing"]),
], ids=["small", "rows of one beat"])
def test_verilog_equals_the_golden_model(softmax, tests, tmp_path):
    config = preset("small").replace({f"softmax.{key}": n for key, n in softmax.items()})
    result = runner.run("softmax", config, build_dir=tmp_path, tests=tests)
    assert result.passed, str(result)
