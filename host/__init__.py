"""The PyTorch side of Exactum: conversions, devices, and offloading of a training loop.

Nothing is imported until it is used, so that importing this package costs no PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .device import Device, open_device
    from .mx import mx_dequantize, mx_quantize
    from .numerics import quantize
    from .offloading import offload

__all__ = ["Device", "mx_dequantize", "mx_quantize", "offload", "open_device", "quantize"]

_HOMES = {"Device": "device", "mx_dequantize": "mx", "mx_quantize": "mx", "offload": "offloading",
          "open_device": "device", "quantize": "numerics"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
