"""The prover itself: it proves what holds and refuses what does not."""

import pytest
from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sim_tests.formal import ProofFailed, prove, reach, saturating_count


class Register(wiring.Component):
    """A stream register, with a switch for each way to break the contract."""

    i: In(stream.Signature(4))
    o: Out(stream.Signature(4))

    def __init__(self, fault=None):
        self.fault = fault
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        full = Signal()
        m.d.comb += [self.i.ready.eq(~full | self.o.ready), self.o.valid.eq(full)]
        if self.fault == "valid depends on ready":
            m.d.comb += self.o.valid.eq(full & self.o.ready)
        if self.fault == "gives up":
            m.d.sync += full.eq(0)
        if self.fault == "payload changes":
            m.d.sync += self.o.payload.eq(self.o.payload + 1)
        with m.If(self.i.ready):
            m.d.sync += [full.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
        return m


def gives_what_it_took(m, dut):
    taken = saturating_count(m, dut.i.valid & dut.i.ready, 4)
    given = saturating_count(m, dut.o.valid & dut.o.ready, 4)
    m.d.comb += Assert(~dut.o.valid | (taken > given) | taken.all())


def test_contract_of_a_stream_register_is_proven():
    prove(Register(), gives_what_it_took, depth=10)
    prove(Register(), depth=5, induction=3)
    reach(Register(), lambda m, dut: dut.o.valid & ~dut.o.ready & (dut.o.payload == 7), depth=4)


@pytest.mark.parametrize("fault", ["valid depends on ready", "gives up", "payload changes"])
def test_each_breach_of_contract_is_found(fault):
    with pytest.raises(ProofFailed):
        prove(Register(fault), depth=6)


def test_a_property_that_does_not_hold_is_refused():
    def wrong(m, dut):
        m.d.comb += Assert(dut.o.payload != 9)

    with pytest.raises(ProofFailed, match="test_formal"):
        prove(Register(), wrong, depth=6)


def test_what_cannot_happen_is_not_reached():
    with pytest.raises(ProofFailed):
        reach(Register(), lambda m, dut: dut.o.valid & ~dut.o.valid, depth=4)
