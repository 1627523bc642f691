# amaranth: UnusedElaboratable=no
"""The fp32 multiplier against exact products, rounded once."""

from itertools import islice

import pytest
from amaranth.hdl import *

import exactum.hdl.float_multiply as module
import exactum.hdl.float_pack as pack
from exactum.hdl.float_multiply import MULTIPLY_LATENCY, FloatMultiply
from sim_tests.float_cases import hard_pairs, near_smallest_pairs, random_pairs, results
from sim_tests.oracle import multiply

NAN, INF, ONE, TINY, SMALLEST = 0x7FC00000, 0x7F800000, 0x3F800000, 0x00000001, 0x00800000
MINUS = 1 << 31


def check(pairs):
    pairs = list(pairs)
    outs = results(FloatMultiply(), pairs, MULTIPLY_LATENCY)
    for (a, b), found in zip(pairs, outs, strict=True):
        wanted = multiply(a, b)
        assert found == wanted, f"{a:#x} * {b:#x}: {found:#x}, not {wanted:#x}"


BY_HAND = [
    (0, ONE, 0), (MINUS, ONE, MINUS), (MINUS, MINUS, 0), (0, INF, NAN), (INF, MINUS, NAN),
    (INF, TINY | MINUS, INF | MINUS), (0x7F800001, 0, NAN), (TINY, TINY, 0),
    (TINY | MINUS, TINY, MINUS), (TINY, ONE, TINY), (TINY, 0x3F000000, 0), (3, 0x3F000000, 2),
    (TINY, 0x3F000001, 1), (SMALLEST, 0x3F7FFFFF, SMALLEST), (SMALLEST, 0x3F7FFFFE, 0x007FFFFF),
    (0x007FFFFF, 0x40000000, 0x00FFFFFE), (0x7F7FFFFF, 0x3F800001, INF), (0x7F000000, ONE + 1,
    0x7F000001), (0x7F000000, 0x40000000, INF), (TINY, 0x7F7FFFFF, 0x34FFFFFF),
    (0x5F7FFFFF, 0x5F800000, 0x7F7FFFFF), (0x3F800001,) * 2 + (0x3F800002,)]


def test_products_by_hand():
    assert [multiply(a, b) for a, b, _ in BY_HAND] == [product for *_, product in BY_HAND]
    check([pair for a, b, _ in BY_HAND for pair in ((a, b), (b, a))])


DIRECTED = [*islice(hard_pairs(), 0, None, 29), *near_smallest_pairs(700, 1), *random_pairs(100, 3)]


def test_products_near_the_subnormals_and_any_bits():
    check(DIRECTED)


@pytest.mark.parametrize(("name", "fault"), [
    ("effective", lambda exponent: exponent), ("KEPT", module.KEPT - 1),
    ("shift_right", lambda m, value, sticky, amount: (
        pack.shift_right(m, value, sticky, amount)[0], Const(0))),
    ("skip_zeros", lambda m, value, room, step: pack.skip_zeros(
        m, value, Const(0, len(room)), step)),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_fault_is_caught(name, fault, monkeypatch):
    monkeypatch.setattr(module, name, fault)
    with pytest.raises(AssertionError):
        check(DIRECTED)
