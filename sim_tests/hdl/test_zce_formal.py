"""Properties of the zero-compression units, for every input and every stall."""

import pytest
from amaranth.hdl import *

from exactum.hdl import compressor, decompressor, skipper
from exactum.hdl.bitstream import BitPacker
from exactum.hdl.compressor import Compressor
from exactum.hdl.decompressor import Decompressor
from exactum.hdl.formats import FormatCode
from exactum.hdl.header import HeaderReader
from exactum.hdl.skipper import SKIPPER_LATENCY, Skipper
from exactum.hdl.unpacker import ValueUnpacker
from sim_tests.formal import ProofFailed, prove, reach, saturating_count


def transfer(port):
    return port.valid & port.ready


def words_are_numbered(m, dut):
    """The n-th value of a row of fp32 is n: words 0 | 1 << 32, 2 | 3 << 32, ..."""
    words = saturating_count(m, transfer(dut.i_values))
    m.d.comb += [
        Assume(dut.i_mask.payload.format == FormatCode.FP32),
        Assume(dut.i_values.payload == Cat(C(0, 1), words, C(0, 23), C(1, 1), words)),
    ]


def tokens_of_the_first_window_are_right(m, dut):
    """With values 0, 1, 2, ...: each token's value is its rank among the non-zero elements."""
    first = Signal.like(dut.i_mask.payload)
    rest = Signal(dut.block)
    loaded = Signal()
    with m.If(transfer(dut.i_mask) & ~loaded):
        mask = dut.i_mask.payload
        m.d.sync += [first.eq(mask), rest.eq(mask.nonzero | mask.force), loaded.eq(1)]
    token = dut.o.payload
    bit = Signal(dut.block)
    place = token.index[:3]
    m.d.comb += bit.eq(1 << place)
    rank = sum(first.nonzero[i] & (place > i) for i in range(dut.block))
    done = Signal()
    with m.If(transfer(dut.o) & ~done):
        last = (rest & ~bit) == 0
        m.d.sync += [rest.eq(rest & ~bit), done.eq(last)]
        m.d.comb += [
            Assert(loaded),
            Assert(token.index < dut.block),
            Assert(token.last == (last & first.last)),
            Assert(token.empty == ~(first.nonzero | first.force).any()),
            Assert(token.empty | (rest & bit).any()),
            Assert((rest & (bit - 1)) == 0),
            Assert(token.value == Mux((first.nonzero & bit).any(), rank, 0)),
        ]


def rows_end_once(m, dut):
    """No more rows end in the tokens than in the windows; without stalls and windows that take more
    than a cycle, all but those on the way.
    """
    entered = saturating_count(m, transfer(dut.i_mask) & dut.i_mask.payload.last)
    left = saturating_count(m, transfer(dut.o) & dut.o.payload.last)
    flows = Signal(init=1)
    counts = dut.i_mask.payload.nonzero | dut.i_mask.payload.force
    is_short = (counts & (counts - 1)) == 0
    m.d.sync += flows.eq(flows & dut.o.ready & dut.i_values.valid
                         & (~transfer(dut.i_mask) | is_short))
    m.d.comb += [Assert(left <= entered), Assert(~flows | (entered <= left + SKIPPER_LATENCY + 1))]


def test_skipper():
    prove(Skipper(block=8, max_k=16), words_are_numbered, tokens_of_the_first_window_are_right,
          depth=SKIPPER_LATENCY + 4, contract=False)
    prove(Skipper(block=8, max_k=16), rows_end_once, depth=SKIPPER_LATENCY + 4, contract=False)


def test_skipper_contract_for_all_time():
    prove(Skipper(block=64, max_k=32768), depth=4, induction=2)


def test_skipper_mutant_is_refused(monkeypatch):
    encode = skipper.encode
    monkeypatch.setattr(skipper, "encode", lambda selected: Mux(selected[-1], 0, encode(selected)))
    with pytest.raises(ProofFailed):
        prove(Skipper(block=8, max_k=16), words_are_numbered,
              tokens_of_the_first_window_are_right, depth=SKIPPER_LATENCY + 4)


