"""Blocks for the tests of the compression units, as bit patterns of a format."""

import random

import torch

from ..hdl.formats import FORMATS, lookup

__all__ = ["CASES", "bits_to_tensor", "bulk", "every_pattern", "format_of", "mixture",
           "tensor_of", "zero_fraction"]

# name -> for a format, the bit patterns of one block of 64
CASES = {
    "all zero": lambda f: [0] * 64,
    "zeros of both signs": lambda f: [0, 1 << (f.width - 1)] * 32,
    "all dense": lambda f: [(i * 37 + 1) % ((1 << (f.width - 1)) - 1) + 1 for i in range(64)],
    "dense but for a negative zero": lambda f: [1] * 20 + [1 << (f.width - 1)] + [1] * 43,
    "only the first": lambda f: [f.max_finite_bits] + [0] * 63,
    "only the last": lambda f: [0] * 63 + [f.max_finite_bits],
    "every other": lambda f: [f.max_finite_bits, 0] * 32,
    "subnormals": lambda f: [1, 0, 1 << (f.width - 1) | 1, (1 << f.mantissa_width) - 1] * 16,
    "NaN": lambda f: [f.nan_bits, 0, 0, 1 << (f.width - 1) | f.nan_bits] * 16,
    "Inf or the largest": lambda f: [f.infinity_bits if f.ieee else f.max_finite_bits, 0] * 32,
    "one more zero than its mask costs": lambda f: [0] * (64 // f.width + 1)
    + [1] * (63 - 64 // f.width),
    "as many zeros as its mask costs": lambda f: [1] * (64 - 64 // f.width)
    + [0] * (64 // f.width),
}


def bits_to_tensor(name, patterns):
    """A tensor of the format from bit patterns."""
    fmt = lookup(name)
    signed = [p - (p >> (fmt.width - 1) << fmt.width) for p in patterns]
    integers = {8: torch.int8, 16: torch.int16, 32: torch.int32}[fmt.width]
    return torch.tensor(signed, dtype=integers).view(getattr(torch, fmt.torch_name))


def format_of(x):
    """The format that a tensor's dtype is."""
    return next(f for f in FORMATS.values() if getattr(torch, f.torch_name) == x.dtype)


def tensor_of(name, case):
    """The tensor of one of the ``CASES``."""
    return bits_to_tensor(name, case(lookup(name)))


def zero_fraction(name, elements, fraction, seed=0):
    """Random bit patterns, that fraction of them zero (of either sign), in random places."""
    fmt, rng = lookup(name), random.Random(f"{name} {elements} {fraction} {seed}")
    zeros = round(elements * fraction)
    patterns = [rng.choice((0, 1 << (fmt.width - 1))) for _ in range(zeros)]
    while len(patterns) < elements:
        pattern = rng.getrandbits(fmt.width)
        if pattern & ~(1 << (fmt.width - 1)):
            patterns.append(pattern)
    rng.shuffle(patterns)
    return bits_to_tensor(name, patterns)


def every_pattern(name):
    """256 blocks of eight: every pattern of zeros, of either sign, between odd bit patterns."""
    fmt, rng = lookup(name), random.Random(name)
    sign = 1 << (fmt.width - 1)
    return bits_to_tensor(name, [
        rng.getrandbits(fmt.width) | 1 if mask >> i & 1 else rng.choice((0, sign))
        for mask in range(256) for i in range(8)])


def bulk(name, block, seed):
    """All corner cases, then thousands of random blocks of every density, as a few tensors."""
    for case in CASES.values():
        yield tensor_of(name, case)
    blocks = {8: 100, 16: 50, 32: 25}[lookup(name).width]
    for fraction in (0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 1):
        yield zero_fraction(name, blocks * block, fraction, seed)


def mixture(block, seed):
    """A few small tensors of all formats and densities."""
    for blocks, name, fraction in [
            (3, "e4m3", 0.3), (2, "fp32", 0.5), (1, "bf16", 1), (2, "e5m2", 0), (3, "fp16", 0.9)]:
        yield zero_fraction(name, blocks * block, fraction, seed)
