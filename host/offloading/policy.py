"""Which number formats an offloaded operation uses, and when its operands are scaled."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ...gen.errors import UsageError, nearest
from ...hdl.formats import FORMATS, lookup

__all__ = ["BACKWARD", "Choice", "OpContext", "Policy", "Role", "RolePolicy", "policy_from"]

Role = Literal["forward", "data-gradient", "weight-gradient", "backward"]
BACKWARD: tuple[Role, ...] = ("data-gradient", "weight-gradient", "backward")


class OpContext(NamedTuple):
    """What a policy is told about one operation.

    Members
    -------
    op : str
        ``"gemm"``, ``"softmax"``, ``"log_softmax"``, ``"attention"``, or one of the last three
        with ``_backward``. The backward pass of an attention asks for its ``"attention"`` first,
        as it computes the probabilities anew, with the same bits.
    layer : str
        Name of the module that ran it forward, as in ``named_modules``; empty outside modules.
    role : str
        ``"forward"``; ``"data-gradient"``: the gradient of the left operand; ``"weight-gradient"``:
        that of the right one (a linear layer's weight); ``"backward"``: a product of the backward
        pass that could be told neither way.
    sizes : tuple of int
        (M, K, N) or (batch, M, K, N); of a softmax (rows, length); of an attention (batch, heads,
        queries, keys, width of a head). In elements.
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
        which the probabilities are rounded, twice. Of an attention: of its operands, and of its
        probabilities. Of its backward pass: of gradients where that of q is computed, and where
        those of k and v are.
    scaled : tuple of bool
        For each operand whether it is multiplied by the power of two that brings its largest
        magnitude just under the format's. The factor is taken back, exactly, inside the one
        rounding of the result. The probabilities of an attention never are.
    """

    formats: tuple[str, str]
    scaled: tuple[bool, bool] = (False, False)


Policy = Callable[[OpContext], Choice | str | None]


@dataclass(frozen=True)
class RolePolicy:
    """One format for activations and weights, others for the gradients that flow back.

    8-bit operands are always scaled, fp16 ones when they are gradients, bf16 and fp32 never. The
    probabilities of a softmax are fp32 where the products are 8-bit, those of an attention fp16 or
    else bf16 if the device has it: 16-bit products take no more cycles. Log-probabilities are fp32.

    Parameters
    ----------
    formats : mapping from role to format name
        ``"forward"`` is required: the format of every operand that is not a gradient. Gradients
        take the format of their role, else that of ``"backward"``, else ``"forward"``. In an
        attention, the gradients of q are ``"data-gradient"``, those of k and v are
        ``"weight-gradient"``.
    available : collection of str
        The device's formats.
    """

    formats: Mapping[str, str]
    available: Collection[str] = tuple(FORMATS)

    def format_of(self, role: Role, is_gradient: bool) -> str:
        """The format of one operand."""
        if not is_gradient:
            return self.formats["forward"]
        return self.formats.get(role) or self.formats.get("backward") or self.formats["forward"]

    def __call__(self, context: OpContext) -> Choice:
        name = self.formats["forward"]
        is_narrow = lookup(name).width == 8
        if context.op.startswith("log_softmax"):
            return Choice(("fp32", "fp32"))
        if context.op.startswith("softmax"):
            return Choice(("fp32", "fp32") if is_narrow else (name, name))
        if context.op == "attention":
            wider = (p for p in ("fp16", "bf16") if is_narrow and p in self.available)
            return Choice((name, next(wider, name)), (needs_scale(name, False), False))
        if context.op == "attention_backward":
            left, right = (self.format_of(role, True) for role in BACKWARD[:2])
            return Choice((left, right), (needs_scale(left, True), needs_scale(right, True)))
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
    return RolePolicy(formats, tuple(available))


def _is_role_mapping(mapping: Mapping[str, str]) -> bool:
    return ("forward" in mapping and set(mapping) <= {"forward", *BACKWARD}
            and all(name in FORMATS for name in mapping.values()))
