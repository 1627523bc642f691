# amaranth: UnusedElaboratable=no
"""The engine against the rational oracle, in small builds; its cycles; faults that must show."""

import itertools

import pytest
import torch
from amaranth.hdl import Const, Module, Mux

import exactum.hdl.column as column_module
import exactum.hdl.loader as loader_module
import exactum.hdl.vpcu as vpcu_module
from exactum.benches.product_cases import directed, random_bits, sparse_bits
from exactum.benches.stalls import PATTERNS
from exactum.hdl.accumulate import Accumulate
from exactum.hdl.engine import Engine
from exactum.hdl.force import ForceReader
from exactum.hdl.formats import FORMATS
from sim_tests.hdl.engine_machine import Product, check, configuration

NAMES = list(FORMATS)
SMALL = configuration()
LEGAL = {"lanes": 1, "formats": ["e4m3"], "accumulator_width": 48, "max_k": 2048, "b_depth": 64}


def random_product(formats, shape, *, seed=0, octaves=None, density=0.7, **options):
    random, (m, k, n) = torch.Generator().manual_seed(seed), shape
    a, b = (random_bits(FORMATS[name], size, random, octaves=octaves)
            for name, size in zip(formats, ((m, k), (k, n)), strict=True))
    return Product(sparse_bits(a, density, random), b, formats, **options)


def test_all_pairs_of_formats_back_to_back():
    results = itertools.cycle(NAMES)
    check(SMALL, *(random_product(pair, (2, 4, 2), seed=number, octaves=(None, 9)[number % 2],
                                  result=next(results), exponent=(0, -4, 9)[number % 3])
                   for number, pair in enumerate(itertools.product(NAMES, repeat=2))))


def directed_product(formats):
    rows, columns = (directed(FORMATS[name], 7) for name in formats)
    return Product(rows[::2], columns.T[:, 1::2], formats)


@pytest.mark.parametrize("formats", [("e4m3", "fp16"), ("e5m2", "e5m2"), ("fp32", "bf16")],
                         ids="-".join)
def test_directed_sums(formats):
    check(SMALL, directed_product(formats))


@pytest.mark.parametrize(("vpcu", "formats", "shape"), [
    ({"lanes": 1, "formats": ["e4m3"], "accumulator_width": 48, "max_k": 2048}, "e4m3 e4m3",
     (2, 70, 5)),
    ({"lanes": 3, "formats": ["e4m3", "fp32"], "max_k": 64}, "fp32 e4m3", (2, 9, 7)),
    ({"lanes": 3, "formats": ["e4m3", "fp32"], "max_k": 64}, "e4m3 e4m3", (2, 9, 13)),
    ({"lanes": 1, "formats": ["fp32"]}, "fp32 fp32", (2, 9, 2)),
    ({"lanes": 2, "formats": ["bf16"], "accumulator_width": 40}, "bf16 bf16", (2, 20, 9)),
], ids=["e4m3 only", "e4m3 and fp32, wide", "e4m3 and fp32, narrow", "fp32 only", "bf16 only"])
def test_builds_with_few_formats(vpcu, formats, shape):
    check(configuration(**vpcu), random_product(tuple(formats.split()), shape))


@pytest.mark.parametrize("k", [0, 1, 63, 64, 65, 130])
def test_lengths_around_a_window_and_in_pieces(k):
    check(SMALL, random_product(("e5m2", "e4m3"), (2, k, 3), density=0.2))


def test_zero_rows_and_no_elements_take_no_longer_than_their_drain():
    config = configuration(lanes=1, formats=["fp32"])
    one = FORMATS["fp32"].bias << 23
    few, many = (check(config, Product(torch.zeros(rows, 4, dtype=torch.int64),
                                       torch.full((4, 1), one), ("fp32", "fp32")))
                 for rows in (3, 13))
    assert many - few == 40  # a lane drains in four cycles
    empty = [check(config, Product(torch.zeros(rows, 0, dtype=torch.int64),
                                   torch.zeros(0, 1, dtype=torch.int64), ("fp32", "fp32")))
             for rows in (3, 13)]
    assert empty[1] - empty[0] == 40


def forced_product():
    """Zeros of A over rows of B that hold an Inf or a NaN, in both windows of a row."""
    a = torch.zeros(2, 70, dtype=torch.int64)
    b = torch.full((70, 5), 0x38)
    a[0, 3], b[2, 0], b[66, 3] = 0x38, 0x7F, 0xFF
    return Product(a, b, ("e4m3", "e4m3"))


@pytest.mark.parametrize("b_depth", [64, 128], ids=["in pieces", "whole"])
def test_zeros_over_nan_are_not_skipped(b_depth):
    check(configuration(b_depth=b_depth), forced_product())


