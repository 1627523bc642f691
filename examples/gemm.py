"""Multiply matrices exactly, in several number formats, and see what the hardware would do.

    python examples/gemm.py
"""

import torch

from exactum.host import open_device, quantize

torch.manual_seed(0)
a = torch.randn(64, 256).relu()  # half of it is zero, and zeros are skipped
b = torch.randn(256, 32)

with open_device("emulator", config="small") as device:
    print(f"{'formats':14}{'cycles':>9}{'products':>10}{'skipped':>9}{'bytes in':>10}"
          f"{'largest error':>15}")
    for formats in [("e4m3", "e4m3"), ("e5m2", "e4m3"), ("fp16", "fp16"), ("bf16", "bf16"),
                    ("fp32", "fp32")]:
        device.reset_counters()
        product = device.gemm(a, b, formats=formats, result="fp32")
        counters = device.counters
        error = (product.double() - a.double() @ b.double()).abs().max().item()
        print(f"{' x '.join(formats):14}{counters['cycles']:9,}{counters['products']:10,}"
              f"{counters['products_skipped']:9,}{counters['bytes_in']:10,}{error:15.2g}")

    # All of that error is the rounding of the operands: the products of what is left are summed
    # exactly and rounded once, so the order of the terms does not matter.
    exact = device.gemm(a, b)
    order = torch.randperm(256)
    assert torch.equal(exact, device.gemm(a[:, order], b[order]))
    rounded = [quantize(x, "e4m3").double() for x in (a, b)]
    assert torch.equal(exact, (rounded[0] @ rounded[1]).float())
    print("shuffled along K: the same bits; against float64 on the E4M3 operands: the same bits")
