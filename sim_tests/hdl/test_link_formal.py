"""Proofs about the link's parts: streams that keep their contract, words that are not lost."""

import pytest
from amaranth.hdl import *

from exactum.hdl.link import Link
from exactum.hdl.ram_stream import RamStream
from exactum.hdl.replies import Replies
from exactum.hdl.word_mover import WordMover
from sim_tests.formal import ProofFailed, prove, reach, saturating_count


def begins_when_it_may(m, dut):
    """Never while it is busy, never two things at once, always with words."""
    m.d.comb += [
        Assume(~dut.busy | ~(dut.writes | dut.reads | dut.stops)),
        Assume((dut.writes + dut.reads + dut.stops) < 2),
        Assume(dut.count != 0),
    ]


def replies_follow_requests(m, dut):
    """The bus answers a read once it has taken it."""
    asked = saturating_count(m, dut.o_request.valid & dut.o_request.ready
                             & ~dut.o_request.payload.write, 3)
    answered = saturating_count(m, dut.i_reply.valid & dut.i_reply.ready, 3)
    m.d.comb += [
        Assume(~dut.i_reply.valid | (answered < asked)),
        Assert(asked <= answered + 1),
        Assert(~dut.o_request.valid | dut.busy),
    ]


def test_no_valid_of_the_link_depends_on_a_ready():
    prove(Link(memory_words=512), depth=2)


def test_words_are_asked_for_one_by_one_and_wait_unchanged():
    prove(WordMover(), begins_when_it_may, replies_follow_requests, depth=13)
    reach(WordMover(), lambda m, dut: dut.o_request.valid & dut.o.valid, depth=8)


def test_a_memory_that_is_read_keeps_the_contract_for_all_time():
    prove(RamStream(width=2, depth=4), depth=3, induction=3)


def test_replies_keep_the_contract():
    prove(Replies(), depth=24)


def test_a_word_that_moves_while_it_waits_is_found(monkeypatch):
    def shared(shape, **options):
        return words.setdefault(len(Signal(shape)), Signal(shape))

    words = {}
    monkeypatch.setattr("exactum.hdl.word_mover.register", shared)
    with pytest.raises(ProofFailed):
        prove(WordMover(), begins_when_it_may, replies_follow_requests, depth=12)
