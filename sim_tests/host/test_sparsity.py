"""The parts of benchmarks/sparsity.py: schedules, masks, padding, and what they cost."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from benchmarks.ragged import BATCH, FEATURES, Meter, RaggedModel, batches
from benchmarks.sparse_models import ActivationMask, Classifier, characters_task
from benchmarks.sparse_products import attention, engine_cycles, packed_cycles, packed_groups
from benchmarks.sparse_training import Pruner, Setting, cubic, trained
from benchmarks.sparsity_tables import merged
from exactum.gen.config import preset
from exactum.host import offload
from exactum.host.demo.text import ALPHABET, HELD_OUT, MODULES, read_sources, text_task
from exactum.host.demo.training import Task, fit


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
    fit(task, model, before=lambda step, steps: calls.append(("before", step, steps)),
        after=lambda step, steps: calls.append(("after", step, steps)))
    assert calls == [(name, step, 3) for step in (1, 2, 3) for name in ("before", "after")]
    assert not torch.equal(weights, model.second.weight)


def test_batches_are_padded_to_their_longest_line():
    for x, target, lengths in batches(6, 1):
        assert x.shape == target.shape
        assert x.shape[0] == BATCH
        assert 0 <= x.shape[1] - int(lengths.max()) <= 1
        assert not {x.shape[1], x.numel()} & FEATURES
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
    with offload(device, "e4m3") as session:
        model.loss(x, target, lengths).backward()
    cycles, products = device.cycles, [x for x in session.report().rows if x.op == "gemm"]
    assert cycles["compressed"] == sum(row.cycles for row in products)
    assert cycles["dense"] == sum(row.cycles_dense for row in products)
    assert cycles["columns"] <= 1.02 * cycles["padding"]
    assert cycles["padding"] < cycles["dense"]
    assert cycles["compressed"] <= cycles["oriented"] <= cycles["skipped"]
    assert cycles["oriented"] <= cycles["dense"]


def test_columns_that_do_not_collide_are_packed_together():
    tile = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 0]]).bool()
    assert packed_groups(tile) == 2                       # columns 0 and 2 collide with 3 alone
    assert packed_groups(torch.eye(8).bool()) == 1
    assert packed_groups(torch.ones(2, 5).bool()) == 5
    assert packed_groups(torch.zeros(2, 5).bool()) == 0


def test_columns_packed_for_each_row_alone_take_what_skipping_takes():
    mask = torch.rand(64, 256, generator=torch.Generator().manual_seed(1)) < 0.4
    assert packed_cycles(mask, 128, 1) == engine_cycles(mask, 128)
    assert packed_cycles(mask, 128, 8) > engine_cycles(mask, 128)


@pytest.mark.parametrize("shape", [(16, 1024), (24, 3072)])
def test_packing_helps_nothing_where_loading_decides(shape):
    """Few rows for each tile, some columns being empty; and rows longer than the tile buffer."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.1
    mask[:, ::3], mask[-1, 1::3] = False, False
    own = engine_cycles(mask, 128)
    assert packed_cycles(mask, 128, 1) == own
    if shape[1] > preset("default").vpcu.b_depth:       # the last row alone waits for its groups
        assert packed_cycles(mask, 128, 8) == own + packed_groups(mask[-8:]) - mask[-1].sum()
    else:
        assert own < packed_cycles(mask, 128, 8) < 1.02 * own


def test_a_tile_has_no_fewer_groups_than_its_longest_row_has_elements():
    random = torch.Generator().manual_seed(1)
    for density in (0.05, 0.2, 0.6):
        tile = torch.rand(8, 300, generator=random) < density
        assert packed_groups(tile) >= tile.sum(1).max()


def test_rows_measured_again_take_the_places_of_the_old_ones():
    def row(case, figure, value):
        return {"part": "p", "case": case, "figure": figure, "value": value}

    old = [row("a", "x", 1), row("b", "x", 2), row("c", "x", 3)]
    assert merged(old, [row("b", "x", 4), row("b", "y", 5)]) == [
        row("a", "x", 1), row("b", "x", 4), row("b", "y", 5), row("c", "x", 3)]


def test_a_step_that_is_counted_takes_place_inside():
    data = [(torch.rand(4, 8, 8), torch.arange(4)) for _ in range(6)]
    task = Task("digits", data, Classifier, lambda model: 0.0, learning_rate=1e-2, averaging=0.9)
    setting = Setting(lambda **_: task, 6, Classifier, {"second": 0.5}, 0.4, kept=0.25, every=3)
    found = {kind: trained(kind, setting, 1) for kind in ("dense", "pruned", "masked")}
    assert (found["pruned"].model.second.weight == 0).double().mean() == 0.5
    assert not (found["dense"].model.second.weight == 0).any()
    for role, (products, cycles) in found["masked"].fewer.items():
        assert 0 <= products <= 1
        assert cycles <= 1
        assert products >= found["dense"].fewer[role][0]
    assert trained("dense", replace(setting, every=0), 1).fewer == {}


def test_characters_are_told_from_those_before_them():
    task = characters_task(seed=1, steps=2)
    text = "".join(c for c in read_sources(MODULES) if c in ALPHABET)
    for x, following in task.batches:
        assert task.build()(x).shape == (*following.shape, len(ALPHABET))
        for window, last in zip(x[:9].tolist(), following[:9].tolist(), strict=True):
            assert "".join(ALPHABET[place] for place in (*window, last)) in text
    always_blank = one_hot(torch.tensor(ALPHABET.index(" ")), len(ALPHABET)).expand
    blanks = task.evaluate(lambda x: always_blank(len(x), -1))
    held_out = "".join(c for c in read_sources(HELD_OUT) if c in ALPHABET)
    assert abs(blanks - 100 * held_out.count(" ") / len(held_out)) < 1


def test_probabilities_are_those_of_the_model():
    task = text_task(seed=1, steps=1)
    found = {row["case"]: row for row in attention(task.build(), [task.batches[0][0]])}
    causal = found["causal mask alone, default"]
    assert causal["zeros"] == round(63 / 128, 4)
    for case, row in found.items():
        if case.endswith("default"):
            assert row["zeros"] >= causal["zeros"]
            assert row["cycles_fewer"] >= causal["cycles_fewer"] > 0.3
    assert found["P in E4M3 scaled by 2^8, small"]["cycles_fewer"] > causal["cycles_fewer"]
