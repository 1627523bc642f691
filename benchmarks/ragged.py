"""Padded batches of lines of real text, and what column compression makes of a training step."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from exactum.gen.config import Configuration, preset
from exactum.hdl.formats import lookup
from exactum.host import offload
from exactum.host.columns import Factor, kept
from exactum.host.cycles import gemm_cycles
from exactum.host.demo.text import ALPHABET, encode, read_sources
from exactum.host.device import EmulatorDevice
from exactum.host.masks import NonZeros
from exactum.host.numerics import decode, quantize
from exactum.host.tally import tally

__all__ = ["Meter", "RaggedModel", "batches", "measure"]

MODULES = ("argparse", "ast", "calendar", "datetime", "enum", "inspect", "mailbox", "shutil")
BATCH, LONGEST, WIDTH, HEADS = 12, 84, 64, 2       # 12 x 84 tokens: a sum that fits the tile buffer
FEATURES = {32, 64, 96, 192, 256}                  # other sizes of the model's products


def lines() -> list[list[int]]:
    """Lines that are not blank, their ends included; hardly any is cut (LONGEST + 1 characters)."""
    return [encode(f"{line}\n")[:LONGEST + 1].tolist()
            for line in read_sources(MODULES).splitlines() if line.strip()]


def batches(count: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Inputs and targets [BATCH, T], padded to the longest line of each, and the lengths."""
    every, random = lines(), torch.Generator().manual_seed(seed)
    for _ in range(count):
        chosen = [every[i] for i in torch.randint(len(every), (BATCH,), generator=random).tolist()]
        lengths = torch.tensor([len(line) - 1 for line in chosen])
        longest = int(lengths.max())
        while longest in FEATURES or BATCH * longest in FEATURES:
            longest += 1                              # else padding could not be told from features
        x = torch.zeros(BATCH, longest + 1, dtype=torch.int64)
        for row, line in zip(x, chosen, strict=True):
            row[:len(line)] = torch.tensor(line)
        yield x[:, :-1], x[:, 1:], lengths


class RaggedAttention(nn.Module):
    """Causal self-attention; padding is zero wherever it enters a product."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.join = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        count, length, width = x.shape
        heads = (self.project(x) * real).view(count, length, 3, HEADS, width // HEADS)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / math.sqrt(width // HEADS)
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = torch.softmax(scores.masked_fill(future, -math.inf), -1) * real.unsqueeze(1)
        return self.join((weights @ value).transpose(1, 2).reshape(x.shape)) * real


class RaggedModel(nn.Module):
    """The demo's transformer for lines of any length: two blocks of width 64."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.readout = (
            nn.Embedding(len(ALPHABET), WIDTH), nn.Linear(WIDTH, len(ALPHABET)))
        self.position = nn.Parameter(0.02 * torch.randn(LONGEST + 1, WIDTH))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(5))
        self.attentions = nn.ModuleList(RaggedAttention() for _ in range(2))
        self.widen = nn.ModuleList(nn.Linear(WIDTH, 4 * WIDTH) for _ in range(2))
        self.narrow = nn.ModuleList(nn.Linear(4 * WIDTH, WIDTH) for _ in range(2))

    def forward(self, characters: Tensor, lengths: Tensor) -> Tensor:
        """Logits [N, T, 96] of characters [N, T]; those of padding mean nothing."""
        length = characters.shape[1]
        real = (torch.arange(length) < lengths[:, None]).unsqueeze(-1).float()
        x = (self.embedding(characters) + self.position[:length]) * real
        for place, attention in enumerate(self.attentions):
            x = x + attention(self.norms[2 * place](x) * real, real)
            hidden = torch.relu(self.widen[place](self.norms[2 * place + 1](x) * real)) * real
            x = x + self.narrow[place](hidden) * real
        return self.readout(self.norms[4](x) * real)

    def loss(self, characters: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        """Mean of -log(probability) over what is no padding."""
        chosen = torch.softmax(self(characters, lengths), -1).gather(-1, targets.unsqueeze(-1))
        real = torch.arange(characters.shape[1]) < lengths[:, None]
        return -chosen[..., 0].clamp_min(1e-6).log()[real].mean()


class Meter(EmulatorDevice):
    """An emulator that adds up what each product would cost in other engines, in ``cycles``.

    dense: no zero is skipped; of either orientation the better one. padding: of a dense engine, if
    padding alone is left out. columns: of a dense engine with column compression. skipped: zeros
    of A are skipped. oriented: of the sparser operand. compressed: and lines of zeros left out.
    """

    def __init__(self, config: Configuration) -> None:
        super().__init__(config)
        self.cycles = dict.fromkeys(
            ("dense", "padding", "columns", "skipped", "oriented", "compressed"), 0)
        self.lengths = torch.tensor(0)
        self.length = 0

    def gemm(self, a: Tensor, b: Tensor, formats: tuple[str, str] = ("e4m3", "e4m3"),
             *arguments: object, **options: object) -> Tensor:
        pair = lookup(formats[0]), lookup(formats[1])
        left, right = (Factor(NonZeros(decode(quantize(x, fmt)) != 0))
                       for x, fmt in ((a, pair[0]), (b.mT, pair[1])))
        found = {"skipped": tally(self.config, left, right, pair, orientation="a", compress=False),
                 "oriented": tally(self.config, left, right, pair, compress=False),
                 "compressed": tally(self.config, left, right, pair)}
        for name, costs in found.items():
            self.cycles[name] += costs.cycles
        self.cycles["dense"] += found["compressed"].cycles_dense
        sizes = *a.shape[-2:], b.shape[-1]
        count = a.shape[0] if a.dim() == 3 else 1
        for index in range(count):
            pairs = (left, right) if a.dim() == 2 else (left.at(index), right.at(index))
            parts = kept(*pairs)
            self.cycles["columns"] += self._dense(
                sizes if parts is None else tuple(int(part.sum()) for part in parts), pair)
            self.cycles["padding"] += self._dense(tuple(
                self._real(size, a.dim() == 3, index * len(self.lengths) // count)
                for size in sizes), pair)
        return super().gemm(a, b, formats, *arguments, **options)

    def _dense(self, sizes: tuple[int, ...], pair: tuple) -> int:
        """Cycles of a product of these sizes without a zero."""
        m, k, n = sizes
        return min(gemm_cycles(self.config, torch.ones(rows, k, dtype=torch.bool), None, formats,
                               columns=columns).cycles
                   for rows, columns, formats in ((m, n, pair), (n, m, pair[::-1])))

    def _real(self, size: int, is_batch: bool, line: int) -> int:
        """A size of a product less its padding."""
        if is_batch:
            return int(self.lengths[line]) if size == self.length else size
        return int(self.lengths.sum()) if size == len(self.lengths) * self.length else size


def measure(steps: int, count: int, seed: int) -> tuple[dict[str, int], float]:
    """Cycles of ``count`` training steps by `Meter`, after ``steps`` in torch fp32; and the share
    of tokens that are padding."""
    torch.manual_seed(seed)
    model = RaggedModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for x, target, lengths in batches(steps, seed):
        model.loss(x, target, lengths).backward()
        optimizer.step()
        optimizer.zero_grad()
    device, padded, tokens = Meter(preset("default")), 0, 0
    with offload(device, "e4m3"):
        for x, target, lengths in batches(count, seed + 1000):
            device.lengths, device.length = lengths, x.shape[1]
            model.loss(x, target, lengths).backward()
            padded, tokens = padded + x.numel() - int(lengths.sum()), tokens + x.numel()
    return device.cycles, padded / tokens
