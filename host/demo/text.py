"""Real text: a small transformer that learns to continue the sources of Python's own library."""

import hashlib
import math
import sysconfig
from pathlib import Path

import torch
from torch import Tensor, nn

from ...gen.errors import ToolMissing
from .training import Batch, CrossEntropy, Task

__all__ = ["ALPHABET", "HELD_OUT", "MODULES", "Transformer", "encode", "read_sources", "text_task"]

# Long-standing single-file modules; the held-out ones are never trained on.
MODULES = (
    "argparse", "ast", "bdb", "calendar", "cmd", "codecs", "configparser", "csv", "datetime",
    "difflib", "doctest", "enum", "fractions", "functools", "gettext", "heapq", "inspect",
    "ipaddress", "mailbox", "optparse", "os", "pdb", "pickle", "pprint", "random", "shutil",
    "socket", "statistics", "subprocess", "tarfile", "tempfile", "textwrap")
HELD_OUT = ("threading", "tokenize", "traceback", "typing")

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
_LENGTH, _BATCH, _WIDTH, _HEADS, _BLOCKS = 64, 16, 64, 2, 2
_TEST_BATCHES = 8


class Attention(nn.Module):
    """Causal self-attention, written out: two batched products with a softmax between them."""

    future: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.join = nn.Linear(_WIDTH, _WIDTH)
        self.register_buffer("future", torch.ones(_LENGTH, _LENGTH, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, length, width] -> the same."""
        count, length, width = x.shape
        heads = self.project(x).view(count, length, 3, _HEADS, width // _HEADS)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / math.sqrt(width // _HEADS)
        weights = torch.softmax(scores.masked_fill(self.future[:length, :length], -math.inf), -1)
        return self.join((weights @ value).transpose(1, 2).reshape(x.shape))


class Mlp(nn.Module):
    """Four times wider and back; the ReLU makes zeros for the hardware to skip."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Linear(_WIDTH, 4 * _WIDTH)
        self.narrow = nn.Linear(4 * _WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """[N, length, width] -> the same."""
        return self.narrow(torch.relu(self.widen(x)))


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm and added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
        self.attention, self.mlp = Attention(), Mlp()

    def forward(self, x: Tensor) -> Tensor:
        """[N, length, width] -> the same."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Transformer(nn.Module):
    """Two blocks of width 64 over the last 64 characters; logits of the next character."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET), _WIDTH)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.position = nn.Parameter(0.02 * torch.randn(_LENGTH, _WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(_BLOCKS))
        self.norm = nn.LayerNorm(_WIDTH)
        self.readout = nn.Linear(_WIDTH, len(ALPHABET))

    def forward(self, characters: Tensor) -> Tensor:
        """Logits [N, length, alphabet] of characters [N, length]."""
        x = self.embedding(characters) + self.position[:characters.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.readout(self.norm(x))


def read_sources(modules: tuple[str, ...]) -> str:
    """The sources of the modules, one after the other; one this Python lacks is left out."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = [folder / f"{name}.py" for name in modules]
    sources = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    if len(sources) < len(modules) / 2:
        raise ToolMissing("X303", f"the demo reads Python's own sources as its text, and {folder} "
                          f"holds only {len(sources)} of the {len(modules)} modules it wants",
                          "run the demo with a Python that has its standard library as .py files")
    return "".join(sources)


def encode(text: str) -> Tensor:
    """Indices into the alphabet; characters outside it are dropped."""
    place = {character: index for index, character in enumerate(ALPHABET)}
    return torch.tensor([place[character] for character in text if character in place])


def _windows(text: Tensor, count: int, generator: torch.Generator) -> Batch:
    """``count`` random windows: the characters, and those one place further on."""
    begin = torch.randint(len(text) - _LENGTH, (count, 1), generator=generator)
    place = begin + torch.arange(_LENGTH)
    return text[place], text[place + 1]


def _entropy(text: Tensor) -> float:
    """Nats per character of the best guess that knows only how frequent each character is."""
    share = torch.bincount(text).double() / len(text)
    return torch.special.entr(share).sum().item()


def text_task(*, seed: int, steps: int) -> Task:
    """The text as a task of ``steps`` batches drawn from ``seed``; the score is held-out loss."""
    source = read_sources(MODULES)
    train, test = encode(source), encode(read_sources(HELD_OUT))
    generator = torch.Generator().manual_seed(seed)
    batches = [_windows(train, _BATCH, generator) for _ in range(steps)]
    fixed = torch.Generator().manual_seed(0)
    tests = [_windows(test, _BATCH, fixed) for _ in range(_TEST_BATCHES)]
    loss = CrossEntropy()

    def held_out_loss(model: nn.Module) -> float:
        return sum(loss(model(x), target).item() for x, target in tests) / len(tests)

    facts: dict[str, int | float | str] = {
        "characters": len(train), "sha256": hashlib.sha256(source.encode()).hexdigest(),
        "unigram entropy": round(_entropy(train), 4), "context": _LENGTH, "batch": _BATCH,
        "steps": steps,
    }
    return Task("text", batches, Transformer, held_out_loss, learning_rate=5e-3, facts=facts)
