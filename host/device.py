"""What a device does, and the emulator: the contract of docs/numerics.md, vectorised in torch."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar

import torch
from torch import Tensor

from ..gen.config import Configuration, load
from ..gen.errors import DeviceError, UsageError, nearest
from . import trace
from .attention import Setup, Verbs, attend, attend_backward, scale_and_mask
from .checked import checked_formats, checked_product
from .codec import Compressed, compress, decompress
from .counters import COUNTERS, Counters
from .counting import count_codec, count_dots, count_elementwise, count_product, count_rows
from .gemm import default_overflow, product
from .log_softmax import exact_log_softmax, log_softmax_backward, softmax_and_log_sums
from .mx import Scales
from .numerics import decode, encode, max_finite
from .softmax import exact_softmax, softmax_backward

__all__ = ["COUNTERS", "ComposingDevice", "Counters", "Device", "EmulatorDevice", "open_device",
           "verbs_shown"]

_Result = TypeVar("_Result")

_LARGEST_BLOCK = (32 << 20) - (16 << 10)     # bytes: just under glibc's own upper limit


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
        self._events: list[str] = []

    @property
    def counters(self) -> Counters:
        """What was done so far; the names and meanings are in ``COUNTERS``."""
        return self._counters

    @property
    def events(self) -> tuple[str, ...]:
        """What happened to the device, in sentences: that another one took over."""
        return tuple(self._events)

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

        The engine takes the sums (``dots``), the elementwise unit the rest. The formats of both
        dtypes must be in the configuration.
        """

    @abstractmethod
    def log_softmax(self, x: Tensor, result: str = "fp32") -> Tensor:
        """Log-softmax over the last dimension (docs/softmax.md, S7), in the dtype of ``result``."""

    @abstractmethod
    def log_softmax_backward(self, log_p: Tensor, g: Tensor) -> Tensor:
        """g - p * sum(g) over the last dimension, p the softmax of ``log_p``; fp32.

        As `softmax_backward`; the configuration must have fp32.
        """

    @abstractmethod
    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None,
                  causal: bool = False, scale: float | None = None,
                  formats: tuple[str, str] = ("e4m3", "e4m3"), scaled: bool = False,
                  result: str = "fp32") -> tuple[Tensor, Tensor]:
        """softmax(q @ k^T * scale + mask) @ v, by the rules of docs/attention.md.

        Parameters
        ----------
        q, k, v : Tensor
            [B, H, T, D], [B, G, S, D] and [B, G, S, E], G a divisor of H: each head of k and v
            serves H / G heads of q. Any float dtype and layout, CPU.
        mask : Tensor, optional
            Broadcast to [B, H, T, S]. Floating-point: added to the scores. bool: True where a key
            may be seen.
        causal : bool
            Whether query t sees keys 0 to t only.
        scale : float, optional
            1 / sqrt(D) unless given; rounded to fp32.
        formats : tuple of str
            Of q, k and v; and of the probabilities.
        scaled : bool
            Whether q, k and v are multiplied by powers of two, as in an offload.
        result : str
            The number format of the output.

        Returns
        -------
        tuple of Tensor
            The output [B, H, T, E], in the dtype of ``result``, and of each row of scores the
            logarithm of its sum of powers, float32 [B, H, T]. A row of which everything is masked
            gives zeros. Contiguous. Not differentiable.

        Raises
        ------
        UsageError
            Shapes, dtypes, formats or lengths that this device cannot take.
        """

    @abstractmethod
    def attention_backward(self, g: Tensor, q: Tensor, k: Tensor, v: Tensor, *,
                           mask: Tensor | None = None, causal: bool = False,
                           scale: float | None = None,
                           formats: tuple[str, str] = ("e4m3", "e4m3"), scaled: bool = False,
                           gradients: tuple[str, str] = ("e5m2", "e5m2"),
                           scaled_gradients: tuple[bool, bool] = (False, False),
                           result: str = "fp32") -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of q, k and v, where ``g`` [B, H, T, E] is that of the output.

        ``gradients`` are the formats in which gradients enter the products that give dP and dQ,
        and those that give dV and dK; ``scaled_gradients`` whether they are multiplied by powers
        of two there. All else as in `attention`, whose probabilities are computed anew.
        """

    @abstractmethod
    def compress(self, x: Tensor) -> Compressed:
        """The tensor without its zeros (docs/zce.md), in the format of its dtype; -0 becomes +0."""

    @abstractmethod
    def decompress(self, compressed: Compressed) -> Tensor:
        """What was compressed: a new tensor. UsageError X215 if it is damaged."""

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

    def _names(self, formats: tuple[str, str]) -> tuple[str, str]:
        """The names of formats that the configuration has."""
        first, second = checked_formats(self.config, formats)
        return first.name, second.name


verbs_shown = trace.calls_shown(*sorted(Device.__abstractmethods__))
"""Decorates a device that works itself: its verbs are on the time line (`trace`)."""


class ComposingDevice(Device):
    """A device whose attention is made of its other verbs (`attention`)."""

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None,
                  causal: bool = False, scale: float | None = None,
                  formats: tuple[str, str] = ("e4m3", "e4m3"), scaled: bool = False,
                  result: str = "fp32") -> tuple[Tensor, Tensor]:
        self._check_open()
        setup = Setup(mask, causal, scale, self._names(formats), scaled, result)
        return self._composed(lambda verbs: attend(verbs, q, k, v, setup))

    def attention_backward(self, g: Tensor, q: Tensor, k: Tensor, v: Tensor, *,
                           mask: Tensor | None = None, causal: bool = False,
                           scale: float | None = None,
                           formats: tuple[str, str] = ("e4m3", "e4m3"), scaled: bool = False,
                           gradients: tuple[str, str] = ("e5m2", "e5m2"),
                           scaled_gradients: tuple[bool, bool] = (False, False),
                           result: str = "fp32") -> tuple[Tensor, Tensor, Tensor]:
        self._check_open()
        setup = Setup(mask, causal, scale, self._names(formats), scaled, result)
        names = self._names(gradients)
        return self._composed(
            lambda verbs: attend_backward(verbs, g, q, k, v, setup, names, scaled_gradients))

    @abstractmethod
    def _composed(self, run: Callable[[Verbs], _Result]) -> _Result:
        """An operation made of others: what they count is added up, as one call."""


@verbs_shown
class EmulatorDevice(ComposingDevice):
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
        call = checked_product(self.config, a, b, formats, result, exponent=exponent, scales=scales,
                               orientation=orientation, compress=compress)
        target, vpcu = call.target, self.config.vpcu
        grid, lost = product(call.left, call.right, call.formats, target, exponent=exponent,
                             accumulator_width=vpcu.accumulator_width, max_k=vpcu.max_k)
        saturated = 0
        if target.width == 8:
            saturated = int((grid.abs() > max_finite(target)).sum())
        self._counters.add(count_product(self.config, call, saturated=saturated,
                                         lost=0 if lost is None else int(lost.sum())))
        return encode(grid, target, default_overflow(target))

    def softmax(self, x: Tensor, result: str = "bf16") -> Tensor:
        self._check_open()
        out = exact_softmax(x, result, config=self.config)
        self._counters.add(count_rows(self.config, x, out))
        return out

    def softmax_backward(self, p: Tensor, dp: Tensor) -> Tensor:
        self._check_open()
        out = softmax_backward(p, dp, config=self.config)
        self._counters.add({"calls": 1})
        self._counters.add(count_dots(self.config, p, dp))
        self._counters.add(count_elementwise(self.config, p))
        return out

    def log_softmax(self, x: Tensor, result: str = "fp32") -> Tensor:
        self._check_open()
        out = exact_log_softmax(x, result, config=self.config)
        self._counters.add(count_rows(self.config, x, out))
        self._counters.add(count_elementwise(self.config, x))
        return out

    def log_softmax_backward(self, log_p: Tensor, g: Tensor) -> Tensor:
        self._check_open()
        out = log_softmax_backward(log_p, g, config=self.config)
        self._counters.add(count_rows(self.config, log_p, out))
        self._counters.add(count_dots(self.config, torch.ones(()).expand(g.shape), g.float()))
        self._counters.add(count_elementwise(self.config, g))
        return out

    def compress(self, x: Tensor) -> Compressed:
        self._check_open()
        found = compress(x)
        self._counters.add(count_codec(decode(x) != 0, found))
        return found

    def decompress(self, compressed: Compressed) -> Tensor:
        self._check_open()
        x = decompress(compressed)
        self._counters.add(count_codec(decode(x) != 0, compressed, back=True))
        return x

    def _composed(self, run: Callable[[Verbs], _Result]) -> _Result:
        part = copy.copy(self)
        part._counters = Counters()

        def softmax(x: Tensor, result: str) -> tuple[Tensor, Tensor]:
            p, log_sums = softmax_and_log_sums(x, result, config=self.config)
            part._counters.add(count_rows(self.config, x, p, len(x)))
            return p, log_sums

        def scores(x: Tensor, factor: float, *masks: Tensor | None) -> Tensor:
            part._counters.add(count_elementwise(self.config, x))
            return scale_and_mask(x, factor, *masks)

        found = run(Verbs(part.gemm, softmax, part.softmax_backward, scores))
        self._counters.add({**part.counters, "calls": 1})
        return found


def open_device(name: str = "emulator",
                config: Configuration | str | Path | None = None, *,
                latency: float = 0.1, fallback: str | None = None) -> Device:
    """Open a device by name.

    Parameters
    ----------
    name : str
        ``"emulator"``; ``"rtl"``, the generated Verilog of the whole machine, compiled natively and
        run cycle by cycle (the first time it is compiled, for minutes); ``"rtl:CONFIG"``, the same,
        of a preset or a TOML file; ``"serial:PATH"``, a board at a serial port, built from
        ``config``.
    config : Configuration, str or Path, optional
        The design: a configuration, a preset's name, or the path of a TOML file; the preset
        ``default`` unless given.
    latency : float
        Seconds that a board at a serial port may take to answer, beside its bytes on the line. A
        simulated one (`SimulatedPort`) needs some.
    fallback : str, optional
        ``"emulator"``: if the device is lost, the emulator goes on where it was, and the report
        says so (`FallbackDevice`). Else an operation on a lost device raises DeviceError.

    Raises
    ------
    UsageError
        The name is unknown, or names a configuration beside ``config``.
    ConfigurationError
        The configuration has problems; all of them are named.
    ToolMissing
        Nothing compiles Verilog here.
    DeviceError
        There is no such port, it is in use, nothing answers there, or what answers was built from
        another configuration (X401 to X410).
    """
    if config is not None and not isinstance(config, Configuration | str | Path):
        raise UsageError("X202", "config is a Configuration, a preset's name or a path; "
                                 f"got {type(config).__name__}")
    if fallback not in (None, "emulator"):
        raise UsageError("X206", f"fallback is 'emulator' or None; got {fallback!r}")
    kind, has_place, place = str(name).partition(":")
    if kind not in _OPENERS or (has_place and (kind == "emulator" or not place)):
        raise UsageError("X211", f"the device is called {', '.join(_OPENERS)}, rtl:CONFIG or "
                         f"serial:PATH; got {name!r}{nearest(str(name), _OPENERS)}")
    with trace.span("host", "open_device", device=str(name)):
        device = _OPENERS[kind](place, config, latency)
    if fallback is None:
        return device
    from .fallback import FallbackDevice
    return FallbackDevice(device)


def _open_emulator(place: str, config: Configuration | str | Path | None, latency: float
                   ) -> Device:
    return EmulatorDevice(load("default" if config is None else config))


def _open_rtl(place: str, config: Configuration | str | Path | None, latency: float) -> Device:
    from .machine_device import MachineDevice
    from .native_bus import NativeBus
    if place and config is not None:
        raise UsageError("X211", f"'rtl:{place}' names a configuration; so config is not given")
    design = load(place or ("default" if config is None else config))
    return MachineDevice(design, NativeBus(design))


def _open_serial(place: str, config: Configuration | str | Path | None, latency: float) -> Device:
    from .link import open_serial
    from .machine_device import MachineDevice
    design = load("default" if config is None else config)
    return MachineDevice(design, open_serial(
        f"serial:{place}", baud=design.device.baud, configuration_hash=design.hash,
        latency=latency))


_OPENERS = MappingProxyType({"emulator": _open_emulator, "rtl": _open_rtl, "serial": _open_serial})
