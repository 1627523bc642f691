"""What a device does, and the emulator: the contract of docs/numerics.md, vectorised in torch."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import torch
from torch import Tensor

from ..gen.config import Configuration, load
from ..gen.errors import DeviceError, UsageError, nearest
from ..hdl.formats import Format
from .columns import Factor
from .gemm import check_shapes, default_overflow, product
from .masks import NonZeros
from .mx import Scales, checked_scales, scaled
from .numerics import Operand, checked_format, checked_tensor, encode, max_finite, operand
from .orientation import turns
from .softmax import exact_softmax, softmax_backward, softmax_cycles
from .tally import tally

__all__ = ["COUNTERS", "Counters", "Device", "EmulatorDevice", "open_device"]

_LARGEST_BLOCK = (32 << 20) - (16 << 10)     # bytes: just under glibc's own upper limit

COUNTERS = MappingProxyType({
    "calls": "operations",
    "cycles": "clock cycles that the configured design takes",
    "cycles_dense": "clock cycles that the same operations would take if no element were zero",
    "products": "products of two operands that were performed",
    "products_skipped": "products spared because an element is zero",
    "transposed": "matrix products computed as B^T A^T, B being streamed: those of a batch each",
    "words_a_saved": "mask and value words of the streamed operand that column compression spared",
    "words_b_saved": "words of the loaded operand that column compression spared",
    "bytes_in": "bytes of operands sent into the engine, for each tile and load anew; scales",
    "bytes_out": "bytes of results, but of rows and columns known to be zero",
    "lost": "results that lost bits under the accumulator's window (rule N4)",
    "saturations": "operands and results that overflowed and were clamped",
})


class Counters(Mapping[str, int]):
    """What a device has done since it was opened or its counters were reset; see ``COUNTERS``.

    Reading gives the present numbers; ``dict(counters)`` is a snapshot. Safe between threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(COUNTERS, 0)

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __repr__(self) -> str:
        return f"Counters({dict(self._counts)})"

    def add(self, amounts: Mapping[str, int]) -> None:
        """Add to several counters at once."""
        with self._lock:
            for name, amount in amounts.items():
                self._counts[name] += amount

    def reset(self) -> None:
        """Set all to zero."""
        with self._lock:
            self._counts.update(dict.fromkeys(self._counts, 0))


class Device(ABC):
    """A configured design that multiplies matrices and takes softmax, wherever it runs.

    Every backend gives the same bits and counts the same cycles. Operations block until their
    result is there; operands are only read. A device is a context manager that closes itself.

    Parameters
    ----------
    config : Configuration
        The design.
    """

    def __init__(self, config: Configuration) -> None:
        self.config = config
        self._closed = False
        self._counters = Counters()

    @property
    def counters(self) -> Counters:
        """What was done so far; the names and meanings are in ``COUNTERS``."""
        return self._counters

    def reset_counters(self) -> None:
        """Set every counter to zero."""
        self._counters.reset()

    @abstractmethod
    def gemm(self, a: Tensor, b: Tensor, formats: tuple[str, str] = ("e4m3", "e4m3"),
             result: str = "fp32", *, exponent: int = 0, scales: Scales = None,
             orientation: str = "auto", compress: bool = True) -> Tensor:
        """Exact dot products: round(2^exponent * a @ b), one rounding each.

        Parameters
        ----------
        a, b : Tensor
            [M, K] and [K, N], or [B, M, K] and [B, K, N]; any float dtype and layout, CPU. Taken
            bit for bit where the dtype is the format's, else converted (docs/numerics.md).
        formats : tuple of str
            The number formats of ``a`` and ``b``; both must be in the configuration.
        result : str
            The number format of the result, any of the five.
        exponent : int
            Power of two that the sums are scaled by, -2048 to 2047.
        scales : tuple of Tensor or None, optional
            Block scales of ``a`` [..., M, ceil(K / block)] and of ``b`` [..., ceil(K / block), N],
            uint8 or float8_e8m0fnu, or None for either; block is ``vpcu.scale_block``. A scaled
            operand must have its format's dtype: see `mx_quantize`.
        orientation : str
            Which operand is streamed, its zeros being skipped: ``"a"``, ``"b"`` (the product is
            then computed transposed), or ``"auto"``: for each product that which takes fewer
            cycles. The bits are the same.
        compress : bool
            Whether rows, indices and columns that zeros make needless may be left out, where that
            takes fewer cycles or words. The bits are the same.

        Returns
        -------
        Tensor
            New, contiguous, in the dtype of the result format. Not differentiable.

        Raises
        ------
        UsageError
            Shapes, dtypes, formats, options or K that this device cannot take.
        DeviceError
            The device is closed.
        """

    @abstractmethod
    def softmax(self, x: Tensor, result: str = "bf16") -> Tensor:
        """Softmax over the last dimension (docs/softmax.md), in the dtype of ``result``."""

    @abstractmethod
    def softmax_backward(self, p: Tensor, dp: Tensor) -> Tensor:
        """p * (dp - sum(dp * p)) over the last dimension, the sum exact; fp32.

        The design has no unit for it: it counts as a call, without cycles.
        """

    def close(self) -> None:
        """Release the device; every later operation raises DeviceError."""
        self._closed = True

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("X403", "this device was closed", "open it again with open_device")


