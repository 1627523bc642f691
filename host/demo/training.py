"""The training loop that both tasks run, in torch fp32 and offloaded alike.

The loop knows nothing of offload: whoever calls it decides what is active around it. The batches
of a task are made before either training begins, so both see the same ones bit for bit and making
them is neither timed nor offloaded.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = ["Batch", "CrossEntropy", "Task", "Training", "fit", "train"]

Batch = tuple[Tensor, Tensor]
Hook = Callable[[int, int], None]
OnStep = Callable[[int, int, float], None]

_SMALLEST_PROBABILITY = 1e-6


class CrossEntropy(nn.Module):
    """Mean of -log(softmax(logits)[target]).

    Written with the probabilities themselves, so that the softmax and its backward are ops which
    the offload finds; PyTorch's own loss would run a fused log-softmax.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of logits [..., classes] and target [...], a scalar."""
        chosen = torch.softmax(logits, -1).gather(-1, target.unsqueeze(-1))
        return -chosen.clamp_min(_SMALLEST_PROBABILITY).log().mean()


@dataclass(frozen=True)
class Task:
    """Something to learn: the data, the model and how it is judged.

    Parameters
    ----------
    name : str
        Name in progress lines, tables and figures.
    batches : sequence of (input, target)
        One per step, in order.
    build : callable
        A fresh model; its initial weights come from torch's global generator.
    evaluate : callable
        Model -> score: accuracy in percent for the digits, held-out loss for the text.
    learning_rate : float
        Largest learning rate; it rises for the first fifth of the steps and then falls to zero.
    averaging : float
        Decay of the running average of the weights which is evaluated; 0 evaluates the last ones.
    facts : mapping
        What results.json says of the data.
    """

    name: str
    batches: Sequence[Batch]
    build: Callable[[], nn.Module]
    evaluate: Callable[[nn.Module], float]
    learning_rate: float
    averaging: float = 0.0
    facts: Mapping[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """What one training gave: the loss of each step, the score, and the wall time in seconds."""

    losses: list[float]
    score: float
    seconds: float

    @property
    def final_loss(self) -> float:
        """Mean loss over the last tenth of the steps."""
        last = self.losses[-max(1, len(self.losses) // 10):]
        return sum(last) / len(last)


def train(task: Task, *, seed: int, on_step: OnStep | None = None) -> Training:
    """Train a fresh model of the task and evaluate it.

    Parameters
    ----------
    task : Task
        What to learn.
    seed : int
        Seed of the initial weights; torch's global generator is left as it was found.
    on_step : callable, optional
        Called after each step with (steps done, steps in all, loss).
    """
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = task.build()
    losses = fit(task, model, on_step=on_step)
    with torch.no_grad():
        score = task.evaluate(model)
    return Training(losses, score, time.perf_counter() - start)


def fit(task: Task, model: nn.Module, *, before: Hook | None = None, after: Hook | None = None,
        inside: Callable[[int], AbstractContextManager[None]] = lambda step: nullcontext(),
        on_step: OnStep | None = None) -> list[float]:
    """Train a model, which ends with the running average of its weights; the loss of each step.

    Parameters
    ----------
    task : Task
        What to learn.
    model : nn.Module
        What learns it.
    before, after : callable, optional
        Called with (step, steps in all) before a step, and after it, before its weights are
        averaged.
    inside : callable
        Gives for a step the context of its loss, forward and backward.
    on_step : callable, optional
        As of `train`.
    """
    steps = len(task.batches)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(task.averaging))
    loss_of = CrossEntropy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, task.learning_rate, total_steps=max(2, steps), pct_start=0.2)
    losses = []
    for step, (x, target) in enumerate(task.batches, 1):
        if before:
            before(step, steps)
        with inside(step):
            loss = loss_of(model(x), target)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if after:
            after(step, steps)
        averaged.update_parameters(model)
        losses.append(loss.item())
        if on_step:
            on_step(step, steps, losses[-1])
    model.load_state_dict(averaged.module.state_dict())
    return losses
