"""Who calls: the layer an operation belongs to, its role, and which operand is the gradient.

A forward call leaves a note under the sequence number of the autograd node that PyTorch has just
made for it, and under the edges of that node; the products of the backward pass run inside the
node and find the note by the same key. Sequence numbers are counted in each thread, so that without
the edges a node of another thread would find a stranger's note. Where no note can be found (a
compiled graph, a user's autograd.Function, backward in another thread) the storages that forward
products have read tell data from gradients.

PyTorch has no public names for the running node, the sequence numbers and a checkpoint's
recomputation: the private ones that are needed are used in this file only.
"""

import sys
import threading
import weakref
from collections.abc import Iterable
from types import FrameType
from typing import Any, NamedTuple

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from .calls import Attention, Call, Product, Softmax
from .policy import OpContext, Role

__all__ = ["Layers", "Roles"]

MOST_NOTES = 1 << 16  # of one thread; forward passes without a backward leave theirs behind

# A node's sequence number; then for each of its edges that of the node it leads to, or a leaf's
# address.
_Key = tuple[int, ...]

_CHECKPOINT = torch.utils.checkpoint.__file__
_ENGINE = _engine_run_backward.__code__
_LEAF: Any = vars(torch._C._functions)["AccumulateGrad"]  # not in its type stubs


class Layers:
    """Names of the modules that are running, as in ``named_modules`` of the outermost one.

    The outermost module itself goes by its class. Of a second outermost module the names are
    prefixed with its class, so that two networks in one session stay apart. What torch.compile has
    compiled belongs to the module around it.
    """

    def __init__(self) -> None:
        self._names: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
        self._local = threading.local()
        self._handles = (register_module_forward_pre_hook(self._enter),
                         register_module_forward_hook(self._leave, always_call=True))

    def remove(self) -> None:
        """Stop watching modules."""
        for handle in self._handles:
            handle.remove()

    @property
    def current(self) -> str:
        """The innermost running module of this thread; empty when there is none."""
        stack = self._stack()
        return stack[-1] if stack else ""

    def _stack(self) -> list[str]:
        try:
            return self._local.stack
        except AttributeError:
            self._local.stack = []
            return self._local.stack

    def _enter(self, module: nn.Module, _: Any) -> None:
        if torch.compiler.is_compiling():
            return
        stack = self._stack()
        name = self._names.get(module)
        if name is None:
            name = type(module).__name__
            if not stack:
                self._name_all(module, f"{name}." if len(self._names) else "")
            self._names[module] = name
        stack.append(name)

    def _name_all(self, root: nn.Module, prefix: str) -> None:
        for name, module in root.named_modules():
            self._names.setdefault(module, prefix + name.replace("_orig_mod.", ""))

    def _leave(self, _: nn.Module, __: Any, ___: Any) -> None:
        if torch.compiler.is_compiling():
            return
        stack = self._stack()
        if stack:
            stack.pop()


class _Operand:
    """Recognises a tensor that a forward product has read, as long as its memory is alive."""

    __slots__ = ("_address", "_storage", "columns")

    def __init__(self, x: Tensor) -> None:
        self._address = x.data_ptr()
        self._storage = weakref.ref(x.untyped_storage())
        # autograd's test for a column-major matrix, whose gradient it computes transposed
        self.columns = x.dim() == 2 and x.stride(0) == 1 and x.stride(1) == x.shape[0]

    def is_in(self, x: Tensor) -> bool:
        return self._address == x.data_ptr() and self._storage() is not None


class _Operands(NamedTuple):
    """What a forward product has read."""

    left: _Operand
    right: _Operand
    sizes: tuple[int, ...]


class _Note(NamedTuple):
    """A forward call that autograd may come back to."""

    layer: str
    operands: _Operands | None = None


