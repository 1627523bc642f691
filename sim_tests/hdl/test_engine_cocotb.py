"""The cocotb bench of the engine on generated Verilog, in the smallest builds that show it all.

For target "ecp5" on models of its primitives: the same bits, the same cycles. What takes Icarus
minutes goes through the compiled engine: all pairs of 8-bit operands of each two formats
(host/test_native_pairs.py), and sums longer than 64 (host/test_native_products.py).
"""

import pytest

from exactum.benches import runner
from exactum.gen.config import preset

FORMATS_OF_8_BITS = {"formats": ["e4m3", "e5m2"], "accumulator_width": 71, "max_k": 64,
                     "b_depth": 64, "lanes": 1}
SCALED = ["scales_at_their_ends", "nan_scales_reach_zeros_too", "scaled_sums_of_many_lengths",
          "mx_products_are_those_of_their_values"]
ECP5 = {"target": "ecp5"}


@pytest.mark.parametrize(("vpcu", "tests", "others"), [
    (FORMATS_OF_8_BITS, [
        "edge_values_of_every_pair_of_formats", "directed_sums_of_every_pair_of_formats",
        "random_sums_of_every_length_in_every_format", "formats_switch_between_operations",
        "cycles_are_those_of_the_formula"], {}),
    ({"lanes": 1, "max_k": 64, "b_depth": 64}, [
        "as_many_of_the_largest_as_the_window_holds", "cycles_are_those_of_the_formula",
        "random_sums_of_every_length_in_every_format"], {}),
    ({"lanes": 2, "b_depth": 256}, [
        "directed_sums_of_every_pair_of_formats", "stalls_change_nothing",
        "as_many_of_the_largest_as_the_window_holds", "formats_switch_between_operations",
        "formats_switch_while_rows_of_few_elements_wait",
        "no_elements_over_a_bank_that_held_infinities", "lost_tells_of_dropped_bits",
        "cycles_are_those_of_the_formula", *SCALED], {}),
    ({"lanes": 1, "formats": ["e4m3", "bf16"], "max_k": 128, "b_depth": 64, "scale_block": 16}, [
        *SCALED[:3], "stalls_change_nothing", "compressed_and_transposed_products"], {}),
    ({"lanes": 1, "max_k": 128, "b_depth": 64}, [
        "edge_values_of_every_pair_of_formats", "random_sums_of_every_pair_of_formats",
        "no_elements_over_a_bank_that_held_infinities", "cycles_are_those_of_the_formula",
        SCALED[0]], ECP5),
    (FORMATS_OF_8_BITS | {"formats": ["e4m3"], "accumulator_width": 48, "scale_block": 0}, [
        "edge_values_of_every_pair_of_formats", "directed_sums_of_every_pair_of_formats",
        "random_sums_of_every_length_in_every_format", "stalls_change_nothing",
        "as_many_of_the_largest_as_the_window_holds", "cycles_are_those_of_the_formula"], ECP5),
], ids=["formats of 8 bits", "sums that fill the window", "all formats",
        "scales of 16 elements", "all formats on an ECP5", "E4M3 alone on an ECP5"])
def test_bench_passes(vpcu, tests, others, tmp_path):
    config = preset("small").replace(others | {f"vpcu.{key}": x for key, x in vpcu.items()})
    result = runner.run("engine", config, build_dir=tmp_path, tests=tests)
    assert result.passed, str(result)
    names = {case.name.split("/")[0] for case in result.cases}
    assert names == set(tests)


def test_without_scales_the_bench_has_none(tmp_path):
    result = runner.run("engine", preset("tiny"), build_dir=tmp_path,
                        tests=["lost_tells_of_dropped_bits", *SCALED])
    assert [case.name for case in result.cases] == ["lost_tells_of_dropped_bits"]
