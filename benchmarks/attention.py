"""Cycles of attention by its parts, forward and backward: ``python benchmarks/attention.py``.

One head, causal, random normal operands; E4M3 scaled, P in fp16, gradients in E5M2 scaled; preset
``default``. ``cycles``: what the device counts for the part; ``share``: of its direction;
``dense``: with no zero skipped. The sums of P dP are row-wise dot products on the engine
(host/dots.py).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from exactum.gen.config import preset
from exactum.host import open_device
from exactum.host.attention import Setup, Verbs, attend, attend_backward, scale_and_mask
from exactum.host.elementwise import elementwise_cycles

CONFIG = preset("default")
SIZES = ((64, 64), (256, 16), (256, 64), (1024, 64), (1024, 128))  # keys and queries, width
FORWARD = ("Q K^T", "scale and mask", "softmax", "P V")
BACKWARD = ("Q K^T", "scale and mask", "softmax", "dV", "dP", "sums of P dP", "P (dP - sum)",
            "scale", "dQ", "dK")
FORMATS = "e4m3", "fp16"
GRADIENTS = "e5m2", "e5m2"


def parts(run: Callable[[Verbs], Any]) -> list[tuple[int, int]]:
    """Cycles, and those with no zero skipped, of each operation that ``run`` is made of."""
    noted: list[tuple[int, int]] = []

    def counted(name: str) -> Callable[..., Tensor]:
        def verb(*arguments: Any, **options: Any) -> Tensor:
            with open_device("emulator", CONFIG) as device:
                result = getattr(device, name)(*arguments, **options)
                noted.append((device.counters["cycles"], device.counters["cycles_dense"]))
            return result
        return verb

    def softmax(x: Tensor, result: str) -> tuple[Tensor, Tensor]:
        return counted("softmax")(x, result), torch.zeros(x.shape[:-1])

    def backward(p: Tensor, dp: Tensor) -> Tensor:
        found = counted("softmax_backward")(p, dp)
        elements = elementwise_cycles(CONFIG, *p.shape[-2:])
        noted[-1:] = [tuple(cycles - elements for cycles in noted[-1]), (elements, elements)]
        return found

    def scores(x: Tensor, factor: float, *masks: Tensor | None) -> Tensor:
        noted.append((elementwise_cycles(CONFIG, *x.shape[-2:]),) * 2)
        return scale_and_mask(x, factor, *masks)

    run(Verbs(gemm=counted("gemm"), softmax=softmax, softmax_backward=backward,
              scale_and_mask=scores))
    return noted


def measure(keys: int, width: int) -> list[dict[str, object]]:
    """The rows of one size."""
    generator = torch.Generator().manual_seed(keys + width)
    q, k, v, g = (torch.randn(1, 1, keys, width, generator=generator) for _ in range(4))
    setup = Setup(None, True, None, FORMATS, True, "fp32")
    directions = (
        ("forward", FORWARD, lambda verbs: attend(verbs, q, k, v, setup)),
        ("backward", BACKWARD, lambda verbs: attend_backward(
            verbs, g, q, k, v, setup, GRADIENTS, (True, True))))
    rows: list[dict[str, object]] = []
    for direction, names, run in directions:
        found = parts(run)
        total, dense = (sum(column) for column in zip(*found, strict=True))
        rows += [{"keys": keys, "width": width, "direction": direction, "part": name,
                  "cycles": cycles, "share": round(cycles / total, 4), "dense": without}
                 for name, (cycles, without) in zip((*names, "all"), [*found, (total, dense)],
                                                    strict=True)]
    return rows


def main() -> None:
    from common import report  # beside this script: found when it runs, not when it is imported

    report("attention", [row for size in SIZES for row in measure(*size)])


if __name__ == "__main__":
    main()
