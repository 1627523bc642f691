"""The cocotb bench of the engine on generated Verilog, in the smallest builds that show it all."""

import pytest

from exactum.benches import runner
from exactum.gen.config import preset

PAIRS = "every_pair_of_8_bit_operands"
FORMATS_OF_8_BITS = {"formats": ["e4m3", "e5m2"], "accumulator_width": 71, "max_k": 64,
                     "b_depth": 64, "lanes": 1}


@pytest.mark.parametrize(("vpcu", "tests"), [
    (FORMATS_OF_8_BITS, [PAIRS]),
    ({"lanes": 1, "max_k": 64, "b_depth": 64}, [
        "as_many_of_the_largest_as_the_window_holds", "cycles_are_those_of_the_formula",
        "random_sums_of_every_length_in_every_format"]),
    ({"lanes": 2, "b_depth": 256}, [
        "edge_values_of_every_pair_of_formats", "directed_sums_of_every_pair_of_formats",
        "random_sums_of_every_pair_of_formats", "random_sums_of_every_length_in_every_format",
        "stalls_change_nothing",
        "as_many_of_the_largest_as_the_window_holds", "formats_switch_between_operations",
        "formats_switch_while_rows_of_few_elements_wait",
        "no_elements_over_a_bank_that_held_infinities", "lost_tells_of_dropped_bits",
        "cycles_are_those_of_the_formula"]),
], ids=["every pair of 8-bit operands", "sums that fill the window", "all formats"])
def test_bench_passes(vpcu, tests, tmp_path):
    config = preset("small").replace({f"vpcu.{key}": value for key, value in vpcu.items()})
    result = runner.run("engine", config, build_dir=tmp_path, tests=tests)
    assert result.passed, str(result)
    names = {case.name.split("/")[0] for case in result.cases}
    assert names == set(tests)
