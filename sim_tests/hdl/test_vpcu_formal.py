"""Proofs about the streams of the VPCU: the contract for all time, and what goes in comes out."""

from amaranth.hdl import *

from exactum.hdl.geometry import ROUND_LATENCY
from exactum.hdl.rounder import Rounder
from exactum.hdl.tile import ForceReader
from exactum.hdl.vpcu import Vpcu
from sim_tests.formal import prove, reach, saturating_count

TINY = {"lanes": 1, "formats": ["e4m3"], "accumulator_width": 43, "max_k": 64, "b_depth": 64}


def sums_wait_in_five_stages(m, dut):
    """As many sums are under way as went in and did not come out: never more than the stages."""
    entered = saturating_count(m, dut.i.valid & dut.i.ready, 5)
    left = saturating_count(m, dut.o.valid & dut.o.ready, 5)
    m.d.comb += Assert(entered >= left + dut.o.valid)
    m.d.comb += Assert(entered <= left + ROUND_LATENCY)


def every_row_of_windows_ends_once(m, dut):
    """Rows of one window: as many windows leave as ``rows`` says, then the tile is given back."""
    operation = dut.i.payload.operation
    m.d.comb += Assume((operation.k <= 64) & (operation.rows == 2))
    taken = saturating_count(m, dut.o.valid & dut.o.ready, 5)
    given_back = saturating_count(m, dut.i.valid & dut.i.ready, 5)
    m.d.comb += [
        Assert(~dut.o.valid | dut.o.payload.last),
        Assert(taken + dut.o.valid >= 2 * given_back),
        Assert(taken + dut.o.valid <= 2 * given_back + 1),
    ]


def test_the_rounder_holds_what_it_offers_for_all_time():
    prove(Rounder(accumulator_width=6), depth=3, induction=2)


def test_the_rounder_loses_and_doubles_nothing():
    prove(Rounder(accumulator_width=6), sums_wait_in_five_stages, depth=10)


def test_the_force_reader_gives_the_windows_of_every_row():
    # Its data come from a memory, so the contract is shown with it, in the proof of the VPCU.
    prove(ForceReader(depth=4), every_row_of_windows_ends_once, depth=10, contract=False)
    reach(ForceReader(depth=4), lambda m, dut: dut.i.valid & dut.i.ready, depth=6)


def test_the_streams_of_the_vpcu_hold_what_they_offer():
    prove(Vpcu(**TINY), depth=3, induction=2)