class Roles:
    """Tells each call its layer and role."""

    def __init__(self) -> None:
        self.layers = Layers()
        self._local = threading.local()
        self._side: weakref.WeakKeyDictionary[Any, Role] = weakref.WeakKeyDictionary()

    def remove(self) -> None:
        """Stop watching."""
        self.layers.remove()

    def layer(self, operands: Iterable[Any]) -> str:
        """The layer of an operation that runs now, in either direction."""
        node = _backward_node()
        note = self._noted(node)
        if node is None:
            self._leave_note(_Note(self.layers.current), operands)
        return self.layers.current if note is None else note.layer

    def context(self, op: str, call: Call) -> OpContext:
        """What a policy is told about a call."""
        node = _backward_node()
        note = self._noted(node)
        layer = self.layers.current if note is None else note.layer
        if isinstance(call, Product):
            if node is None:
                self._remember(call)
                return OpContext(op, layer, "forward", call.sizes)
            if note is not None and note.operands is not None:
                role, gradient = _by_note(call, note.operands)
            else:
                role, gradient = self._by_storage(call)
            return OpContext(op, layer, role, call.sizes, gradient)
        if isinstance(call, Softmax):
            self._leave_note(_Note(layer), (call.x,))
            return OpContext(op, layer, "forward", call.sizes)
        if isinstance(call, Attention):
            self._leave_note(_Note(layer), (call.q, call.k, call.v))
            return OpContext(op, layer, "forward", call.sizes)
        return OpContext(op, layer, "backward", call.sizes, (True, False))

    def _notes(self) -> dict[_Key, _Note]:
        try:
            return self._local.notes
        except AttributeError:
            self._local.notes = {}
            return self._local.notes

    def _noted(self, node: Any) -> _Note | None:
        """What the forward call of a backward node has left."""
        return None if node is None else self._notes().get(_key_of_node(node))

    def _leave_note(self, note: _Note, operands: Iterable[Any]) -> None:
        """For the backward pass, if there will be one."""
        if not torch.is_grad_enabled():
            return
        if tracked := [t for t in operands if isinstance(t, Tensor) and t.requires_grad]:
            notes = self._notes()
            notes.setdefault(_key_of_call(tracked), note)
            if len(notes) > MOST_NOTES:
                del notes[next(iter(notes))]

    def _remember(self, product: Product) -> None:
        """Recognise a forward product's operands when they come again."""
        left, right = product.left, product.right
        self._side[left.untyped_storage()] = "weight-gradient"
        self._side[right.untyped_storage()] = "data-gradient"
        operands = _Operands(_Operand(left), _Operand(right), product.sizes)
        self._leave_note(_Note(self.layers.current, operands), (product.addend, left, right))

    def _by_storage(self, product: Product) -> tuple[Role, tuple[bool, bool]]:
        """Role and gradients of a backward product without a note: what forward read is data.

        If that cannot tell them apart (compiled code may keep a gradient where an activation has
        been), both count as gradients, whose formats reach further.
        """
        left = self._side.get(product.left.untyped_storage())
        right = self._side.get(product.right.untyped_storage())
        if left is not None and right is None:
            return left, (False, True)
        if right is not None and left is None:
            return right, (True, False)
        return "backward", (True, True)


def _by_note(product: Product, met: _Operands) -> tuple[Role, tuple[bool, bool]]:
    """Role and gradients of a backward product of the forward product ``left @ right``.

    The gradient of ``left`` is ``G @ right^T``, of ``right`` it is ``left^T @ G``, so the operand
    met in forward tells. Recomputed or moved activations (checkpoints, saved-tensor hooks) are not
    met again; then the result's shape tells, and the operand order that autograd uses.
    """
    if met.right.is_in(product.left):
        return "data-gradient", (False, True)
    if met.right.is_in(product.right):
        return "data-gradient", (True, False)
    if met.left.is_in(product.left):
        return "weight-gradient", (False, True)
    if met.left.is_in(product.right):
        return "weight-gradient", (True, False)
    *_, rows, k, columns = met.sizes
    shape = (product.left.shape[-2], product.right.shape[-1])
    if shape == ((columns, k) if met.right.columns else (k, columns)):
        gradient_left = met.right.columns
        return "weight-gradient", (gradient_left, not gradient_left)
    if shape == ((k, rows) if met.left.columns else (rows, k)):
        gradient_left = not met.left.columns
        return "data-gradient", (gradient_left, not gradient_left)
    return "backward", (True, True)


def _backward_node() -> Any:
    """The autograd node whose backward runs in this thread, or None.

    A checkpoint's recomputation also runs inside a node, but is forward. So is, as gradients are
    enabled, backward with ``create_graph=True``.
    """
    if torch.is_grad_enabled():
        return None
    node = torch._C._current_autograd_node()
    return None if node is None or _recomputes() else node


def _recomputes() -> bool:
    """Whether a checkpoint recomputes here: it is nearer in the call stack than the engine.

    Gradients do not tell: they are disabled in ``no_grad`` and in an autograd.Function's forward.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _ENGINE:
            return False
        if frame.f_code.co_filename == _CHECKPOINT:
            return True
        frame = frame.f_back
    return False


def _key_of_call(tracked: Iterable[Tensor]) -> _Key:
    """Of the node that autograd has just made for the running forward call, in this thread."""
    key = [torch.autograd._get_sequence_nr() - 1]
    for x in tracked:
        made_by = x.grad_fn
        key.append(x.data_ptr() if made_by is None else made_by._sequence_nr())
    return tuple(key)


def _key_of_node(node: Any) -> _Key:
    """The same of a node that runs backward: its edges lead to the operands' nodes."""
    key = [node._sequence_nr()]
    for nearer, _ in node.next_functions:
        if isinstance(nearer, _LEAF):
            key.append(nearer.variable.data_ptr())
        elif nearer is not None:
            key.append(nearer._sequence_nr())
    return tuple(key)
