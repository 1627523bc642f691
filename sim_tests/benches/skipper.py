"""Bench of the skipper: tokens and cycles of random rows against a plain model of them."""

import json
import os
import random
from itertools import product
from pathlib import Path

import cocotb
import torch

from ..hdl.formats import FORMATS
from ..hdl.layouts import WORD_WIDTH, mask_window, skipper_token
from ..hdl.skipper import SKIPPER_LATENCY
from .stalls import PATTERNS
from .streams import StreamSink, StreamSource, finish, start

PARAMETERS = json.loads(Path(os.environ["EXACTUM_DESCRIPTION"]).read_text())["parameters"]
BLOCK, MAX_K = PARAMETERS["block"], PARAMETERS["max_k"]
SCALE_BLOCK = PARAMETERS["scale_block"]
WINDOW, TOKEN = mask_window(BLOCK, SCALE_BLOCK), skipper_token(MAX_K, SCALE_BLOCK)
SEED = int(os.environ.get("EXACTUM_SEED", "1"))
DENSITIES = (0, 0.01, 0.05, 0.3, 0.9, 1)


class Row:
    """One random row: its masks and values for the skipper and the tokens it must give."""

    def __init__(self, rng, windows):
        generator = torch.Generator().manual_seed(rng.getrandbits(32))
        shape, densities = (windows, BLOCK), torch.tensor(DENSITIES)
        level = torch.randint(len(DENSITIES), (windows, 1), generator=generator)
        nonzero = torch.rand(shape, generator=generator) < densities[level]
        force = torch.rand(shape, generator=generator) < (0.02 if rng.random() < 0.3 else 0)
        fmt = rng.choice(list(FORMATS.values()))
        numbers = torch.randint(2**fmt.width, shape, generator=generator)
        values = torch.where(nonzero, numbers, 0).reshape(-1)
        counts = nonzero | force
        empty = ~counts.any(dim=1)
        shown = counts.clone()
        shown[:, 0] |= empty
        index = shown.reshape(-1).nonzero()[:, 0]
        self.cycles = len(index)
        self.words = packed(values[nonzero.reshape(-1)].tolist(), fmt.width)
        scales = [[rng.randrange(256) for _ in range(BLOCK // SCALE_BLOCK)]
                  for _ in range(windows)] if SCALE_BLOCK else None
        self.masks = [
            WINDOW.const({"nonzero": as_int(n), "force": as_int(f), "last": i == windows - 1,
                          "format": fmt.code}
                         | ({"scales": scales[i]} if scales else {})).as_bits()
            for i, (n, f) in enumerate(zip(nonzero.tolist(), force.tolist(), strict=True))]
        self.tokens = []
        for n, i in enumerate(index.tolist()):
            token = {"index": i, "value": int(values[i]), "last": n == self.cycles - 1,
                     "empty": bool(empty[i // BLOCK])}
            if scales:
                token["scale"] = scales[i // BLOCK][i % BLOCK // SCALE_BLOCK]
            self.tokens.append(TOKEN.const(token).as_bits())


def packed(values, width):
    """The values in words, lowest first; what is left of the last word is ones."""
    per_word = WORD_WIDTH // width
    rows = [values[at:at + per_word] for at in range(0, len(values), per_word)]
    padding = (1 << width) - 1
    return [sum(value << width * n for n, value in enumerate(
        row + [padding] * (per_word - len(row)))) for row in rows]


def as_int(bits):
    """An int from bools, lowest bit first."""
    return sum(bit << i for i, bit in enumerate(bits))


def rows(count, most_windows, seed):
    """That many random rows."""
    rng = random.Random(seed)
    return [Row(rng, rng.randint(1, most_windows)) for _ in range(count)]


@cocotb.test()
async def random_rows_in_exactly_their_cycles(dut):
    everything = rows(50, min(24, MAX_K // BLOCK), SEED)
    await check(dut, everything, ("flowing",) * 3)


@cocotb.test()
async def the_longest_row_reaches_the_highest_index(dut):
    await check(dut, [Row(random.Random(SEED), MAX_K // BLOCK)], ("flowing",) * 3)


@cocotb.test()
@cocotb.parametrize(stalls=list(product(("flowing", "bursts"), PATTERNS, PATTERNS)))
async def rows_under_stalls(dut, stalls):
    await check(dut, rows(6, min(5, MAX_K // BLOCK), f"{SEED} {stalls}"), stalls)


async def check(dut, everything, stalls):
    """Send the rows, compare the tokens; without stalls, count the cycles too."""
    await start(dut, limit=1_000_000)
    masks, values = (StreamSource(dut, prefix, PATTERNS[stall](SEED)) for prefix, stall in
                     zip(("i_mask", "i_values"), stalls, strict=False))
    sink = StreamSink(dut, "o", PATTERNS[stalls[2]](SEED + 1))
    for row in everything:
        masks.put(*row.masks)
        values.put(*row.words)
    tokens = [token for row in everything for token in row.tokens]
    assert await sink.take(len(tokens)) == tokens
    if set(stalls) == {"flowing"}:
        assert sink.stamps[0] - masks.stamps[0] == SKIPPER_LATENCY
        assert sink.stamps[-1] - sink.stamps[0] + 1 == sum(row.cycles for row in everything)
    await finish(masks, values, sink)
