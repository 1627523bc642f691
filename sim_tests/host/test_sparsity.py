"""The parts of benchmarks/sparsity.py: schedules, masks, padding, and what they cost."""

import pytest
import torch
from torch import nn

from benchmarks.ragged import BATCH, FEATURES, Meter, RaggedModel, batches
from benchmarks.sparse_products import sparse_weights
from benchmarks.sparse_training import ActivationMask, Classifier, Pruner, cubic, train
from exactum.gen.config import preset
from exactum.host import offload
from exactum.host.demo.training import Task


def test_the_schedule_rises_from_nothing_to_its_end_and_stays():
    values = [cubic(step / 100, 0.1, 0.5, 0.8) for step in range(101)]
    assert values[:11] == [0.0] * 11
    assert values == sorted(values)
    assert values[50:] == [0.8] * 51


def test_pruning_takes_the_smallest_weights_and_keeps_them_at_zero():
    layer = nn.Linear(10, 10)
    weights = layer.weight.detach().clone()
    pruner = Pruner([(layer, 0.6)], begin=0.0, end=0.5, every=1)
    for step in range(1, 101):
        pruner.step(step, 100)
    kept = layer.weight != 0
    assert kept.sum() == 40
    assert weights.abs()[kept].min() > weights.abs()[~kept].max()
    nn.init.ones_(layer.weight)
    pruner.apply()
    assert torch.equal(layer.weight != 0, kept)


def test_the_mask_keeps_a_share_of_each_sample_and_learns_from_gradients():
    mask, x = ActivationMask(8), torch.rand(5, 8, requires_grad=True)
    assert mask(x) is x
    mask.share = 0.25
    found = mask(x)
    assert (found != 0).sum(1).tolist() == [2] * 5
    (found * torch.tensor([9.0] + [1.0] * 7)).sum().backward()
    assert torch.equal(x.grad != 0, found != 0)
    for _ in range(20):
        y = torch.ones(5, 8, requires_grad=True)
        mask.share = 1 - 1e-9                      # all are kept, and all have a gradient
        (mask(y) * torch.tensor([9.0] + [1.0] * 7)).sum().backward()
    assert mask.score.argmax() == 0
    mask.share = 0.125
    assert (mask(torch.ones(3, 8, requires_grad=True)) != 0).nonzero()[:, 1].tolist() == [0] * 3
    mask.eval()
    assert mask(x) is x


def test_the_loop_calls_before_and_after_each_step():
    random = torch.Generator().manual_seed(1)
    data = [(torch.rand(4, 8, 8, generator=random), torch.arange(4)) for _ in range(3)]
    task = Task("digits", data, Classifier, lambda model: 0.0, learning_rate=1e-2)
    calls, model = [], Classifier()
    weights = model.second.weight.detach().clone()
    train(task, model, lambda step, steps: calls.append(("before", step, steps)),
          lambda step, steps: calls.append(("after", step, steps)))
    assert calls == [(name, step, 3) for step in (1, 2, 3) for name in ("before", "after")]
    assert not torch.equal(weights, model.second.weight)


def test_batches_are_padded_to_their_longest_line():
    for x, target, lengths in batches(6, 1):
        assert x.shape == target.shape
        assert x.shape[0] == BATCH
        assert 0 <= x.shape[1] - int(lengths.max()) <= 1
        assert x.shape[1] not in FEATURES
        for line, following, length in zip(x, target, lengths.tolist(), strict=True):
            assert torch.equal(line[1:length], following[:length - 1])
            assert not line[length + 1:].any()


def test_padding_changes_no_loss_and_column_compression_finds_it():
    torch.manual_seed(0)
    model, device = RaggedModel(), Meter(preset("default"))
    (x, target, lengths), = batches(1, 3)
    loss = model.loss(x, target, lengths)
    longer = [torch.nn.functional.pad(part, (0, 2)) for part in (x, target)]
    if longer[0].shape[1] <= len(model.position):
        assert torch.allclose(model.loss(*longer, lengths), loss)
    device.lengths, device.length = lengths, x.shape[1]
    with offload(device, "e4m3"):
        model.loss(x, target, lengths).backward()
    cycles = device.cycles
    assert cycles["compressed"] == device.counters["cycles"] - (
        device.counters["cycles_dense"] - cycles["dense"])      # the softmaxes'
    assert cycles["columns"] <= 1.02 * cycles["padding"]
    assert cycles["padding"] < cycles["dense"]
    assert cycles["compressed"] <= cycles["oriented"] <= cycles["skipped"] <= cycles["dense"]


@pytest.fixture(scope="module")
def weights():
    return list(sparse_weights())


def test_long_rows_of_sparse_weights_cost_what_they_have(weights):
    for row in weights:
        if row["case"] == "768 x 768 x 512" and row["density"] >= 0.1:
            assert row["of_ideal"] > 0.99


def test_packing_columns_would_gain_next_to_nothing(weights):
    assert max(row["packing"] for row in weights if row["packing"] is not None) < 0.02
