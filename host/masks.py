"""Counting in masks of non-zero elements."""

import torch
from torch import Tensor

__all__ = ["count_blocks"]


def count_blocks(mask: Tensor, block: int = 64) -> Tensor:
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