def words_go_with_their_rows(m, dut):
    """Fed with rows of E4M3, each of one or two values: a word goes with each row, and no other."""
    element = dut.i.payload
    in_row = Signal()
    m.d.comb += Assume(~dut.i.valid | dut.has_room)
    with m.If(dut.i.valid):
        m.d.sync += in_row.eq(~element.last)
    m.d.comb += [
        Assume(element.format == FormatCode.E4M3),
        Assume(element.takes_value),
        Assume(~in_row | element.last),
    ]
    rows = saturating_count(m, transfer(dut.o) & dut.o.payload.last)
    words = saturating_count(m, transfer(dut.i_values))
    m.d.comb += Assert((words <= rows + 3) & (rows <= words))


def test_unpacker():
    prove(ValueUnpacker(max_k=16, scale_block=0), words_go_with_their_rows, depth=10,
          contract=False)
    prove(ValueUnpacker(max_k=16, scale_block=0), depth=3, induction=2)


def lawful_pieces(m, dut):
    """Pieces of at most 8 bytes, the last with at least one bit."""
    piece = dut.i.payload
    m.d.comb += [
        Assume(piece.bytes <= 8),
        Assume(~piece.last | piece.first | (piece.bytes != 0)),
    ]


def words_hold_all_bits(m, dut):
    """A last word comes just when the bits taken, rounded up, are all in the words given."""
    bits = Signal(12)
    words = Signal(8)
    closed = Signal()
    piece = dut.i.payload
    with m.If(transfer(dut.i) & ~closed):
        m.d.sync += [bits.eq(bits + (piece.bytes << 3) + piece.first), closed.eq(piece.last)]
    with m.If(transfer(dut.o)):
        m.d.sync += words.eq(words + 1)
    done = Signal()
    with m.If(transfer(dut.o) & dut.o.payload.last):
        m.d.sync += done.eq(1)
        with m.If(~done):
            m.d.comb += [Assert(closed), Assert(words + 1 == (bits + 63) >> 6)]


def test_packer():
    prove(BitPacker(), lawful_pieces, words_hold_all_bits, depth=10, contract=False)
    prove(BitPacker(), depth=3, induction=2)


def one_operation(blocks):
    """The property that one operation of e4m3 is given, at any time, and no other."""
    def property(m, dut):
        given = saturating_count(m, transfer(dut.i_operation), 2)
        m.d.comb += [
            Assume(dut.i_operation.payload.blocks == blocks),
            Assume(dut.i_operation.payload.format == FormatCode.E4M3),
            Assume(~dut.i_operation.valid | (given == 0)),
        ]
    return property


def last_ends_the_output(m, dut):
    lasts = saturating_count(m, transfer(dut.o) & dut.o.payload.last, 2)
    m.d.comb += Assert(~dut.o.valid | (lasts == 0))


def one_word_or_two(m, dut):
    """A block of eight elements has 1 to 65 bits."""
    words = saturating_count(m, transfer(dut.o), 4)
    m.d.comb += Assert(~dut.o.valid | (words == 0) | ((words == 1) & dut.o.payload.last))


def error_only_with_last_and_all_words_without(blocks):
    """The property for blocks of one word."""
    def property(m, dut):
        words = saturating_count(m, transfer(dut.o), 4)
        with m.If(dut.o.valid):
            m.d.comb += [
                Assert(dut.o.payload.last | ~dut.o.payload.error),
                Assert((words == blocks - 1) | dut.o.payload.error | ~dut.o.payload.last),
                Assert((words < blocks - 1) | dut.o.payload.last),
            ]
    return property


def at_once(m, dut):
    """The operation is there from the first cycle on, until it is taken."""
    given = saturating_count(m, transfer(dut.i_operation), 2)
    m.d.comb += Assume(dut.i_operation.valid == (given == 0))


def ends_within(cycles, words=None):
    """The property that all is done so many cycles after reset, if neither end stalls.

    ``words``: as many come, whatever they are, the last of them so marked; None: no end of them.
    """
    def property(m, dut):
        since = saturating_count(m, C(1))
        lasts = saturating_count(m, transfer(dut.o) & dut.o.payload.last, 2)
        taken = saturating_count(m, transfer(dut.i), 4)
        at_once(m, dut)
        m.d.comb += [Assume(dut.o.ready), Assert((since < cycles) | (lasts == 1))]
        if words is None:
            m.d.comb += Assume(dut.i.valid)
        else:
            m.d.comb += [Assume(dut.i.valid == (taken < words)),
                         Assume(dut.i.payload.last == (taken == words - 1))]
    return property


