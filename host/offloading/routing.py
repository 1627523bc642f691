"""Put functions in front of PyTorch's CPU kernels, and take them away again."""

import warnings
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Native", "Overrides"]

Native = Callable[..., Any]


class Overrides:
    """Replaced CPU kernels of aten operations.

    While in place, a call of the operation reaches the route below autograd, autocast and vmap,
    in forward and backward alike. Each operation has a ``torch.library.Library`` of its own, so
    PyTorch's kernel is the registered one again as soon as ``remove`` has dropped it.
    """

    def __init__(self) -> None:
        self._libraries: dict[str, torch.library.Library] = {}

    def put(self, name: str, route: Callable[[Native], Callable[..., Any]]) -> None:
        """Route ``aten::name``.

        Parameters
        ----------
        name : str
            The operation with its overload: ``"mm"``, ``"mm.out"``.
        route : callable
            Called once with ``native(keyset, *arguments)``, which runs PyTorch's own kernel; gives
            the function that is called in its place as ``(keyset, *arguments)``.

        Raises
        ------
        ValueError
            The operation is routed already.
        """
        if name in self._libraries:
            raise ValueError(f"aten::{name} is routed already")
        native = torch.library.get_kernel(f"aten::{name}", "CPU").call_boxed
        library = torch.library.Library("aten", "IMPL")
        self._libraries[name] = library
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Warning only once for all operators")
            # Dynamo would otherwise compile the route where a graph is broken.
            library.impl(name, torch.compiler.disable(route(native)), "CPU", with_keyset=True)

    def remove(self) -> None:
        """PyTorch's own kernels again. A library takes its kernel along when it goes."""
        self._libraries.clear()
