"""The description of ports: offsets and widths as the layouts pack them, names as in Verilog."""

import json
import re

import pytest
from amaranth.hdl import Fragment, Module, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from exactum.gen.config import preset
from exactum.gen.describe import describe
from exactum.gen.units import UNITS, Unit, build
from exactum.gen.verilog import emit
from exactum.hdl.formats import FormatCode

TINY = preset("tiny")
Inner = data.StructLayout({"kind": FormatCode, "level": signed(5)})
Payload = data.StructLayout({"flag": 1, "inner": Inner, "pair": data.ArrayLayout(signed(4), 2)})


class Sample(wiring.Component):
    def __init__(self, *, size):
        super().__init__({"i": In(stream.Signature(Payload)), "o": Out(stream.Signature(8)),
                          "level": In(signed(size)), "count": Out(3)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.count.eq(self.count + self.i.valid)
        return m


SAMPLE = Unit("sample", "Sample", "nothing much", lambda config: {"size": config.vpcu.lanes + 6})


@pytest.fixture(scope="module")
def sample():
    component = Sample(size=7)
    Fragment.get(component, None)  # Amaranth warns of components that are never elaborated
    return describe(SAMPLE, component, TINY)


def test_fields_are_the_leaves_of_the_layout_with_their_offsets(sample):
    codes = {"E4M3": 0, "E5M2": 1, "FP16": 2, "BF16": 3, "FP32": 4}
    assert sample["streams"]["i"]["fields"] == [
        {"name": "flag", "offset": 0, "width": 1, "signed": False},
        {"name": "inner.kind", "offset": 1, "width": 3, "signed": False, "values": codes},
        {"name": "inner.level", "offset": 4, "width": 5, "signed": True},
        {"name": "pair.0", "offset": 9, "width": 4, "signed": True},
        {"name": "pair.1", "offset": 13, "width": 4, "signed": True}]
    assert sample["streams"]["i"]["width"] == 17


def test_offsets_agree_with_the_layouts_own_packing(sample):
    value = {"flag": 1, "inner": {"kind": FormatCode.BF16, "level": -3}, "pair": [-8, 7]}
    bits = Payload.const(value).as_bits()
    read = {f["name"]: bits >> f["offset"] & ((1 << f["width"]) - 1)
            for f in sample["streams"]["i"]["fields"]}
    assert read == {"flag": 1, "inner.kind": 3, "inner.level": 29, "pair.0": 8, "pair.1": 7}


def test_directions_and_grouping(sample):
    ports = {p["name"]: (p["direction"], p["width"], p["signed"], p["stream"])
             for p in sample["ports"]}
    assert ports == {
        "clk": ("in", 1, False, None), "rst": ("in", 1, False, None),
        "i__payload": ("in", 17, False, "i"), "i__valid": ("in", 1, False, "i"),
        "i__ready": ("out", 1, False, "i"), "o__payload": ("out", 8, False, "o"),
        "o__valid": ("out", 1, False, "o"), "o__ready": ("in", 1, False, "o"),
        "level": ("in", 7, True, None), "count": ("out", 3, False, None)}
    assert (sample["streams"]["i"]["direction"], sample["streams"]["o"]["direction"]) == (
        "in", "out")


def test_names_the_configuration_and_the_parameters(sample):
    assert sample["configuration"] == {"name": "tiny", "hash": TINY.hash}
    assert sample["parameters"] == {"size": 7}
    assert (sample["unit"], sample["module"]) == ("sample", "exactum_sample")


def verilog_ports(text, module):
    """Direction and width of each port of the top module, read from the Verilog."""
    names = re.search(rf"^module {module}\((.*?)\);", text, re.M | re.S)[1].split(", ")
    body = text[text.index(f"\nmodule {module}("):]
    found = {}
    for name in names:
        port = re.search(rf"^  (input|output) (?:signed )?(?:\[(\d+):0\] )?{name} ?;", body, re.M)
        found[name] = (port[1].removesuffix("put"), int(port[2] or 0) + 1)
    return found


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS.keys())
def test_description_agrees_with_the_verilog(unit):
    component = build(unit, TINY)
    described = json.loads(json.dumps(describe(unit, component, TINY)))
    ports = {p["name"]: (p["direction"], p["width"]) for p in described["ports"]}
    assert ports == verilog_ports(emit(unit, component, TINY).text, unit.top)
    for name, stream_ in described["streams"].items():
        assert {f"{name}__payload", f"{name}__valid", f"{name}__ready"} <= set(ports)
        assert stream_["width"] == sum(f["width"] for f in stream_["fields"])
