"""Proofs about the softmax unit: the stream contract for all time, and that nothing is lost."""

import pytest
from amaranth.hdl import *
from amaranth.lib import data

from exactum.hdl import softmax, softmax_input, softmax_output, softmax_passes, softmax_power
from exactum.hdl.arithmetic import delayed
from exactum.hdl.softmax import Softmax, softmax_latency
from exactum.hdl.softmax_input import INPUT_LATENCY
from exactum.hdl.softmax_layouts import Part
from exactum.hdl.softmax_power import POWER_LATENCY
from sim_tests.formal import ProofFailed, prove, reach, saturating_count

TINY = {"lanes": 1, "max_length": 2, "exp_entries": 2048, "reciprocal_entries": 2048,
        "value_width": 18}


# Narrow, since memories are what takes a solver long.
NUMBER = data.StructLayout({"key": 1, "fixed": 6})
POWER = data.StructLayout({"value": 6, "height": 8})


class PlainInput(softmax.InputStage):
    """A first pass without arithmetic: the magnitude is the element's low bits."""

    def elaborate(self, platform):
        m = Module()
        o = self.o.payload.numbers[0].fixed
        m.d.comb += [
            o.eq(delayed(m, self.i.payload.elements[0][:6], INPUT_LATENCY, "element")),
            self.o.valid.eq(delayed(m, self.i.valid, INPUT_LATENCY, "valid", reset_less=False)),
        ]
        return m


class PlainPowers(softmax_passes.Powers):
    """Powers that are the magnitudes, as late as ever."""

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.powers[0].value.eq(
            delayed(m, self.numbers[0].fixed[:6], POWER_LATENCY, "value"))
        return m


class PlainProbabilities(softmax_passes.Probabilities):
    """A multiplier that only hands on the value."""

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o[0].eq(delayed(m, self.powers[0].value[:6], 3, "value"))
        return m


def idle(base):
    """The component without anything in it."""
    return type(f"Idle{base.__name__}", (base,), {"elaborate": lambda self, platform: Module()})


@pytest.fixture
def plain(monkeypatch):
    """The unit's control without its arithmetic, which would keep a solver busy for hours."""
    for module in (softmax_input, softmax_passes, softmax_power):
        monkeypatch.setattr(module, "number", lambda width: NUMBER)
    for module in (softmax_output, softmax_power):
        monkeypatch.setattr(module, "power", lambda width: POWER)
    monkeypatch.setattr(softmax, "InputStage", PlainInput)
    monkeypatch.setattr(softmax, "Maximum", idle(softmax.Maximum))
    monkeypatch.setattr(softmax_passes, "Powers", PlainPowers)
    monkeypatch.setattr(softmax_passes, "Probabilities", PlainProbabilities)
    for name in ("Reference", "RowSum", "Reciprocal"):
        monkeypatch.setattr(softmax_passes, name, idle(getattr(softmax_passes, name)))


def every_beat_leaves_after_it_entered(m, dut):
    entered = saturating_count(m, dut.i.valid & dut.i.ready, 6)
    left = saturating_count(m, dut.o.valid & dut.o.ready, 6)
    m.d.comb += Assert(entered >= left + dut.o.valid)


def one_beat_rows_keep_their_order(m, dut):
    """The beat that enters as number n of those that are to come out carries n, and so does the one
    that leaves as number n."""
    part = dut.i_operation.payload.part
    comes_out = (part == Part.WHOLE) | (part == Part.PROBABILITIES)
    entered = saturating_count(m, dut.i.valid & dut.i.ready & comes_out, 6)
    left = saturating_count(m, dut.o.valid & dut.o.ready, 6)
    m.d.comb += Assume(dut.i.payload.elements[0] == entered)
    m.d.comb += Assume(dut.i.payload.last & (dut.i.payload.count == 1))
    m.d.comb += Assert(~dut.o.valid | (dut.o.payload.elements[0] == left))


def test_no_valid_depends_on_a_ready():
    prove(Softmax(**TINY), depth=2)


@pytest.mark.usefixtures("plain")
def test_stream_contract_holds_for_all_time():
    prove(Softmax(**TINY), depth=2, induction=2)


@pytest.mark.usefixtures("plain")
def test_no_beat_is_lost_or_doubled():
    depth = softmax_latency(1) + 4
    prove(Softmax(**TINY), every_beat_leaves_after_it_entered, one_beat_rows_keep_their_order,
          depth=depth)
    reach(Softmax(**TINY), lambda m, dut: dut.o.valid & ~dut.o.ready & dut.o.payload.last,
          depth=depth)


@pytest.mark.usefixtures("plain")
def test_a_payload_that_moves_while_it_waits_is_found(monkeypatch):
    monkeypatch.setattr(softmax, "EnableInserter", lambda moves: lambda passes: passes)
    with pytest.raises(ProofFailed):
        prove(Softmax(**TINY), depth=2, induction=2)
