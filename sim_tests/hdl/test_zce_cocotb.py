"""The cocotb benches of the compression units on their generated Verilog."""

import pytest

from exactum.benches import runner
from exactum.gen.config import preset


@pytest.mark.parametrize("unit", ["skipper", "compressor", "decompressor"])
def test_bench_passes(unit, tmp_path):
    result = runner.run(unit, preset("default"), build_dir=tmp_path)
    assert result.passed, str(result)
