"""Proofs about the elementwise unit: the stream contract for all time, and that nothing is lost."""

import pytest
from amaranth.hdl import *

from exactum.hdl import elementwise
from exactum.hdl.arithmetic import delayed
from exactum.hdl.elementwise import Elementwise
from sim_tests.formal import ProofFailed, prove, reach, saturating_count

LATENCY = 5


class PlainChain(elementwise.Chain):
    """A lane without arithmetic: x, just in time."""

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(delayed(m, self.x[:6], LATENCY - 1, "x"))
        return m


@pytest.fixture
def plain(monkeypatch):
    """The unit's control without its arithmetic, and a shorter one: a solver takes all else."""
    monkeypatch.setattr(elementwise, "Chain", PlainChain)
    monkeypatch.setattr(elementwise, "ELEMENTWISE_LATENCY", LATENCY)
    monkeypatch.setattr(elementwise, "ADD_LATENCY", 2)


def beats_keep_their_order(m, dut):
    """The beat that enters as number n carries n, and so does the one that leaves as number n."""
    entered = saturating_count(m, dut.i.valid & dut.i.ready, 6)
    left = saturating_count(m, dut.o.valid & dut.o.ready, 6)
    m.d.comb += [
        Assume(dut.i.payload.x[0] == entered),
        Assert(entered >= left + dut.o.valid),
        Assert(~dut.o.valid | (dut.o.payload.elements[0] == left)),
    ]


def a_row_and_an_operation_go_with_their_last_beat(m, dut):
    ends = dut.i.valid & dut.i.ready & dut.i.payload.last
    m.d.comb += [
        Assert((dut.i_row.valid & dut.i_row.ready) == ends),
        Assert(ends | ~(dut.i_operation.valid & dut.i_operation.ready)),
    ]


def test_no_valid_depends_on_a_ready():
    prove(Elementwise(lanes=1), depth=2)


@pytest.mark.usefixtures("plain")
def test_stream_contract_holds_for_all_time():
    prove(Elementwise(lanes=1), a_row_and_an_operation_go_with_their_last_beat, depth=2,
          induction=2)


@pytest.mark.usefixtures("plain")
def test_no_beat_is_lost_or_doubled():
    depth = LATENCY + 6
    prove(Elementwise(lanes=1), beats_keep_their_order, depth=depth)
    reach(Elementwise(lanes=1), lambda m, dut: dut.o.valid & ~dut.o.ready, depth=depth)


@pytest.mark.usefixtures("plain")
def test_a_payload_that_moves_while_it_waits_is_found(monkeypatch):
    monkeypatch.setattr(elementwise, "EnableInserter", lambda moves: lambda chains: chains)
    with pytest.raises(ProofFailed):
        prove(Elementwise(lanes=1), depth=2, induction=2)
