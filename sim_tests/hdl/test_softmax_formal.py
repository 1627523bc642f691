"""Proofs about the softmax unit: the stream contract for all time, and that nothing is lost."""

import pytest
from amaranth.hdl import *

from exactum.hdl import softmax, softmax_output, softmax_power, softmax_reciprocal, softmax_sum
from exactum.hdl.softmax import Softmax, softmax_latency
from sim_tests.formal import ProofFailed, prove, reach, saturating_count

TINY = {"lanes": 1, "max_length": 2, "exp_segments": 16, "reciprocal_segments": 16}


class PlainLane(softmax_power.PowerLane):
    """A lane without arithmetic: the value is the element's low bits, as late as ever."""

    def elaborate(self, platform):
        m = Module()
        value = self.element[:len(self.power.value)]
        for number in range(softmax_power.POWER_LATENCY):
            stage = Signal.like(value, name=f"s{number}_value")
            m.d.sync += stage.eq(value)
            value = stage
        m.d.comb += self.power.value.eq(value)
        return m


class PlainProbability(softmax_output.Probability):
    """A multiplier that only hands on the value."""

    def elaborate(self, platform):
        m = Module()
        s1_value = Signal.like(self.power.value)
        with m.If(self.moves):
            m.d.sync += s1_value.eq(self.power.value)
        m.d.comb += self.o.eq(s1_value)
        return m


class PlainMerger(softmax_sum.Merger):
    """A sum that is its first part."""

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.key.eq(self.a.key)
        return m


class PlainReciprocal(softmax_reciprocal.Reciprocal):
    """A reciprocal that only comes in time."""

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.valid.eq(self.i.valid)
        return m


@pytest.fixture
def plain(monkeypatch):
    """The unit's control without its arithmetic, which would keep a solver busy for hours."""
    monkeypatch.setattr(softmax_power, "PowerLane", PlainLane)
    monkeypatch.setattr(softmax_sum, "Merger", PlainMerger)
    monkeypatch.setattr(softmax, "Reciprocal", PlainReciprocal)
    monkeypatch.setattr(softmax, "Probability", PlainProbability)


def every_beat_leaves_after_it_entered(m, dut):
    entered = saturating_count(m, dut.i.valid & dut.i.ready, 6)
    left = saturating_count(m, dut.o.valid & dut.o.ready, 6)
    m.d.comb += Assert(entered >= left + dut.o.valid)


def one_beat_rows_keep_their_order(m, dut):
    """The beat that enters as number n carries n, and so does the one that leaves as number n."""
    entered = saturating_count(m, dut.i.valid & dut.i.ready, 6)
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


class RestlessProbability(PlainProbability):
    """Takes the next power while its result still waits."""

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.power.value)
        return m


@pytest.mark.usefixtures("plain")
def test_a_payload_that_moves_while_it_waits_is_found(monkeypatch):
    monkeypatch.setattr(softmax, "Probability", RestlessProbability)
    with pytest.raises(ProofFailed):
        prove(Softmax(**TINY), depth=softmax_latency(1) + 4)
