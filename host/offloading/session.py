"""The session of an offload: what is routed to the device, with which formats, and what it did."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from ...gen.errors import UsageError, nearest
from ...hdl.formats import FORMATS
from ...hdl.softmax_tables import MAX_LENGTH
from .calls import (
    Attention,
    AttentionBackward,
    Call,
    LogSoftmaxBackward,
    Product,
    SoftmaxBackward,
    format_of_sums,
)
from .ops import OFFLOADED, WATCHED
from .policy import Choice, OpContext, Policy, policy_from
from .report import COUNTERS, Fallback, Report, Row
from .roles import Roles
from .routing import Native, Overrides
from .running import OPS, Result, run

if TYPE_CHECKING:
    from ..device import Device

__all__ = ["Session", "offload"]

# Set while a device works (its own products are PyTorch's), while PyTorch runs an operation that is
# counted as a whole, and while a session is paused.
_bypass: ContextVar[bool] = ContextVar("exactum_bypass", default=False)
_installed = threading.Lock()  # held by the one session of the process

# Operations of which both formats count, and how they are shown.
_FORMATS_SHOWN = {"gemm": "{0} × {1}", "attention": "{0}, P {1}", "attention_backward": "{0}, {1}"}
_OF_PRODUCTS = frozenset(_FORMATS_SHOWN)


@contextmanager
def offload(device: "Device", precision: str | Mapping[str, str] | Policy = "e4m3"
            ) -> Iterator["Session"]:
    """Run the matrix products, softmaxes and attentions of everything inside on a device.

    Forward and backward, in every thread: PyTorch's CPU kernels of ``mm``, ``addmm``, ``bmm``,
    ``baddbmm``, softmax, log-softmax and attention are overridden until the end of the block. What
    does not match runs in PyTorch untouched and is counted with its reason.

    Parameters
    ----------
    device : Device
        From ``open_device``.
    precision : str, mapping or callable
        ``"e4m3"`` (with e5m2 gradients), ``"e5m2"``, ``"fp16"``, ``"bf16"`` or ``"fp32"``; a
        mapping from role to format; or a policy (see ``exactum.host.offloading.policy``).

    Yields
    ------
    Session
        Its ``report()`` may be asked for at any time, also after the block.

    Raises
    ------
    UsageError
        X209, X205: see ``policy_from``. X210: a session is active already. X202: no device.
    """
    if not hasattr(device, "gemm"):
        raise UsageError("X202", f"offload takes a device; got {device!r}",
                         "open one: device = exactum.host.open_device(\"emulator\")")
    session = Session(device, policy_from(precision, device.config.vpcu.formats))
    if not _installed.acquire(blocking=False):
        raise UsageError("X210", "an offload session is active already",
                         "leave its `with` block first, or use it for this work too")
    try:
        with session._routing():
            yield session
    finally:
        _installed.release()


class Session:
    """One offload: its device, its policy, and what has been counted.

    Members
    -------
    device : Device
    policy : callable
    """

    def __init__(self, device: "Device", policy: Policy) -> None:
        self.device = device
        self.policy = policy
        self._lock = threading.RLock()
        self._calls = 0  # that rows have counted
        self._rows: dict[tuple, Row] = {}
        self._fallbacks: dict[tuple, Fallback] = {}

    def report(self) -> Report:
        """What has run so far, as a snapshot."""
        with self._lock:
            return Report.of(self._rows.values(), self._fallbacks.values(),
                             config=self.device.config,
                             policy=getattr(self.policy, "__name__", str(self.policy)),
                             events=getattr(self.device, "events", ()))

    def reset(self) -> None:
        """Count from zero again."""
        with self._lock:
            self._calls = 0
            self._rows.clear()
            self._fallbacks.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Everything inside runs in PyTorch and is not counted, in this thread: an evaluation."""
        token = _bypass.set(True)
        try:
            yield
        finally:
            _bypass.reset(token)

    @contextmanager
    def _routing(self) -> Iterator[None]:
        """Stand in front of PyTorch's kernels."""
        overrides, self._roles = Overrides(), Roles()
        try:
            for name in OFFLOADED:
                overrides.put(name, partial(self._offloader, name))
            for name in WATCHED:
                overrides.put(name, partial(self._watcher, name))
            yield
        finally:
            overrides.remove()
            self._roles.remove()

    def _offloader(self, name: str, native: Native) -> Callable[..., Any]:
        """The route of an operation that a device can serve."""
        read = OFFLOADED[name]

        def route(keyset: Any, *arguments: Any, **options: Any) -> Any:
            if _bypass.get():
                return native(keyset, *arguments, **options)
            call = read(*arguments, **options)
            outcome = self._serve(call)
            if not isinstance(outcome, str):
                return outcome
            result = native(keyset, *arguments, **options)  # refuses malformed arguments
            self._count_fallback(name, outcome, arguments, call.products)
            return result
        return route

    def _watcher(self, name: str, native: Native) -> Callable[..., Any]:
        """The route of an operation that is only counted."""
        watched = WATCHED[name]

        def route(keyset: Any, *arguments: Any, **options: Any) -> Any:
            if _bypass.get():
                return native(keyset, *arguments, **options)
            token = _bypass.set(watched.whole)
            try:
                result = native(keyset, *arguments, **options)  # refuses malformed arguments
            finally:
                _bypass.reset(token)
            self._count_fallback(name, watched.reason, arguments,
                                 watched.products(*arguments, **options))
            return result
        return route

    def _serve(self, call: Call) -> Result | str:
        """The result from the device, or the reason why PyTorch must compute it."""
        token = _bypass.set(True)
        try:
            if reason := call.misfit():
                return reason
            context = self._roles.context(OPS[type(call)], call)
            if reason := self._too_long(call):
                return reason
            choices = []
            for asked in _asked(context):
                choice = _choice_from(self.policy(asked))
                if choice is None:
                    return "the policy keeps it in PyTorch"
                if reason := self._missing(context.op, choice, call):
                    return reason
                choices.append(choice)
            with self._lock:
                started = time.perf_counter()
                before = dict(self.device.counters)
                result = run(self.device, call, *choices)
                self._count(context, choices[-1], before, time.perf_counter() - started)
            return result
        finally:
            _bypass.reset(token)

    def _too_long(self, call: Call) -> str | None:
        """Why the device cannot take these sizes, or None."""
        limit, k, length = self.device.config.vpcu.max_k, 0, call.sizes[-1]
        if isinstance(call, Product):
            k, length = call.left.shape[-1], 0
        elif isinstance(call, SoftmaxBackward | LogSoftmaxBackward):
            k = length
        elif isinstance(call, Attention | AttentionBackward):
            k, length = call.longest, call.sizes[3]
        if k > limit:
            return f"K = {k} exceeds the device's {limit}"
        if length > MAX_LENGTH:
            return f"row of {length} exceeds the softmax unit's {MAX_LENGTH}"
        return None

    def _missing(self, op: str, choice: Choice, call: Call) -> str | None:
        """Why the device cannot take these formats, or None."""
        for name in choice.formats:
            if name not in FORMATS:
                raise UsageError("X203", f"a number format is one of {', '.join(FORMATS)}; the "
                                 f"policy chose {name!r}" + nearest(name, FORMATS))
            if op in _OF_PRODUCTS and name not in self.device.config.vpcu.formats:
                return f"the device has no {name}"
        summed = format_of_sums(call)
        if summed is not None and summed not in self.device.config.vpcu.formats:
            return f"the device has no {summed}, to sum the backward pass's rows in"
        return None

    def _count(self, context: OpContext, choice: Choice, before: Mapping[str, int],
               seconds: float) -> None:
        """Add what the device's counters say that the call has done."""
        formats = _FORMATS_SHOWN.get(context.op, "{0}").format(*choice.formats)
        key = (context.op, context.layer, context.role, formats, context.sizes)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = Row(*key)
        after = self.device.counters
        counts = {name: after.get(name, 0) - before.get(name, 0) for name in COUNTERS}
        for name, count in counts.items():
            setattr(row, name, getattr(row, name) + count)
        row.history.add(counts, self._calls)
        self._calls += 1
        row.calls += 1
        row.seconds += seconds

    def _count_fallback(self, name: str, reason: str, arguments: tuple,
                        products: int | None) -> None:
        with self._lock:
            key = (name, self._roles.layer(arguments), reason)
            row = self._fallbacks.get(key)
            if row is None:
                row = self._fallbacks[key] = Fallback(*key)
            row.calls += 1
            row.products = None if row.products is None or products is None \
                else row.products + products


def _asked(context: OpContext) -> tuple[OpContext, ...]:
    """What the policy is asked: by an attention's backward pass first for its forward's formats."""
    if context.op != "attention_backward":
        return (context,)
    return (OpContext("attention", context.layer, "forward", context.sizes), context)


def _choice_from(answer: Any) -> Choice | None:
    """A policy's answer as a choice, None if the operation is to stay in PyTorch."""
    if isinstance(answer, str):
        return Choice((answer, answer))
    if answer is None or (isinstance(answer, Choice) and _is_pair(answer.formats, str)
                          and _is_pair(answer.scaled, bool)):
        return answer
    raise UsageError("X209", "a policy answers a Choice (a pair of format names, a pair of bools), "
                     f"a format name or None; got {answer!r}")


def _is_pair(value: Any, kind: type) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(
        isinstance(item, kind) for item in value)
