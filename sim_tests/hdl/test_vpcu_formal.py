"""Proofs about the streams of the VPCU: the contract for all time, and what goes in comes out."""

import pytest
from amaranth.hdl import *

from exactum.hdl.buffer import StreamBuffer
from exactum.hdl.force import ForceReader
from exactum.hdl.geometry import ROUND_LATENCY
from exactum.hdl.results import ResultBuffer
from exactum.hdl.rounder import Rounder
from exactum.hdl.vpcu import Vpcu
from sim_tests.formal import ProofFailed, prove, reach, saturating_count

TINY = {"lanes": 1, "formats": ["e4m3"], "accumulator_width": 43, "max_k": 64, "b_depth": 64}


def sums_leave_in_their_cycle(m, dut):
    """A result leaves ROUND_LATENCY cycles after each sum, and at no other time."""
    entered = Signal(ROUND_LATENCY)
    m.d.sync += entered.eq(Cat(dut.i.valid, entered))
    m.d.comb += Assert(dut.o.valid == entered[-1])


def what_went_in_comes_out(m, dut):
    """Two payloads at most wait, in order: one that is marked comes out where it should."""
    entered = saturating_count(m, dut.i.valid & dut.i.ready, 4)
    left = saturating_count(m, dut.o.valid & dut.o.ready, 4)
    m.d.comb += [
        Assume(dut.i.payload == entered),
        Assert((entered >= left) & (entered <= left + 2)),
        Assert(~dut.o.valid | (dut.o.payload == left)),
    ]


def results_have_room_and_keep_their_order(m, dut):
    """If rows reserve as in the VPCU, no result overwrites one that waits, whatever ``o`` does.

    There a row is reserved two cycles after there was room, four after the row before it.
    """
    reserved = Signal(6)
    entered = saturating_count(m, dut.i.valid, 6)
    left = saturating_count(m, dut.o.valid & dut.o.ready, 6)
    since, s1_has_room, s2_has_room = Signal(2, init=3), Signal(), Signal()
    m.d.sync += [reserved.eq(reserved + dut.reserve),
                 s1_has_room.eq(dut.has_room), s2_has_room.eq(s1_has_room),
                 since.eq(Mux(dut.reserve != 0, 0, since + (since != 3)))]
    m.d.comb += [
        Assume((dut.reserve == 0) | (s2_has_room & (since == 3) & (dut.reserve <= dut.row))),
        Assert(reserved - left <= dut.depth),
        Assume(~dut.i.valid | (entered < reserved)),
        Assume(dut.i.payload.data == entered),
        Assert(entered - left <= dut.depth),
        Assert(~dut.o.valid | (dut.o.payload.data == left)),
    ]


def every_row_of_windows_ends_once(m, dut):
    """Rows of one window: as many windows leave as ``rows`` says, then the tile is given back."""
    tile, is_second = dut.i.payload, Signal()
    m.d.comb += Assume((tile.is_single) & ((tile.rows_beyond < 0) == is_second))
    with m.If(dut.next_row):
        m.d.sync += is_second.eq(~is_second)
    taken = saturating_count(m, dut.o.valid & dut.o.ready, 5)
    given_back = saturating_count(m, dut.i.valid & dut.i.ready, 5)
    on_the_way = 2  # at most, on their way from the memory
    m.d.comb += [
        Assert(~dut.o.valid | dut.o.payload.last),
        Assert(taken + dut.o.valid + on_the_way >= 2 * given_back),
        Assert(taken + dut.o.valid <= 2 * given_back + 1),
    ]


def test_the_rounder_loses_and_doubles_nothing():
    prove(Rounder(accumulator_width=6), sums_leave_in_their_cycle, depth=ROUND_LATENCY + 3,
          contract=False)


def test_a_rounder_that_gives_nothing_is_refused():
    class Silent(Rounder):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            m.d.sync += self.o.valid.eq(0)
            return m

    with pytest.raises(ProofFailed):
        prove(Silent(accumulator_width=6), sums_leave_in_their_cycle, depth=ROUND_LATENCY + 3,
              contract=False)


def test_the_buffer_keeps_order_and_loses_nothing():
    prove(StreamBuffer(4), what_went_in_comes_out, depth=10)


def test_the_buffer_holds_what_it_offers_for_all_time():
    prove(StreamBuffer(4), depth=4, induction=3)


def test_the_results_keep_their_order_and_have_room():
    prove(ResultBuffer(row=2, depth=4), results_have_room_and_keep_their_order, depth=15)
    reach(ResultBuffer(row=2, depth=4), lambda m, dut: ~dut.has_room, depth=10)


class AlwaysRoom(ResultBuffer):
    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.sync += self.has_room.eq(1)
        return m


class RoomForOne(ResultBuffer):
    def elaborate(self, platform):
        row, self.row = self.row, self.row // 2
        m = super().elaborate(platform)
        self.row = row
        return m


@pytest.mark.parametrize("mutant", [AlwaysRoom, RoomForOne])
def test_a_buffer_of_results_that_promises_too_much_is_refused(mutant):
    with pytest.raises(ProofFailed):
        prove(mutant(row=2, depth=4), results_have_room_and_keep_their_order, depth=15)


def test_the_results_hold_what_they_offer_for_all_time():
    prove(ResultBuffer(row=2, depth=4), depth=3, induction=2)


def test_the_force_reader_gives_the_windows_of_every_row():
    # Its data come from a memory, so the contract is shown with it, in the proof of the VPCU.
    prove(ForceReader(depth=4), every_row_of_windows_ends_once, depth=10, contract=False)
    reach(ForceReader(depth=4), lambda m, dut: dut.i.valid & dut.i.ready, depth=6)


def test_the_streams_of_the_vpcu_hold_what_they_offer():
    prove(Vpcu(**TINY), depth=3, induction=2)
