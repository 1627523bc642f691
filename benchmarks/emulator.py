"""Speed of the emulator against torch's own operations, in the same run and on the same inputs.

A ratio of 2 means twice as long as torch takes for the inexact fp32 (or native) operation.
"""

import torch
from common import compare, report, row

from exactum.host import open_device

SIZE = 1024
REPEATS = {"e4m3": 21, "e5m2": 11, "fp16": 7, "bf16": 7, "fp32": 7}


def main() -> None:
    """Measure, print and write."""
    torch.manual_seed(1)
    device = open_device("emulator")
    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    wide_a, wide_b = a.double(), b.double()
    seconds, peer = compare(lambda: torch.mm(wide_a, wide_b), lambda: torch.mm(a, b), 21)
    rows = [row(f"torch fp64 mm {SIZE}^3, in every exact gemm", seconds, "torch fp32 mm", peer)]
    for name, repeats in REPEATS.items():
        seconds, peer = compare(lambda name=name: device.gemm(a, b, (name, name)),
                                lambda: torch.mm(a, b), repeats)
        rows.append(row(f"{name} gemm {SIZE}^3", seconds, "torch fp32 mm", peer))
    sparse = a.relu()
    seconds, peer = compare(lambda: device.gemm(sparse, b), lambda: torch.mm(sparse, b), 11)
    rows.append(row(f"e4m3 gemm {SIZE}^3, half of A zero", seconds, "torch fp32 mm", peer))
    logits = torch.randn(4096, 256)
    seconds, peer = compare(lambda: device.softmax(logits), lambda: torch.softmax(logits, -1), 11)
    rows.append(row("bf16 softmax 4096 x 256", seconds, "torch fp32 softmax", peer))
    report("emulator", rows)


if __name__ == "__main__":
    main()
