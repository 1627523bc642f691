# amaranth: UnusedElaboratable=no
"""The fp32 adder against exact sums, rounded once."""

from itertools import islice

import pytest
from amaranth.hdl import *

import exactum.hdl.float_add as module
import exactum.hdl.float_pack as pack
from exactum.hdl.float_add import ADD_LATENCY, FloatAdd
from sim_tests.float_cases import close_pairs, hard_pairs, random_pairs, results, tie_pairs
from sim_tests.oracle import add

NAN, INF, ONE, TINY = 0x7FC00000, 0x7F800000, 0x3F800000, 0x00000001
MINUS = 1 << 31


def check(pairs):
    pairs = list(pairs)
    for (a, b), found in zip(pairs, results(FloatAdd(), pairs, ADD_LATENCY), strict=True):
        wanted = add(a, b)
        assert found == wanted, f"{a:#x} + {b:#x}: {found:#x}, not {wanted:#x}"


BY_HAND = [
    (0, MINUS, 0), (MINUS, MINUS, MINUS), (ONE, ONE | MINUS, 0), (TINY, TINY | MINUS, 0),
    (TINY, TINY, 2), (0x007FFFFF, TINY, 0x00800000), (0x00800000, MINUS | TINY, 0x007FFFFF),
    (0x7F7FFFFF, 0x73000000, INF), (0x7F7FFFFF, 0x72FFFFFF, 0x7F7FFFFF), (INF, ONE | MINUS, INF),
    (INF, INF | MINUS, NAN), (INF | MINUS, INF | MINUS, INF | MINUS), (0xFF800001, ONE, NAN),
    (ONE, 0x33800000, ONE), (ONE, 0x33800001, ONE + 1), (ONE + 1, 0x33800000, ONE + 2),
    (ONE, MINUS | 0x33000001, ONE - 1), (ONE, MINUS | 0x33000000, ONE), (0x7F7FFFFF,) * 2 + (INF,)]


def test_sums_by_hand():
    assert [add(a, b) for a, b, _ in BY_HAND] == [total for *_, total in BY_HAND]
    check([pair for a, b, _ in BY_HAND for pair in ((a, b), (b, a))])


DIRECTED = [*islice(hard_pairs(), 0, None, 29), *tie_pairs(500, 1), *close_pairs(300, 2),
            *random_pairs(100, 3)]


def test_ties_cancellation_and_any_bits():
    check(DIRECTED)


@pytest.mark.parametrize(("home", "name", "fault"), [
    (module, "effective", lambda exponent: exponent),
    (module, "KEPT", module.KEPT - 1),
    (module, "shift_right", lambda m, value, sticky, amount: (
        pack.shift_right(m, value, sticky, amount)[0], Const(0))),
    (module, "skip_zeros", lambda m, value, room, step: pack.skip_zeros(
        m, value, Const(2 * step - 1, len(room)), step)),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_fault_is_caught(home, name, fault, monkeypatch):
    monkeypatch.setattr(home, name, fault)
    with pytest.raises(AssertionError):
        check(DIRECTED)
