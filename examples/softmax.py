"""Softmax as the hardware computes it: order-free, from one table, rounded once.

    python examples/softmax.py
"""

import torch

from exactum.host import open_device

torch.manual_seed(0)
scores = 4 * torch.randn(128, 64)
scores[:, 48:] = -torch.inf  # masked: their probability is exactly zero

with open_device("emulator", config="small") as device:
    expected = torch.softmax(scores.double(), -1)
    for result in ("fp32", "fp16", "bf16"):
        device.reset_counters()
        probabilities = device.softmax(scores, result=result)
        error = (probabilities.double() - expected).abs().max().item()
        print(f"{result}: largest error {error:.1e}, {device.counters['cycles']:,} cycles for "
              f"{len(scores)} rows of {scores.shape[1]}")
    assert (probabilities[:, 48:] == 0).all()

    # Each probability depends on its own score and on an exact sum: shuffle the row, and the
    # same bits come out shuffled.
    order = torch.randperm(64)
    assert torch.equal(device.softmax(scores[:, order]), device.softmax(scores)[:, order])
    print("shuffled rows: the same bits")
