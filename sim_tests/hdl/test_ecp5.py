# amaranth: UnusedElaboratable=no
"""What target "ecp5" instantiates equals what "generic" infers, part by part.

The adder by proof, on Yosys' model of the carry chain and on ours; multiplier and memory in Icarus.
"""

import random
import re
import subprocess
from pathlib import Path

import pytest
from amaranth.back import rtlil, verilog
from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

import exactum.hdl.accumulate as accumulate_module
import exactum.hdl.gather as gather_module
import exactum.hdl.softmax_reciprocal as softmax_reciprocal_module
import exactum.hdl.softmax_sum as softmax_sum_module
from exactum.gen.config import preset
from exactum.gen.primitives import models
from exactum.hdl.accumulate import Accumulate
from exactum.hdl.gather import Gather, look_up
from exactum.hdl.multiplier import MULTIPLIER_LATENCY, Multiplier, Product
from exactum.hdl.ram import RAM_LATENCY, Ram
from exactum.hdl.rom import ROM_LATENCY, Rom
from exactum.hdl.softmax_reciprocal import ChosenDifference
from exactum.hdl.softmax_sum import ScaledAdder
from sim_tests import formal

MODELS, = models(preset("tiny").replace({"target": "ecp5"}))
YOSYS_MODELS = "+/ecp5/cells_sim.v"  # in Yosys' own folder

BENCH = """
module bench;
    reg clk = 0, rst = 1, valid = 0;
    reg [{inputs} - 1:0] i;
    wire [{width} - 1:0] generic, ecp5;
    integer cycle = 0, compared = 0;
    reg [{latency} - 1:0] known = 0;
    pair dut (.clk(clk), .rst(rst), .i(i), .generic(generic), .ecp5(ecp5));
    always begin
        #5 clk = 1;
        #1 known = {{known, valid}};
        if (known[{latency} - 1]) begin
            compared = compared + 1;
            if (generic !== ecp5) $fatal(1, "cycle %0d: generic %h, ecp5 %h", cycle, generic, ecp5);
        end
        #4 clk = 0;
        cycle = cycle + 1;
        rst = 0;
        {stimulus}
        if (cycle == {cycles}) begin $display("compared %0d", compared); $finish; end
    end
endmodule
"""


class Pair(wiring.Component):
    """The same component for both targets, its inputs cut from ``i``."""

    def __init__(self, make, inputs):
        self.parts = {target: make(target) for target in ("generic", "ecp5")}
        self.inputs = inputs
        one = self.parts["generic"]
        width = sum(len(Value.cast(getattr(one, name))) for name in inputs)
        super().__init__({"i": In(width), **dict.fromkeys(self.parts, Out(len(one.o)))})

    def elaborate(self, platform):
        m = Module()
        for target, part in self.parts.items():
            m.submodules[f"part_{target}"] = part
            m.d.comb += [Cat(Value.cast(getattr(part, name)) for name in self.inputs).eq(self.i),
                         getattr(self, target).eq(part.o)]
        return m


