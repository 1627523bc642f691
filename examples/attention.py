"""PyTorch's own attention on the device, forward and backward, in several precisions.

    python examples/attention.py
"""

import torch
from torch.nn.functional import scaled_dot_product_attention

from exactum.host import offload, open_device

torch.manual_seed(0)
queries = torch.randn(1, 4, 96, 64)                       # four heads of queries,
keys, values = torch.randn(2, 1, 2, 96, 64).unbind()      # two of keys and values
gradient = torch.randn(1, 4, 96, 64)


def attend(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Causal attention: the output, and the gradients of queries, keys and values."""
    q, k, v = (x.to(dtype, copy=True).requires_grad_() for x in (queries, keys, values))
    out = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    out.backward(gradient.to(dtype))
    return [out.detach(), q.grad, k.grad, v.grad]


expected = attend(torch.float64)
with open_device("emulator", config="small") as device:
    for precision in ("fp32", "bf16", "e4m3"):
        with offload(device, precision) as session:
            results = attend()
        errors = [float((x - y).norm() / y.norm()) for x, y in zip(results, expected, strict=True)]
        report = session.report()
        print(f"{precision}: relative errors {', '.join(f'{x:.1e}' for x in errors)}; "
              f"{report.skipped_share:.1%} of the products skipped, "
              f"{report.total('cycles'):,} cycles")
        assert not report.fallbacks

    # What causality masks has a probability of exactly zero: a later key changes nothing.
    changed = keys.clone()
    changed[:, :, 50:] += 1
    first, _ = device.attention(queries, keys, values, causal=True)
    other, _ = device.attention(queries, changed, values, causal=True)
    assert torch.equal(first[:, :, :50], other[:, :, :50])
    print("later keys changed: the same bits before them")
