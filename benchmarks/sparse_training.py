"""Trainings that become sparse, and what they cost: weights pruned by a schedule, or activations
masked while it lasts by the magnitude and the momentum of their gradients.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exactum.host import offload, open_device
from exactum.host.demo.training import Task, fit
from exactum.host.offloading import Report

__all__ = ["ROLES", "Pruner", "Result", "Setting", "cubic", "trained"]

ROLES = ("forward", "data-gradient", "weight-gradient")
MASKED_FROM, MASKED_UNTIL = 0.02, 0.9              # shares of the steps


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


@dataclass
class Setting:
    """A training, and how sparse it is made."""

    make: Callable[..., Task]
    steps: int
    build: Callable[[], nn.Module] | None
    """None: the task's own model."""
    pruned: dict[str, float]
    """The share of weights that end up zero, by the beginning of the layers' names."""
    pruned_at: float
    """The share of the steps after which they are."""
    kept: float = 1.0
    """The share of activations that a mask keeps."""
    every: int = 1
    """The emulator runs the middle one of ``every`` steps; 0: none."""


@dataclass
class Result:
    """A training: the scores of its model, and what it cost."""

    score: float
    fewer: dict[str, tuple[float, float]]
    """For each role, and all: shares of products and of cycles that were saved."""
    model: nn.Module


def costs(reports: Sequence[Report]) -> dict[str, tuple[float, float]]:
    """Shares of products and of cycles saved, by role and in all."""
    shares, products = {}, [row for found in reports for row in found.rows if row.op == "gemm"]
    for role in (*ROLES, "all"):
        rows = [row for row in products if role in ("all", row.role)]
        taken, skipped, cycles, dense = (sum(getattr(row, name) for row in rows) for name in (
            "products", "products_skipped", "cycles", "cycles_dense"))
        shares[role] = skipped / (taken + skipped), 1 - cycles / dense
    return shares


def trained(kind: str, setting: Setting, seed: int) -> Result:
    """One training: dense, pruned or masked."""
    start = time.perf_counter()
    task = setting.make(seed=seed, steps=setting.steps)
    torch.manual_seed(seed)
    model = (setting.build or task.build)()
    pruner, before = None, None
    if kind == "pruned":
        pruner = Pruner([(layer, share) for name, layer in model.named_modules()
                         for prefix, share in setting.pruned.items()
                         if isinstance(layer, nn.Linear) and name.startswith(prefix)],
                        end=setting.pruned_at)
    elif kind == "masked":
        def before(step: int, total: int) -> None:
            on = MASKED_FROM < step / total < MASKED_UNTIL
            for mask in model.masks:
                mask.share = setting.kept if on else 1.0
    device, reports = open_device("emulator"), []

    @contextmanager
    def counted(step: int) -> Iterator[None]:
        if not setting.every or step % setting.every != setting.every // 2:
            yield
            return
        with offload(device, "e4m3") as session:
            yield
        reports.append(session.report())

    fit(task, model, before=before, after=pruner.step if pruner else None, inside=counted)
    if pruner:
        pruner.apply()                    # the average remembers weights from before they were zero
    model.eval()
    with torch.no_grad():
        score = task.evaluate(model)
    print(f"{task.name} {kind}, seed {seed}, counted every {setting.every}: {score:.4f}, "
          f"{time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return Result(score, costs(reports) if reports else {}, model)
