"""Counting in masks."""

import pytest
import torch

from exactum.host import masks
from exactum.host.masks import count_blocks


@pytest.mark.parametrize("shape", [(3, 64), (2, 5, 130), (1, 1), (70,), (4, 0), (0, 70)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_blocks_are_counted_in_any_shape(shape, share):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < share
    counted = count_blocks(mask)
    assert counted.shape == (*shape[:-1], -(-shape[-1] // 64))
    if mask.numel():
        expected = torch.stack([part.sum(-1) for part in mask.split(64, -1)], -1)
        assert torch.equal(counted, expected)


def test_transposed_masks_count_alike():
    mask = torch.rand(70, 90, generator=torch.Generator().manual_seed(2)) < 0.5
    assert torch.equal(count_blocks(mask.t()), count_blocks(mask.t().contiguous()))


def test_the_tests_catch_counted_padding(monkeypatch):
    """A fault: the padding of the last block counts as set."""
    pad = torch.nn.functional.pad
    monkeypatch.setattr(masks.torch.nn.functional, "pad", lambda x, by: pad(x, by, value=True))
    with pytest.raises(AssertionError):
        test_blocks_are_counted_in_any_shape((2, 5, 130), 0.3)
