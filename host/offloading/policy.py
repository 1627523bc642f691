"""Which number formats an offloaded operation uses, and when its operands are scaled."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ...gen.errors import UsageError, nearest
from ...hdl.formats import FORMATS, lookup
from ..numerics import max_finite

__all__ = ["BACKWARD", "Choice", "OpContext", "Policy", "Role", "RolePolicy", "policy_from",
           "scale_exponent"]

Role = Literal["forward", "data-gradient", "weight-gradient", "backward"]
BACKWARD: tuple[Role, ...] = ("data-gradient", "weight-gradient", "backward")


class OpContext(NamedTuple):
    """What a policy is told about one operation.

    Members
    -------
    op : str
        ``"gemm"``, ``"softmax"`` or ``"softmax_backward"``.
    layer : str
        Name of the module that ran it forward, as in ``named_modules``; empty outside modules.
    role : str
        ``"forward"``; ``"data-gradient"``: the gradient of the left operand; ``"weight-gradient"``:
        that of the right one (a linear layer's weight); ``"backward"``: a product of the backward
        pass that could be told neither way.
    sizes : tuple of int
        (M, K, N) or (batch, M, K, N); of a softmax (rows, length). In elements.
    gradient : tuple of bool
        For each of the two operands whether it is a gradient.
    """

    op: str
    layer: str
    role: Role
    sizes: tuple[int, ...]
    gradient: tuple[bool, bool] = (False, False)


class Choice(NamedTuple):
    """What a policy answers.

    Members
    -------
    formats : tuple of str
        Of a product: the formats of its left and right operand. Of a softmax: the format into
        which the probabilities are rounded, twice.
    scaled : tuple of bool
        For each operand whether it is multiplied by the power of two that brings its largest
        magnitude just under the format's. The factor is taken back, exactly, inside the one
        rounding of the result.
    """

    formats: tuple[str, str]
    scaled: tuple[bool, bool] = (False, False)


Policy = Callable[[OpContext], Choice | str | None]


@dataclass(frozen=True)
class RolePolicy:
    """One format for activations and weights, others for the gradients that flow back.

    8-bit operands are always scaled, fp16 ones when they are gradients, bf16 and fp32 never. The
    probabilities of a softmax are fp32 where the products are 8-bit.

    Parameters
    ----------
    formats : mapping from role to format name
        ``"forward"`` is required: the format of every operand that is not a gradient. Gradients
        take the format of their role, else that of ``"backward"``, else ``"forward"``.
    """

    formats: Mapping[str, str]

    def format_of(self, role: Role, is_gradient: bool) -> str:
        """The format of one operand."""
        if not is_gradient:
            return self.formats["forward"]
        return self.formats.get(role) or self.formats.get("backward") or self.formats["forward"]

    def __call__(self, context: OpContext) -> Choice:
        if context.op != "gemm":
            name = self.formats["forward"]
            return Choice(("fp32", "fp32") if lookup(name).width == 8 else (name, name))
        left, right = (self.format_of(context.role, g) for g in context.gradient)
        return Choice((left, right), (needs_scale(left, context.gradient[0]),
                                      needs_scale(right, context.gradient[1])))

    def __str__(self) -> str:
        forward, *others = self.formats.items()
        return ", ".join([forward[1], *(f"{role} {name}" for role, name in others)])


def needs_scale(name: str, is_gradient: bool) -> bool:
    """Whether an operand in this format is scaled unless a policy says otherwise."""
    width = lookup(name).width
    return width == 8 or (name == "fp16" and is_gradient)


def policy_from(precision: "str | Mapping[str, str] | Policy",
                available: Collection[str]) -> Policy:
    """The policy that ``precision`` stands for.

    Parameters
    ----------
    precision : str, mapping or callable
        A format name: that format for everything, but ``"e4m3"`` takes e5m2 for gradients where
        the device has it. A mapping from role to format. Or a policy: called with an OpContext,
        it gives a Choice, a format name (for both operands), or None to keep the operation in
        PyTorch.
    available : collection of str
        The device's formats.

    Raises
    ------
    UsageError
        X209, an unknown precision; X205, a format that the device does not have.
    """
    if callable(precision):
        return precision
    if isinstance(precision, str) and precision in FORMATS:
        formats = {"forward": precision}
        if precision == "e4m3" and "e5m2" in available:
            formats["backward"] = "e5m2"
    elif isinstance(precision, Mapping) and _is_role_mapping(precision):
        formats = dict(precision)
    else:
        raise UsageError(
            "X209", f"a precision is one of {', '.join(FORMATS)}, a mapping from the roles "
            f"forward (required), {', '.join(BACKWARD)} to such names, or a callable; "
            f"got {precision!r}" + nearest(str(precision), FORMATS))
    for name in formats.values():
        if name not in available:
            raise UsageError("X205", f"the device has the formats {', '.join(available)}; "
                             f"the precision asks for {name}",
                             f"add {name} to vpcu.formats in the configuration of the device")
    return RolePolicy(formats)


def _is_role_mapping(mapping: Mapping[str, str]) -> bool:
    return ("forward" in mapping and set(mapping) <= {"forward", *BACKWARD}
            and all(name in FORMATS for name in mapping.values()))


def scale_exponent(x: Tensor, name: str) -> int:
    """The largest s for which 2^s times the largest finite magnitude of x does not overflow.

    0 for a tensor of zeros.
    """
    low, high = (float(v) for v in torch.aminmax(x.detach()))
    largest = max(-low, high)
    if not math.isfinite(largest):
        finite = x[torch.isfinite(x)]
        largest = float(finite.abs().amax()) if finite.numel() else 0.0
    if largest == 0:
        return 0
    mantissa, exponent = math.frexp(largest)
    top_mantissa, top_exponent = math.frexp(max_finite(lookup(name)))
    return top_exponent - exponent - (mantissa > top_mantissa)
