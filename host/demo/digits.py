"""Handwritten digits: three linear layers learn scikit-learn's bundled 8 x 8 images."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from ...gen.errors import ToolMissing
from .training import Batch, Task

__all__ = ["Classifier", "digits_task"]

_BATCH = 128
_WARP = 0.15      # each entry of the affine map of an image moves by up to this much
_CONTRAST = 0.3   # standard deviation of each pixel's factor; zeros stay zeros


class Classifier(nn.Module):
    """64 pixels -> 256 -> 128 -> 10 logits, with ReLU between the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 256)
        self.second = nn.Linear(256, 128)
        self.readout = nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, 10] of images [N, 8, 8]."""
        hidden = torch.relu(self.first(images.flatten(1)))
        return self.readout(torch.relu(self.second(hidden)))


def _load() -> tuple[Batch, Batch]:
    """The images, scaled to 0..1, split once and for all: every second one of each digit tests.

    The odd ones at the end train too, so that the tests are whole batches.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ToolMissing("X303", "the demo's handwritten digits come with scikit-learn, which is "
                          "not installed", "pip install 'exactum[demo]'") from error
    bunch = load_digits()
    order = np.argsort(bunch.target, kind="stable")
    images = torch.tensor(bunch.images[order] / 16, dtype=torch.float32)
    target = torch.tensor(bunch.target[order])
    tests = torch.arange(len(order)) % 2 == 1
    tests[2 * (int(tests.sum()) // _BATCH * _BATCH):] = False
    return (images[~tests], target[~tests]), (images[tests], target[tests])


def _varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images turned, shifted and stretched a little, each in its own way."""
    count = len(images)
    maps = torch.eye(2, 3).repeat(count, 1, 1)
    maps += _WARP * (2 * torch.rand(count, 2, 3, generator=generator) - 1)
    grid = affine_grid(maps, [count, 1, 8, 8], align_corners=False)
    moved = grid_sample(images.unsqueeze(1), grid, align_corners=False).squeeze(1)
    return moved * (1 + _CONTRAST * torch.randn(moved.shape, generator=generator))


def digits_task(*, seed: int, steps: int) -> Task:
    """The digits as a task of ``steps`` batches drawn from ``seed``; the score is in percent."""
    (images, target), (test_images, test_target) = _load()
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(steps):
        chosen = torch.randint(len(images), (_BATCH,), generator=generator)
        batches.append((_varied(images[chosen], generator), target[chosen]))

    def accuracy(model: nn.Module) -> float:
        guesses = torch.cat([model(batch).argmax(1) for batch in test_images.split(_BATCH)])
        return 100 * (guesses == test_target).double().mean().item()

    facts = {"training images": len(images), "test images": len(test_images), "batch": _BATCH,
             "steps": steps}
    return Task("digits", batches, Classifier, accuracy, learning_rate=4e-3, averaging=0.99,
                facts=facts)