class EmulatorDevice(Device):
    """The contract in torch, on the CPU: same bits, same counters as the hardware."""

    def __init__(self, config: Configuration) -> None:
        super().__init__(config)
        # glibc gives freed memory back to the kernel beyond a limit that grows with the largest
        # block it has seen freed; fetching it anew, page by page, costs a fifth of a product.
        torch.empty(_LARGEST_BLOCK, dtype=torch.uint8)

    def gemm(self, a: Tensor, b: Tensor, formats: tuple[str, str] = ("e4m3", "e4m3"),
             result: str = "fp32", *, exponent: int = 0, scales: Scales = None,
             orientation: str = "auto", compress: bool = True) -> Tensor:
        self._check_open()
        vpcu = self.config.vpcu
        pair, target = self._formats(formats), checked_format(result)
        if type(exponent) is not int or not -2048 <= exponent <= 2047:
            raise UsageError("X207", f"exponent is an integer from -2048 to 2047; got {exponent!r}")
        turns(orientation)
        a, b = checked_tensor(a, "a"), checked_tensor(b, "b")
        check_shapes(a, b, vpcu.max_k)
        block = vpcu.scale_block
        known = checked_scales(scales, a, b, pair, block)
        left = scaled(operand(a, pair[0]), known[0], pair[0], -1, block)
        right = scaled(operand(b, pair[1], by_columns=True), known[1], pair[1], -2, block)
        grid, lost = product(left, right, pair, target, exponent=exponent,
                             accumulator_width=vpcu.accumulator_width, max_k=vpcu.max_k)
        saturated = 0
        if target.width == 8:
            saturated = int((grid.abs() > max_finite(target)).sum())
        columns = right._replace(values=right.values.mT)
        done = tally(self.config, _factor(left), _factor(columns), pair,
                     scales=(known[0] is not None, known[1] is not None),
                     orientation=orientation, compress=compress)
        self._counters.add({
            "calls": 1, "cycles": done.cycles, "cycles_dense": done.cycles_dense,
            "products": done.products,
            "products_skipped": done.products_skipped, "transposed": done.transposed,
            "words_a_saved": done.words_a_saved, "words_b_saved": done.words_b_saved,
            "bytes_in": done.bytes_in,
            "bytes_out": done.results * target.width // 8,
            "lost": 0 if lost is None else int(lost.sum()),
            "saturations": left.saturations + right.saturations + saturated,
        })
        return encode(grid, target, default_overflow(target))

    def softmax(self, x: Tensor, result: str = "bf16") -> Tensor:
        self._check_open()
        out = exact_softmax(x, result, config=self.config)
        length = x.shape[-1]
        rows = x.numel() // max(1, length)
        cycles = softmax_cycles(self.config, rows, length)
        self._counters.add({"calls": 1, "cycles": cycles, "cycles_dense": cycles,
                            "bytes_in": x.numel() * x.element_size(),
                            "bytes_out": out.numel() * out.element_size()})
        return out

    def softmax_backward(self, p: Tensor, dp: Tensor) -> Tensor:
        self._check_open()
        out = softmax_backward(p, dp)
        self._counters.add({"calls": 1})
        return out

    def _formats(self, formats: tuple[str, str]) -> tuple[Format, Format]:
        """The operands' formats, if the configuration has them."""
        if not isinstance(formats, tuple | list) or len(formats) != 2:
            raise UsageError("X203", f"formats is a pair of names, of a and of b; got {formats!r}")
        first, second = (checked_format(name) for name in formats)
        known = self.config.vpcu.formats
        for fmt in (first, second):
            if fmt.name not in known:
                raise UsageError("X205", f"{self.config.name} has the formats {', '.join(known)}; "
                                         f"got {fmt.name!r}", f"add {fmt.name} to vpcu.formats")
        return first, second


def _factor(x: Operand) -> Factor:
    """Where rows [..., R, K] of A, or columns of B, are zero, infinite or NaN."""
    return Factor(NonZeros(x.values, x.windows), None if x.finite else ~x.values.isfinite())


def open_device(name: str = "emulator",
                config: Configuration | str | Path | None = None) -> Device:
    """Open a device by name.

    Parameters
    ----------
    name : str
        ``"emulator"``.
    config : Configuration, str or Path, optional
        The design: a configuration, a preset's name, or the path of a TOML file; the preset
        ``default`` unless given.

    Raises
    ------
    UsageError
        The name is unknown.
    ConfigurationError
        The configuration has problems; all of them are named.
    DeviceError
        The device exists, but not in this release.
    """
    if config is not None and not isinstance(config, Configuration | str | Path):
        raise UsageError("X202", "config is a Configuration, a preset's name or a path; "
                                 f"got {type(config).__name__}")
    if name == "emulator":
        return EmulatorDevice(load("default" if config is None else config))
    kind = str(name).partition(":")[0]
    if kind in ("rtl", "serial"):
        raise DeviceError("X401", f"{name!r} runs compiled RTL or a board, which this release does "
                                  "not drive", "open_device('emulator') gives the same bits")
    raise UsageError("X211", f"the device is called emulator; got {name!r}"
                             f"{nearest(str(name), ['emulator'])}")
