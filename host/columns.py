"""Dynamic column compression: what of a product is not sent, since zeros decide it beforehand.

- An index k takes part in no result if A's column k is zero and B's row k finite, or B's row k is
  zero and A's column k finite: all its products are 0 x finite. Rule N3 keeps it otherwise.
- Of what is left, a row of zeros of A gives +0 (N2) if B is finite, and so does a column of zeros
  of B if A is.
- With block scales (N6) only whole blocks of indices are left out, so that the others keep theirs.

The windows of rule N4 stay those of the whole operands: the other operand's elements at an index
that is left out may be the largest of their rows.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .masks import WINDOW, NonZeros

__all__ = ["Factor", "Kept", "empty_columns", "kept", "row_indices"]

_FIRST_ROWS = 16       # looked at for columns of zeros, before eight times as many of what is left


class Factor(NamedTuple):
    """One factor of a product along K: the rows of A, or the columns of B."""

    nonzero: NonZeros
    """[..., R, K]."""
    special: Tensor | None = None
    """bool [..., R, K]: the infinities and NaN; None: there are none."""

    def at(self, index: int | Tensor) -> "Factor":
        """That of one product of a batch, or of some."""
        special = None if self.special is None else self.special[index]
        return Factor(self.nonzero.at(index), special)

    def select(self, rows: Tensor, inner: Tensor) -> "Factor":
        """Of some rows (bool [R]) and indices (bool [K]) of one product."""
        special = self.special_of(rows, inner)
        return Factor(NonZeros(_selected(self.nonzero.mask, rows, inner)), special)

    def special_of(self, rows: Tensor, inner: Tensor) -> Tensor | None:
        """``special`` of some rows and indices."""
        return None if self.special is None else _selected(self.special, rows, inner)


class Kept(NamedTuple):
    """What of a product is sent: rows of A, indices, columns of B; bool [..., M], [..., K] and
    [..., N]."""

    rows: Tensor
    inner: Tensor
    columns: Tensor

    def at(self, index: int) -> "Kept":
        """That of one product of a batch."""
        return Kept(*(part[index] for part in self))

    @property
    def turned(self) -> "Kept":
        """That of the transposed product."""
        return Kept(self.columns, self.inner, self.rows)


def kept(a: Factor, b: Factor, block: int = 1) -> Kept | None:
    """What of ``a @ b`` has to be sent; None: all of it.

    ``block``: indices that share a block scale; 1 without scales.
    """
    empty_a, empty_b = empty_columns(a.nonzero), empty_columns(b.nonzero)
    dropped = empty_a | empty_b
    for factor in (a, b):
        if factor.special is not None:
            dropped &= ~factor.special.any(-2)
    if block > 1:
        dropped = _whole_blocks(dropped, block)
    inner = ~dropped
    found = Kept(_needed(a, b, inner, dropped & ~empty_a), inner,
                 _needed(b, a, inner, dropped & ~empty_b))
    return None if all(part.all() for part in found) else found


def row_indices(needed: Tensor, special: Tensor | None, block: int = 1) -> Tensor:
    """bool [R, K]: the indices that each row alone needs, for products that go row by row.

    Those where it is not zero (``needed`` [R, K]), and those where the other factor is infinite or
    NaN (``special`` [C, K], or None).
    """
    if special is not None:
        needed = needed | special.any(0)
    return ~_whole_blocks(~needed, block) if block > 1 else needed


def empty_columns(x: NonZeros) -> Tensor:
    """bool [..., K]: which columns of [..., R, K] hold nothing but zeros.

    Reads few elements of columns that are not empty: a row without a zero in a window settles that
    window, and the first rows most of the others.
    """
    *batch, rows, length = x.shape
    if rows and length and bool((x.windows.amax(-2) == _sizes(length)).all()):
        return torch.zeros((*batch, length), dtype=torch.bool)
    empty = torch.ones((*batch, length), dtype=torch.bool)
    start, count = 0, _FIRST_ROWS
    while start < rows and empty.numel():
        part = x.values[..., start:start + count, :]
        if start:
            places = empty.reshape(-1, length).any(0).nonzero()[:, 0]
            if not len(places):
                break
            empty[..., places] &= ~part[..., places].to(torch.bool).any(-2)
        else:
            empty = part.to(torch.bool).any(-2).logical_not_()
        start, count = start + count, 8 * count
    return empty


@lru_cache
def _sizes(length: int) -> Tensor:
    """How many elements the windows of a row have."""
    starts = torch.arange(0, length, WINDOW)
    return (length - starts).clamp(max=WINDOW)


def _selected(x: Tensor, rows: Tensor, inner: Tensor) -> Tensor:
    """Some rows (bool [R]) and indices (bool [K]) of [R, K]."""
    for dim, part in enumerate((rows, inner)):
        if not part.all():
            x = x.index_select(dim, part.nonzero()[:, 0])
    return x


def _needed(x: Factor, other: Factor, inner: Tensor, lost: Tensor) -> Tensor:
    """bool [..., R]: the rows of ``x`` that are not zero at the indices kept, or all of them if the
    other factor holds an infinity or a NaN. ``lost``: indices not kept where x is not zero."""
    if lost.any():
        needed = (x.nonzero.mask & inner.unsqueeze(-2)).any(-1)
    else:
        needed = x.nonzero.windows.any(-1)
    if other.special is not None:
        needed = needed | other.special.flatten(-2).any(-1, keepdim=True)
    return needed


def _whole_blocks(dropped: Tensor, block: int) -> Tensor:
    """``dropped`` [..., K] less the indices whose block is not dropped as a whole."""
    length = dropped.shape[-1]
    padded = torch.nn.functional.pad(dropped, (0, -length % block), value=True)
    whole = padded.unflatten(-1, (-1, block)).all(-1)
    return whole.repeat_interleave(block, -1)[..., :length]
