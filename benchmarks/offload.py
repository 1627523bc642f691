"""The training step: passed through, and offloaded in FP8, against the bare fp32 step."""

from collections.abc import Callable

import torch
from common import compare, report, row
from torch import Tensor, nn

from exactum.host import offload, open_device

PEER = "torch fp32"


class Attention(nn.Module):
    """Causal self-attention from plain products and a softmax."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.mT / (width // self.heads) ** 0.5
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(future, -torch.inf).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(),
                                 nn.Linear(4 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x))
        return x + self.mlp(self.norms[1](x))


def training_step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward, backward and update on one batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return step


def main() -> None:
    """Measure, print and write."""
    torch.manual_seed(0)
    cases = {
        "MLP 256-512-512-64, batch 256": training_step(
            nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
                          nn.Linear(512, 64)), torch.randn(256, 256)),
        "transformer block, width 128, 4 heads, 8 x 64 tokens": training_step(
            Block(128, 4), torch.randn(8, 64, 128)),
    }
    # A session is entered once for many steps, as a training does.
    kinds = {"passed through": (lambda context: None, 10), "e4m3": ("e4m3", 3)}
    device = open_device("emulator")
    rows = []
    for name, step in cases.items():
        for kind, (precision, steps) in kinds.items():
            def run(step: Callable[[], None] = step, steps: int = steps) -> None:
                for _ in range(steps):
                    step()

            def offloaded(run: Callable[[], None] = run, precision: object = precision) -> None:
                with offload(device, precision):
                    run()

            seconds, bare = compare(offloaded, run, 9)
            rows.append(row(f"{name}: {kind}", seconds / steps, PEER, bare / steps))
    report("offload", rows)


if __name__ == "__main__":
    main()
