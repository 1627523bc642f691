"""What is trained: two classifiers of 512 hidden units, whose activations a mask makes sparse."""

import torch
from torch import Tensor, nn

from exactum.host.demo.text import ALPHABET, HELD_OUT, MODULES, encode, read_sources
from exactum.host.demo.training import Task

__all__ = ["ActivationMask", "Classifier", "Continuation", "characters_task"]

CONTEXT, VECTOR, BATCH = 32, 16, 256               # characters, numbers for each, of a batch


class ActivationMask(nn.Module):
    """Sets activations to zero but for a share of each sample's, forward and backward.

    Kept are those with the largest |activation| times the momentum of their unit's gradient: the
    running mean, over steps, of the mean magnitude over the batch. Off when not training, or when
    ``share`` is 1.

    Parameters
    ----------
    units : int
    momentum : float
        Decay of the running mean.
    """

    def __init__(self, units: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum, self.share = momentum, 1.0
        self.register_buffer("score", torch.ones(units))

    def forward(self, x: Tensor) -> Tensor:
        """[N, units] -> the same."""
        if not self.training or self.share >= 1:
            return x
        kept = max(1, round(self.share * x.shape[-1]))
        worth = x.detach().abs() * self.score
        mask = torch.zeros_like(x).scatter_(-1, worth.topk(kept, -1).indices, 1.0)
        if x.requires_grad:
            x.register_hook(self._remember)
        return x * mask

    def _remember(self, gradient: Tensor) -> None:
        mean = gradient.abs().mean(0)
        mean = mean / mean.mean().clamp_min(1e-30)
        self.score.mul_(self.momentum).add_(mean, alpha=1 - self.momentum).clamp_(min=1e-3)


class Classifier(nn.Module):
    """``inputs`` -> 512 -> 512 -> ``classes`` logits, with ReLU and an `ActivationMask` between."""

    def __init__(self, inputs: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, 512), nn.Linear(512, 512)
        self.readout = nn.Linear(512, classes)
        self.masks = nn.ModuleList(ActivationMask(512) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes] of [N, ...]."""
        hidden = self.masks[0](torch.relu(self.first(x.flatten(1))))
        return self.readout(self.masks[1](torch.relu(self.second(hidden))))


class Continuation(Classifier):
    """The next character of the CONTEXT ones before it, each of them a learnt vector."""

    def __init__(self) -> None:
        super().__init__(CONTEXT * VECTOR, len(ALPHABET))
        self.embedding = nn.Embedding(len(ALPHABET), VECTOR)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, alphabet] of characters [N, CONTEXT]."""
        return super().forward(self.embedding(x))


def characters_task(*, seed: int, steps: int) -> Task:
    """The demo's text for `Continuation`; the score is the accuracy in percent at every eighth
    place of what is held out."""
    text, held_out = encode(read_sources(MODULES)), encode(read_sources(HELD_OUT))
    generator, window = torch.Generator().manual_seed(seed), torch.arange(CONTEXT + 1)
    places = torch.randint(len(text) - CONTEXT, (steps, BATCH, 1), generator=generator)
    batches = [(text[part[:, :-1]], text[part[:, -1]]) for part in places + window]
    tests = held_out[torch.arange(0, len(held_out) - CONTEXT, 8)[:, None] + window]

    def accuracy(model: nn.Module) -> float:
        right = sum(int((model(part[:, :-1]).argmax(1) == part[:, -1]).sum())
                    for part in tests.split(2048))
        return 100 * right / len(tests)

    return Task("characters", batches, Continuation, accuracy, learning_rate=4e-3, averaging=0.99)
