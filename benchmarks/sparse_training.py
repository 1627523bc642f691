"""Ways to make a training sparse: weights pruned by a schedule, and activations masked while it
lasts by the magnitude and the momentum of their gradients.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from exactum.host.demo.training import CrossEntropy, Task

__all__ = ["ActivationMask", "Classifier", "Pruner", "cubic", "train"]

OnStep = Callable[[int, int], None]


def cubic(progress: float, begin: float, end: float, final: float) -> float:
    """The share to be zero at ``progress`` (0 to 1): fast from ``begin``, then slower, to ``final``
    at ``end``, as gradual magnitude pruning has it (Zhu and Gupta, 2017)."""
    left = 1 - min(max((progress - begin) / (end - begin), 0.0), 1.0)
    return final * (1 - left ** 3)


class Pruner:
    """Keeps the smallest weights of some layers at zero, more of them as training goes on.

    Which weights those are is decided anew at every ``every``-th step; in between, weights at zero
    stay there.

    Parameters
    ----------
    layers : iterable of (nn.Linear, float)
        With the share of zeros that each one ends with.
    begin, end : float
        Of the schedule (`cubic`), as shares of all steps.
    every : int
        Steps.
    """

    def __init__(self, layers: Iterable[tuple[nn.Linear, float]], *, begin: float = 0.02,
                 end: float = 0.3, every: int = 5) -> None:
        self.layers = list(layers)
        self.begin, self.end, self.every = begin, end, every
        self.masks: list[Tensor | None] = [None] * len(self.layers)

    @torch.no_grad()
    def apply(self) -> None:
        """Weights that are to be zero are."""
        for (layer, _), mask in zip(self.layers, self.masks, strict=True):
            if mask is not None:
                layer.weight.mul_(mask)

    @torch.no_grad()
    def step(self, step: int, steps: int) -> None:
        """After the optimizer's step number ``step`` of ``steps``."""
        for place, (layer, final) in enumerate(self.layers):
            if step % self.every == 0 and step <= self.end * steps + self.every:
                zeros = int(cubic(step / steps, self.begin, self.end, final)
                            * layer.weight.numel())
                if zeros:
                    limit = layer.weight.abs().flatten().kthvalue(zeros).values
                    self.masks[place] = layer.weight.abs() > limit
        self.apply()


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
    """64 pixels -> 512 -> 512 -> 10 logits, with ReLU and an `ActivationMask` in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 512), nn.Linear(512, 512)
        self.readout = nn.Linear(512, 10)
        self.masks = nn.ModuleList(ActivationMask(512) for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.masks[0](torch.relu(self.first(images.flatten(1))))
        return self.readout(self.masks[1](torch.relu(self.second(hidden))))


def train(task: Task, model: nn.Module, before: OnStep | None = None,
          after: OnStep | None = None) -> None:
    """The demo's loop, with something to do before and after each step (step, steps).

    The model ends with the running average of its weights where the task has one.
    """
    steps = len(task.batches)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(task.averaging))
    loss_of = CrossEntropy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, task.learning_rate, total_steps=max(2, steps), pct_start=0.2)
    for step, (x, target) in enumerate(task.batches, 1):
        if before:
            before(step, steps)
        loss_of(model(x), target).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if after:
            after(step, steps)
        averaged.update_parameters(model)
    model.load_state_dict(averaged.module.state_dict())
