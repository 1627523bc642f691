"""The engine's generated Verilog, compiled natively: matrix products, cycle by cycle."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..gen.config import Configuration
from .native import NativeUnit
from .plan import Plan, plan_gemm

__all__ = ["NativeEngine", "NativeProduct"]

_STREAMS = {"i_operation": "operations", "i_b": "b", "i_row": "rows", "i_mask": "masks",
            "i_values": "values"}


@dataclass(frozen=True)
class NativeProduct:
    """What the engine gave: bit patterns [M, N] (int64), lost flags [M, N] (bool), and cycles.

    ``cycles``: from the cycle in which the first operation was accepted to that of the last
    result, both included; 0 for an empty product.
    """

    bits: Tensor
    lost: Tensor
    cycles: int


class NativeEngine:
    """A compiled engine; products go through it one after the other, as plan.py plans them.

    Parameters
    ----------
    config : Configuration
        The engine's.
    unit : NativeUnit, optional
        The compiled engine of that configuration; None: compile it (or find it compiled).
    """

    def __init__(self, config: Configuration, unit: NativeUnit | None = None) -> None:
        self.config = config
        self.unit = NativeUnit.of("engine", config) if unit is None else unit

    def gemm(self, a: Tensor, b: Tensor, formats: tuple[str, str], result: str = "fp32", *,
             saturate: bool | None = None, exponent: int = 0, orientation: str = "auto",
             compress: bool = True, **options: Any) -> NativeProduct:
        """round(2^exponent * a @ b): the arguments are those of `plan_gemm`.

        ``options`` go to `NativeUnit.run`: ``stalls``, ``patience``, ``limit``.

        Raises
        ------
        SimulationError
            X502 if the engine takes or gives too little, or keeps inputs for itself.
        """
        plan = plan_gemm(a, b, formats, result, config=self.config, saturate=saturate,
                         exponent=exponent, orientation=orientation, compress=compress)
        return self.run(plan, **options)

    def run(self, plan: Plan, **options: Any) -> NativeProduct:
        """Send one plan's words and gather its results."""
        if not plan.operations:
            bits, lost = plan.gather([])
            return NativeProduct(bits, lost, 0)
        inputs = {name: getattr(plan, field) for name, field in _STREAMS.items()}
        done = self.unit.run(inputs, {"o": plan.results}, **options)
        bits, lost = plan.gather(done.outputs["o"].tolist())
        return NativeProduct(bits, lost, done.span("i_operation", "o"))

    def close(self) -> None:
        """Free the compiled engine."""
        self.unit.close()

    def __enter__(self) -> "NativeEngine":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