def scaled_product(formats, shape, block, bytes_a, bytes_b, **options):
    """A random product whose blocks have those scales in turn; None: that operand has none."""
    product, (m, k, n) = random_product(formats, shape, **options), shape
    blocks = -(-k // block)
    scales = (None if given is None else torch.tensor(given, dtype=torch.uint8).repeat(
        size[0] * size[1])[:size[0] * size[1]].reshape(size)
        for given, size in ((bytes_a, (m, blocks)), (bytes_b, (blocks, n))))
    return product._replace(scales=tuple(scales))


@pytest.mark.parametrize(("formats", "shape", "block", "bytes_a", "bytes_b", "exponent"), [
    ("e4m3 e5m2", (2, 70, 5), 32, (120, 127, 135), (126, 131, 110, 129), 0),
    ("e4m3 e4m3", (2, 40, 3), 16, (0, 254), None, 127),
    ("bf16 fp16", (2, 33, 3), 32, None, (0, 254, 127), 0),
    ("fp32 e4m3", (2, 35, 3), 32, (127, 124), (120, 131), -3),
    ("e5m2 e4m3", (3, 70, 3), 32, (127, 255, 127, 127), (127, 127, 127, 255, 127), 0),
], ids=["ragged, over b_depth", "the ends", "B alone", "fp32", "NaN"])
def test_scaled_products(formats, shape, block, bytes_a, bytes_b, exponent):
    product = scaled_product(tuple(formats.split()), shape, block, bytes_a, bytes_b, octaves=5,
                             exponent=exponent)
    check(configuration(scale_block=block), product)


def test_scaled_and_plain_products_follow_each_other_through_stalls():
    plain = random_product(("e4m3", "fp16"), (2, 34, 9), density=0.2)
    scaled = scaled_product(("e4m3", "fp16"), (2, 34, 9), 32, (120, 130), (125, 129, 127))
    check(SMALL, plain, scaled, plain, sources=PATTERNS["bursts"], sink=PATTERNS["sparse"])


@pytest.mark.parametrize(("sources", "sink"), [("bursts", "sparse"), ("sparse", "alternate"),
                                               ("alternate", "bursts")])
def test_stalls_change_nothing(sources, sink):
    check(SMALL, random_product(("e4m3", "fp16"), (3, 66, 9), density=0.2),
          random_product(("fp32", "e4m3"), (2, 5, 3)), sources=PATTERNS[sources],
          sink=PATTERNS[sink])


@pytest.mark.parametrize(("changes", "error", "text"), [
    ({"lanes": 0}, ValueError, "lanes is 1 to 64; got 0"),
    ({"lanes": 2.0}, TypeError, "lanes is an int; got 2.0"),
    ({"formats": []}, ValueError, "at least one number format"),
    ({"formats": "e4m3"}, TypeError, "sequence of formats; got 'e4m3'"),
    ({"formats": ["fp8"]}, ValueError, "a number format is one of .* got 'fp8'"),
    ({"accumulator_width": 19}, ValueError, "accumulator_width is 20 .* got 19"),
    ({"max_k": 100}, ValueError, "max_k is a power of two from 64 to 32768; got 100"),
    ({"b_depth": 4096}, ValueError, "64 to max_k .2048.; got 4096"),
    ({"drains": 2}, ValueError, "drains is 1; got 2"),
    ({"scale_block": 8}, ValueError, "scale_block is one of .* got 8"),
    ({"target": "ice40"}, ValueError, "target is one of .* got 'ice40'"),
])
def test_illegal_parameters_are_refused(changes, error, text):
    with pytest.raises(error, match=text):
        Engine(**LEGAL | changes)


def misaligned(self, m):
    product, flags = SHIFT(self, m)
    return product << 8 * flags.group[0], flags


def silent(self, m, product, step):
    return Const(0)


def without_low_halves(significand):
    high, low = HALVES(significand)
    return high, low & 0


def unsigned(self, platform):
    m = Module()
    m.d.comb += self.o.eq(Mux(self.clear, 0, self.sum) + self.magnitude + (
        self.carry & ~self.negative))
    return m


SHIFT = column_module.Column._shift_bytes
HALVES = loader_module.halves
MUTANTS = {
    "a byte shift without its lowest bit": (column_module.Column, "_shift_bytes", misaligned,
                                            random_product(("fp16", "e5m2"), (2, 3, 2))),
    "dropped bits are not told": (column_module.Column, "_lost", silent,
                                  directed_product(("bf16", "fp32"))),
    "an adder that does not subtract": (Accumulate, "elaborate", unsigned,
                                        directed_product(("e4m3", "e4m3"))),
    "fp32 without the low halves of B": (
        loader_module, "halves", without_low_halves,
        random_product(("fp32", "fp32"), (2, 3, 2), octaves=5)),
    "scales of A half of what they are": (
        vpcu_module, "UNSCALED", 126,
        scaled_product(("e4m3", "bf16"), (2, 33, 2), 32, (127, 124), None, octaves=5)),
    "no force windows": (ForceReader, "elaborate", lambda self, platform: unforced(
        ELABORATE(self, platform), self), forced_product()),
}
ELABORATE = ForceReader.elaborate


def unforced(m, reader):
    m.d.comb += reader.o.payload.force.eq(0)
    return m


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(mutant, monkeypatch):
    module, name, fault, product = MUTANTS[mutant]
    config = configuration(b_depth=128)
    monkeypatch.setattr(module, name, fault)
    with pytest.raises(AssertionError):
        check(config, product)