def simulate(pair, folder, *, latency, stimulus, cycles, change=lambda text: text):
    """How often both outputs were compared; AssertionError with the simulator's last words."""
    text = verilog.convert(pair, name="pair", emit_src=False)
    (folder / "pair.v").write_text(change(text))
    (folder / "bench.v").write_text(BENCH.format(
        inputs=len(pair.i), width=len(pair.generic), latency=latency, stimulus=stimulus,
        cycles=cycles))
    built = subprocess.run(["iverilog", "-g2012", "-s", "bench", "-o", "bench.vvp", "bench.v",
                            "pair.v", MODELS],
                           cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    done = subprocess.run(["vvp", "-n", "bench.vvp"], cwd=folder, capture_output=True, text=True,
                          check=False, timeout=300)
    assert done.returncode == 0, done.stdout
    assert "compared" in done.stdout
    return int(done.stdout.split()[-1])


def adders_are_equal(width, magnitude_width, model, folder):
    """Prove it for all inputs; formal.ProofFailed if they are not."""
    prove_equal(Pair(lambda target: Accumulate(width=width, magnitude_width=magnitude_width,
                                               target=target),
                     ("sum", "clear", "magnitude", "negative", "carry")), model, folder)


def scaled_adders_are_equal(width, value_width, places, model, folder):
    prove_equal(Pair(lambda target: ScaledAdder(width=width, value_width=value_width,
                                                places=places, target=target),
                     ("sum", "value", "is_high", "carry")), model, folder)


def prove_equal(pair, model, folder):
    (folder / "pair.il").write_text(rtlil.convert(pair, name="pair"))
    if model != YOSYS_MODELS:
        (folder / "model.v").write_text(Path(model).read_text())
        model = "model.v"
    script = ["read_rtlil pair.il", f"read_verilog -overwrite {model}",
              "hierarchy -check -top pair", "prep -flatten -top pair",
              "select -assert-none t:CCU2C t:LUT4", "opt -full",
              "sat -verify -prove generic ecp5 pair"]
    (folder / "pair.ys").write_text("\n".join(script) + "\n")
    formal._run(folder, "yosys", "-q", "-s", "pair.ys")


@pytest.mark.parametrize("model", [YOSYS_MODELS, MODELS], ids=["model of Yosys", "our model"])
@pytest.mark.parametrize(("width", "magnitude_width"), [
    (5, 3), (24, 24), (24, 12), (50, 50), (50, 34)])
def test_the_adder_of_carry_chains_is_the_inferred_one(width, magnitude_width, model, tmp_path):
    adders_are_equal(width, magnitude_width, model, tmp_path)


@pytest.mark.parametrize("bit", [0, 1, 6, 10, 13])
def test_an_adder_with_another_table_is_caught(bit, tmp_path, monkeypatch):
    monkeypatch.setattr(accumulate_module, "_TABLE", accumulate_module._TABLE ^ 1 << bit)
    with pytest.raises(formal.ProofFailed, match="proof did fail"):
        adders_are_equal(6, 4, YOSYS_MODELS, tmp_path)


@pytest.mark.parametrize("model", [YOSYS_MODELS, MODELS], ids=["model of Yosys", "our model"])
@pytest.mark.parametrize(("width", "value_width", "places"), [
    (5, 3, 1), (6, 6, 2), (39, 32, 5), (43, 32, 7), (33, 31, 0)])
def test_the_scaled_adder_is_the_inferred_one(width, value_width, places, model, tmp_path):
    scaled_adders_are_equal(width, value_width, places, model, tmp_path)


@pytest.mark.parametrize("bit", [0, 1, 6, 11, 13])
def test_a_scaled_adder_with_another_table_is_caught(bit, tmp_path, monkeypatch):
    monkeypatch.setattr(softmax_sum_module, "_TABLE", softmax_sum_module._TABLE ^ 1 << bit)
    with pytest.raises(formal.ProofFailed, match="proof did fail"):
        scaled_adders_are_equal(6, 4, 1, YOSYS_MODELS, tmp_path)


def multipliers(width):
    return Pair(lambda target: Multiplier(width=width, target=target), ("a", "b"))


RANDOM = "valid = 1; i = {$random, $random};"


@pytest.mark.parametrize("width", [1, 11, 17, 18])
def test_the_multiplier_is_the_inferred_one(width, tmp_path):
    stimulus = RANDOM + " if (cycle % 8 == 0) i = {64{cycle[3]}};"
    assert simulate(multipliers(width), tmp_path, latency=MULTIPLIER_LATENCY, stimulus=stimulus,
                    cycles=4000) > 3900


def test_the_multiplier_that_holds_is_the_inferred_one(tmp_path):
    pair = Pair(lambda target: Multiplier(width=18, target=target, holds=True),
                ("a", "b", "enable"))
    # Its registers are known when it has moved a few times.
    assert simulate(pair, tmp_path, latency=MULTIPLIER_LATENCY, cycles=4000,
                    stimulus="valid = cycle > 60; i = {$random, $random};") > 3900


@pytest.mark.parametrize("latency", [1, 2])
@pytest.mark.parametrize(("a_width", "b_width"), [(18, 16), (1, 18), (22, 16)])
def test_the_short_multiplier_is_the_inferred_one(a_width, b_width, latency, tmp_path):
    pair = Pair(lambda target: Product(a_width=a_width, b_width=b_width, latency=latency,
                                       target=target), ("a", "b", "enable"))
    assert simulate(pair, tmp_path, latency=latency, cycles=4000,
                    stimulus="valid = cycle > 60; i = {$random, $random};") > 3900


def test_a_multiplier_that_does_not_hold_is_caught(tmp_path):
    pair = Pair(lambda target: Multiplier(width=18, target=target, holds=True),
                ("a", "b", "enable"))
    with pytest.raises(AssertionError, match="FATAL"):
        simulate(pair, tmp_path, latency=MULTIPLIER_LATENCY, cycles=400,
                 stimulus="valid = cycle > 60; i = {$random, $random};",
                 change=lambda text: re.sub(r"\.CE0\(.*?\)", ".CE0(1'h1)", text))


@pytest.mark.parametrize(("old", "new"), [
    ('.REG_PIPELINE_CLK("CLK0")', '.REG_PIPELINE_CLK("NONE")'),
    ('.GSR("DISABLED")', '.GSR("ENABLED")'), (".SIGNEDA(1'h0)", ".SIGNEDA(1'h1)"),
])
def test_another_mode_of_the_multiplier_stops_the_simulation(old, new, tmp_path):
    with pytest.raises(AssertionError, match="FATAL"):
        simulate(multipliers(18), tmp_path, latency=MULTIPLIER_LATENCY, stimulus=RANDOM, cycles=20,
                 change=lambda text: changed(text, old, new))


def changed(text, old, new):
    assert old in text
    return text.replace(old, new)


def memories(width, depth):
    return Pair(lambda target: Ram(width=width, depth=depth, target=target),
                ("address", "i_address", "write", "read", "i_data"))


def compare_memories(width, depth, folder, change=lambda text: text, reads=4000):
    """Every word written once; then random reads and writes, not of the same word at once; in
    every fourth cycle or so neither a new address nor a new output.
    """
    bits = (depth - 1).bit_length()
    stimulus = f"""
        i = {{{"$random, " * (width // 32 + 1)} 2'b11, {bits}'d0, {bits}'d0}};
        i[{bits} +: {bits}] = cycle - 1;
        i[0 +: {bits}] = cycle - 2;
        if (cycle > {depth}) begin
            i[0 +: {2 * bits + 1}] = {{$random, $random}};
            i[{2 * bits + 1}] = $random % 4 != 0;
            if (i[0 +: {bits}] == i[{bits} +: {bits}]) i[{2 * bits}] = 0;
        end
        valid = cycle > 2;"""
    return simulate(memories(width, depth), folder, latency=RAM_LATENCY, stimulus=stimulus,
                    cycles=depth + reads, change=change)


@pytest.mark.parametrize(("width", "depth"), [
    (18, 64), (1, 64), (37, 256), (100, 128), (19, 1024),    # 18 bits to a block
    (9, 2048), (31, 2048), (7, 4096), (3, 8192), (2, 16384),  # 9, 4, 2, 1
    (5, 32768),                                              # inferred for both
])
def test_the_memory_of_block_rams_is_the_inferred_one(width, depth, tmp_path):
    assert compare_memories(width, depth, tmp_path) > depth + 3900


@pytest.mark.parametrize(("old", "new", "words"), [
    ('.REGMODE_B("OUTREG")', '.REGMODE_B("NOREG")', "REGMODE"),
    ('.WRITEMODE_A("NORMAL")', '.WRITEMODE_A("WRITETHROUGH")', "WRITEMODE"),
    (".ADA0(1'h1)", ".ADA0(1'h0)", "both bytes"), (".WEB(1'h0)", ".WEB(1'h1)", "writes of B"),
    (".ADB13(1'h0)", ".ADB13(1'h1)", "generic"),
])
def test_another_mode_of_the_memory_is_caught(old, new, words, tmp_path):
    with pytest.raises(AssertionError, match=words):
        compare_memories(18, 64, tmp_path, lambda text: changed(text, old, new))


def tables(width, words, seed=1):
    """A `Rom`'s two outputs side by side."""
    generator = random.Random(seed)
    words = tuple(generator.getrandbits(width) for _ in range(words))

    class Both(Rom):
        def __init__(self, target):
            super().__init__(words=words, width=width, target=target)
            self.o = Cat(self.o_0, self.o_1)

    return Pair(Both, ("address_0", "address_1", "read"))


def compare_tables(width, words, folder, change=lambda text: text):
    """Random addresses; in every fourth cycle or so neither new ones nor new words."""
    return simulate(tables(width, words), folder, latency=ROM_LATENCY, cycles=4000, change=change,
                    stimulus=f"""
        i = {{$random, $random}};
        i[{2 * (words - 1).bit_length()}] = cycle < 9 || $random % 4 != 0;
        valid = cycle > 5;""")


@pytest.mark.parametrize(("width", "words"), [
    (18, 64), (1, 64), (37, 256), (43, 1024), (31, 2048), (20, 4096), (3, 8192), (2, 16384),
    (5, 32768)])
def test_the_table_of_block_rams_is_the_inferred_one(width, words, tmp_path):
    assert compare_tables(width, words, tmp_path) > 3900


@pytest.mark.parametrize(("old", "new", "words"), [
    ('.REGMODE_A("OUTREG")', '.REGMODE_A("NOREG")', "generic"),
    ('.REGMODE_B("OUTREG")', '.REGMODE_B("NOREG")', "REGMODE"),
    (".ADA13(1'h0)", ".ADA13(1'h1)", "generic"), (".OCEB(", ".OCEB(1'h0 & ", "generic"),
    (".INITVAL_03(320'h", ".INITVAL_03(320'h1 ^ 320'h", "generic"),
])
def test_another_mode_of_the_table_is_caught(old, new, words, tmp_path):
    with pytest.raises(AssertionError, match=words):
        compare_tables(18, 64, tmp_path, lambda text: changed(text, old, new))


def gathers_are_equal(width, count, model, folder):
    prove_equal(Pair(lambda target: Gather(width=width, count=count, target=target),
                     ("values", "select")), model, folder)


@pytest.mark.parametrize("model", [YOSYS_MODELS, MODELS], ids=["model of Yosys", "our model"])
@pytest.mark.parametrize(("width", "count"), [(1, 1), (3, 2), (2, 3), (2, 8), (1, 9), (1, 15)])
def test_the_gathering_of_look_up_tables_is_the_inferred_one(width, count, model, tmp_path):
    gathers_are_equal(width, count, model, tmp_path)


def test_a_gathering_with_another_table_is_caught(tmp_path, monkeypatch):
    def faulty(m, name, inputs, function):
        return look_up(m, name, inputs[:3], function)

    monkeypatch.setattr(gather_module, "look_up", faulty)
    with pytest.raises(formal.ProofFailed, match="proof did fail"):
        gathers_are_equal(2, 4, YOSYS_MODELS, tmp_path)


def differences_are_equal(width, model, folder):
    prove_equal(Pair(lambda target: ChosenDifference(width=width, target=target),
                     ("lower", "upper", "is_upper", "less")), model, folder)


@pytest.mark.parametrize("model", [YOSYS_MODELS, MODELS], ids=["model of Yosys", "our model"])
@pytest.mark.parametrize("width", [1, 6, 20, 21])
def test_the_difference_of_carry_chains_is_the_inferred_one(width, model, tmp_path):
    differences_are_equal(width, model, tmp_path)


@pytest.mark.parametrize("bit", [0, 1, 6, 11, 13])
def test_a_difference_with_another_table_is_caught(bit, tmp_path, monkeypatch):
    monkeypatch.setattr(softmax_reciprocal_module, "_TABLE",
                        softmax_reciprocal_module._TABLE ^ 1 << bit)
    with pytest.raises(formal.ProofFailed, match="proof did fail"):
        differences_are_equal(6, YOSYS_MODELS, tmp_path)