def test_compressor():
    prove(Compressor(block=8), one_operation(1), last_ends_the_output, one_word_or_two, depth=30,
          contract=False)


def test_compressor_never_hangs():
    prove(Compressor(block=8), one_operation(2), last_ends_the_output, ends_within(34), depth=36,
          contract=False)


def test_compressor_mutant_is_refused(monkeypatch):
    """With no room for a block none is ever taken."""
    monkeypatch.setattr(compressor, "STORED", 0)
    with pytest.raises(ProofFailed):
        prove(Compressor(block=8), one_operation(2), last_ends_the_output, ends_within(34),
              depth=36, contract=False)


def test_compressor_contract_for_all_time():
    prove(Compressor(block=64), depth=3, induction=2)


def two_words_come(m, dut):
    """Two words come, or one that is the last, as soon as they can."""
    taken = saturating_count(m, transfer(dut.i), 2)
    ended = saturating_count(m, transfer(dut.i) & dut.i.payload.last, 1)
    m.d.comb += Assume(dut.i.valid == ((taken < 2) & ~ended))


def test_decompressor():
    prove(Decompressor(block=8), one_operation(1), at_once, two_words_come, last_ends_the_output,
          error_only_with_last_and_all_words_without(1), depth=35, contract=False)


class HastyReader(HeaderReader):
    """Finds every stream well padded and as long as it should be."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.o_good.payload.eq(1)
        return m


def good_only_if_padded(m, dut):
    """Of a block of zeros in one word: an error just if the word's top bit is set."""
    top = Signal()
    with m.If(transfer(dut.i)):
        m.d.sync += top.eq(dut.i.payload.data[63])
    m.d.comb += [
        Assume(dut.i.payload.data[:63] == 1),
        Assert(~dut.o.valid | (dut.o.payload.error == top)),
    ]


def test_decompressor_judges_the_padding():
    prove(Decompressor(block=8), one_operation(1), ends_within(127, words=1), good_only_if_padded,
          depth=33, contract=False)


def test_decompressor_mutant_is_refused(monkeypatch):
    monkeypatch.setattr(decompressor, "HeaderReader", HastyReader)
    with pytest.raises(ProofFailed):
        prove(Decompressor(block=8), one_operation(1), ends_within(127, words=1),
              good_only_if_padded, depth=33, contract=False)


def test_decompressor_never_hangs():
    """Fed with one word, whatever its bits."""
    prove(Decompressor(block=8), one_operation(1), last_ends_the_output, ends_within(36, words=1),
          error_only_with_last_and_all_words_without(1), depth=38, contract=False)


def test_decompressor_contract_for_all_time():
    prove(Decompressor(block=64), depth=3, induction=2)


def headers_end_once(m, dut):
    """One block gives one header, and then one verdict."""
    finals = saturating_count(m, dut.o.valid & dut.o.payload.final, 2)
    verdicts = saturating_count(m, dut.o_good.valid, 2)
    place = Signal.like(dut.i.place)
    m.d.sync += place.eq(place + dut.i.valid)
    m.d.comb += [
        Assume(dut.i.place == place),
        Assert(~dut.o.valid | ((finals == 0) & dut.o.payload.final)),
        Assert(~dut.o_good.valid | (verdicts == 0)),
    ]


def test_header_reader():
    prove(HeaderReader(block=8, target="generic"), one_operation(1), headers_end_once, depth=20,
          contract=False)


@pytest.mark.parametrize(("word", "error"), [
    (1, 0),     # a block of zeros
    (0, 1),     # the beginning of a dense block, which takes two words
])
def test_every_kind_of_end_can_be_reached(word, error):
    """So the bounded proofs are long enough to see what they are about."""
    def ends(m, dut):
        one_operation(1)(m, dut)
        ends_within(127, words=1)(m, dut)
        m.d.comb += Assume(dut.i.payload.data == word)
        return dut.o.valid & dut.o.payload.last & (dut.o.payload.error == error)

    reach(Decompressor(block=8), ends, depth=33)
