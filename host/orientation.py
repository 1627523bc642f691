"""Which operand is streamed, and whether zeros are left out: what takes the fewest cycles.

The engine skips zeros of the operand that it streams. A product may be computed as it stands, A
streamed, or transposed, C^T = B^T A^T, B streamed; and with or without the rows, indices and
columns that ``columns`` finds needless. Sums are exact, so all give the same bits; the exact cycle
model decides. Of ways that take equally long, compressed ones come first, then A as the streamed
operand.
"""

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ..gen.config import Configuration
from ..gen.errors import UsageError, nearest
from ..hdl.formats import Format
from .columns import Factor, Kept, kept, row_indices
from .cycles import GemmWork, fewest_cycles, gemm_cycles
from .masks import NonZeros

__all__ = ["ORIENTATIONS", "Streaming", "best_way", "choose", "ordered", "turns"]

ORIENTATIONS = ("auto", "a", "b")
T = TypeVar("T")


class Streaming(NamedTuple):
    """How one product goes through the engine."""

    turned: bool
    """Transposed: B is streamed."""
    kept: Kept | None
    """What is sent, rows being those of the streamed operand; None: everything."""
    work: GemmWork
    """What that costs."""
    nonzero: NonZeros
    """[R, K] of the streamed operand, what is sent of it."""
    columns: int
    """How many are sent of the loaded operand."""
    indices: Tensor | None
    """bool [R, K]: the indices that each row is sent with; None: all."""


def turns(orientation: str) -> tuple[bool, ...]:
    """The values of ``turned`` that an orientation allows; UsageError if there is none such."""
    allowed = {"auto": (False, True), "a": (False,), "b": (True,)}
    if not isinstance(orientation, str) or orientation not in allowed:
        raise UsageError("X206", f"orientation is one of {', '.join(ORIENTATIONS)}; "
                                 f"got {orientation!r}{nearest(str(orientation), ORIENTATIONS)}",
                         "leave it out: auto takes the faster one")
    return allowed[orientation]


def choose(config: Configuration, a: Factor, b: Factor, formats: tuple[Format, Format], *,
           scaled: bool = False, orientation: str = "auto", compress: bool = True) -> Streaming:
    """The way of one product that takes the fewest cycles.

    Parameters
    ----------
    config : Configuration
        The engine's.
    a, b : Factor
        Of [M, K] and [N, K]: A's rows and B's columns.
    formats : tuple of Format
        Of A and B.
    scaled : bool
        Whether an operand has block scales.
    orientation : str
        ``"auto"``, or ``"a"`` or ``"b"``: that operand is streamed.
    compress : bool
        Whether what need not be sent may be left out.
    """
    found = kept(a, b, config.vpcu.scale_block if scaled else 1) if compress else None
    return best_way(config, a, b, formats, scaled, turns(orientation), compress, found)


def best_way(config: Configuration, a: Factor, b: Factor, formats: tuple[Format, Format],
             scaled: bool, allowed: tuple[bool, ...], compress: bool,
             found: Kept | None) -> Streaming:
    """`choose`, ``found`` being what is kept of the product."""
    ways: list[tuple[bool, Kept | None]] = [(turned, None) for turned in allowed]
    if found is not None:
        ways[:0] = [(turned, found.turned if turned else found) for turned in allowed]
    elif compress and a.nonzero.shape[1] > config.vpcu.b_depth:
        ways[:0] = [(turned, _everything(*ordered(a, b, turned))) for turned in allowed]
    best = None
    for turned, parts in ways:
        streamed, loaded = ordered(a, b, turned)
        order = ordered(*formats, turned)
        if best is not None and parts is None and best.work.cycles <= fewest_cycles(
                config, streamed.nonzero, loaded.nonzero.shape[0], order):
            continue
        nonzero, special, columns = streamed.nonzero, loaded.special, loaded.nonzero.shape[0]
        indices = None
        if parts is not None:
            nonzero = streamed.select(parts.rows, parts.inner).nonzero
            special = loaded.special_of(parts.columns, parts.inner)
            columns = int(parts.columns.sum())
            if nonzero.shape[1] > config.vpcu.b_depth:
                indices = row_indices(nonzero.mask, special,
                                      config.vpcu.scale_block if scaled else 1)
        work = gemm_cycles(config, nonzero, None if special is None else special.mT, order,
                           scaled=scaled, columns=columns, indices=indices)
        if best is None or work.cycles < best.work.cycles:
            best = Streaming(turned, parts, work, nonzero, columns, indices)
    assert best is not None
    return best


def _everything(streamed: Factor, loaded: Factor) -> Kept:
    (rows, inner), columns = streamed.nonzero.shape, loaded.nonzero.shape[0]
    return Kept(*(torch.ones(size, dtype=torch.bool) for size in (rows, inner, columns)))


def ordered(first: T, second: T, turned: bool) -> tuple[T, T]:
    """The other way round if ``turned``."""
    return (second, first) if turned else (first, second)
