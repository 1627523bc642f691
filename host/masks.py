"""Counting in masks of non-zero elements."""

from functools import cached_property

import torch
from torch import Tensor

__all__ = ["WINDOW", "NonZeros", "count_blocks", "packed"]

WINDOW = 64
"""Elements of a row that one mask word covers."""


class NonZeros:
    """Which elements of a matrix are not zero: counted once for all who ask, a mask if need be.

    Parameters
    ----------
    values : Tensor
        [..., M, K]: the values, or the mask itself (bool). NaN is not zero.
    windows : Tensor, optional
        int64 [..., M, ceil(K / 64)], if they are known: see `windows`.
    """

    def __init__(self, values: Tensor, windows: Tensor | None = None) -> None:
        self.values = values
        if windows is not None:
            self.windows = windows

    @property
    def shape(self) -> torch.Size:
        """Of the matrix."""
        return self.values.shape

    def at(self, index: int | Tensor) -> "NonZeros":
        """That of one matrix of a batch, or of some (an index along the first dimension)."""
        return NonZeros(self.values[index], self.windows[index])

    @cached_property
    def mask(self) -> Tensor:
        """bool [..., M, K]."""
        return self.values.to(torch.bool)

    @cached_property
    def windows(self) -> Tensor:
        """int64 [..., M, ceil(K / 64)]: how many in each window of each row."""
        return count_blocks(self.mask, WINDOW)

    def blocks(self, block: int) -> Tensor:
        """int64 [blocks]: how many in each ``block`` of all rows, one behind the other."""
        if block == WINDOW and self.shape[-1:].numel() % WINDOW == 0:
            return self.windows.reshape(-1)
        return count_blocks(self.mask.reshape(-1), block)


def count_blocks(mask: Tensor, block: int = WINDOW) -> Tensor:
    """How many are set in each ``block`` of the last dimension.

    Parameters
    ----------
    mask : Tensor
        bool [..., K]; a last block that K does not fill is padded with False.
    block : int
        A multiple of 8, at most 248.

    Returns
    -------
    Tensor
        int64 [..., ceil(K / block)].
    """
    blocks = -(-mask.shape[-1] // block)
    mask = torch.nn.functional.pad(mask, (0, blocks * block - mask.shape[-1])).contiguous()
    # Eight bools are an int64; sums of a few keep every byte apart, the product adds the bytes up.
    octets = mask.reshape(*mask.shape[:-1], blocks, block).view(torch.int64).sum(-1)
    return (octets * 0x0101_0101_0101_0101 >> 56).bitwise_and_(0xFF)


def packed(mask: Tensor, indices: Tensor) -> Tensor:
    """The elements of each row [M, K] that are at its ``indices``, moved to its front; then False.
    """
    if torch.equal(mask & indices, indices):
        return torch.arange(mask.shape[1]) < indices.sum(1, keepdim=True)
    order = (~indices).to(torch.uint8).argsort(dim=1, stable=True)
    return (mask & indices).gather(1, order)
