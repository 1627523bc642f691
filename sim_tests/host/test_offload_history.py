"""The history of a report's row: every call is in it, and it stays short; its picture."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from exactum.host import offload, open_device
from exactum.host.offloading import Row, zeros
from exactum.host.offloading import history as module
from exactum.host.offloading.history import MOST, History
from exactum.host.offloading.zeros import density_figure


def counts(call):
    return {"products": call, "products_skipped": 1, "cycles": 2 * call, "cycles_dense": 3 * call,
            "bytes_in": 7}


def filled(calls):
    found = History()
    for call in range(calls):
        found.add(counts(call), 2 * call)              # every other call of a session
    return found


def lasting(density, numbers):
    """A history of calls with 100 products each, taken or not."""
    found = History()
    for call in numbers:
        found.add({"products": density, "products_skipped": 100 - density, "cycles": density + 5,
                   "cycles_dense": 200}, call)
    return found


def row(history, layer="layer", role="forward", formats="e4m3 × e4m3", sizes=(4, 5, 5)):
    return Row("gemm", layer, role, formats, sizes, cycles_dense=1, history=history)


def line(rows):
    """Places and densities of the one line that is drawn."""
    drawn, = density_figure(rows, {}).axes[0].get_lines()
    return drawn.get_xdata(), drawn.get_ydata()


@pytest.mark.parametrize("calls", [0, 1, MOST, MOST + 1, 2 * MOST, 1000, 5000])
def test_stretches_add_up_and_stay_few(calls):
    found = filled(calls)
    assert len(found.stretches) <= MOST
    assert sum(x.calls for x in found.stretches) == calls
    assert sum(x.products for x in found.stretches) == calls * (calls - 1) // 2
    assert sum(x.products_skipped for x in found.stretches) == calls
    assert all(x.calls == found.each for x in found.stretches[:-1])
    place = 0
    for stretch in found.stretches:           # in order, none twice
        assert stretch.products == sum(range(place, place + stretch.calls))
        assert (stretch.first, stretch.last) == (2 * place, 2 * (place + stretch.calls - 1))
        place += stretch.calls


def test_a_session_behind_another_is_drawn_behind_it():
    first, second = lasting(100, range(40)), lasting(10, range(20))
    x, y = line([row(first), row(second.behind(40), formats="fp16 × fp16")])
    assert all(density == (100 if place < 100 * 40 / 60 else 10)
               for place, density in zip(x, y, strict=True)
               if abs(place - 100 * 40 / 60) > 2)
    assert second.stretches[0].first == 0               # itself it stays where it is


def test_a_copy_stays_as_it_is():
    found = filled(3)
    copy = found.copy()
    found.add(counts(9), 6)
    assert len(copy.stretches) == 3
    assert copy == filled(3)


def test_shares_of_nothing_are_whole():
    nothing = module.Stretch()
    assert (nothing.density, nothing.cycles_share) == (1.0, 1.0)
    assert History([nothing]).to_dict() == {
        "each": 1, "first": [0], "last": [0], "density": [1.0], "cycles_share": [1.0]}


@pytest.mark.parametrize("calls", [0, 1, 100])
def test_the_picture_shows_every_layer_and_role(calls):
    rows = [Row("gemm", f"layer {place}", role, "e4m3 × e4m3", (4, 5, 6), cycles_dense=place,
                history=filled(calls)) for place, role in enumerate(("forward", "backward") * 5)]
    figure = density_figure(rows, {"forward": "#000000", "backward": "#ff0000"})
    assert isinstance(figure, Figure)
    _, right = figure.axes
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [f"layer {place}" for place in range(9, 1, -1)]
    assert len(right.collections) == (2 if calls else 0)


def test_a_precision_that_changes_is_drawn_when_it_does():
    """Twenty dense steps in FP16, then twenty in E4M3 with a tenth of the products."""
    x, y = line([row(lasting(100, range(20)), formats="fp16 × fp16"),
                 row(lasting(10, range(20, 40)))])
    assert x == pytest.approx([100 * (place + 0.5) / 20 for place in range(20)])
    assert y == pytest.approx([100] * 10 + [10] * 10)


def test_sizes_that_come_and_go_are_drawn_when_they_do():
    """Of 1280 calls the first quarter and the last one; between them nothing, later merged."""
    _, y = line([row(lasting(80, range(320))),
                 row(lasting(40, range(960, 1280)), sizes=(2, 5, 10))])
    assert y == pytest.approx([80] * 8 + [math.nan] * 16 + [40] * 8, nan_ok=True)


def test_a_point_mixes_roles_by_their_products():
    """Forward at 100 %, backward at 20 %, in turns; another layer in between takes no part."""
    rows = [row(lasting(100, range(0, 90, 3))),
            row(lasting(20, range(2, 90, 3)), role="data-gradient"),
            row(lasting(7, range(1, 90, 3)), layer="other")]
    first, second = (x.get_ydata() for x in density_figure(rows, {}).axes[0].get_lines())
    assert first == pytest.approx([60] * 30)
    assert second == pytest.approx([7] * 30)


def test_a_session_tells_when_its_calls_took_place():
    a, sparse = torch.ones(8, 64), torch.ones(8, 64)
    sparse[:, :48] = 0
    formats = iter(["bf16"] + ["fp16"] * 4 + ["e4m3"] * 4)
    with offload(open_device("emulator"), lambda context: next(formats)) as session:
        a @ a.mT
        session.reset()
        for x in [a] * 4 + [sparse] * 4:
            x @ a.mT
    _, y = line(session.report().rows)
    assert y.tolist() == [100] * 4 + [25] * 4


def test_dots_are_stretches():
    rows = [row(lasting(100, range(2))), row(lasting(30, [2]), role="backward")]
    right = density_figure(rows, {"forward": "#000000", "backward": "#ff0000"}).axes[1]
    assert [dots.get_offsets().tolist() for dots in right.collections] == [
        [[100, 47.5], [100, 47.5]], [[30, 82.5]]]


CHANGES = (test_a_precision_that_changes_is_drawn_when_it_does,
           test_sizes_that_come_and_go_are_drawn_when_they_do,
           test_a_session_tells_when_its_calls_took_place)


@pytest.mark.parametrize("test", [*CHANGES, test_a_point_mixes_roles_by_their_products])
@pytest.mark.parametrize("found", [math.nan, 0.0, 0.55, 1.0])
def test_the_tests_catch_a_line_without_data(monkeypatch, test, found):
    monkeypatch.setattr(zeros, "_at", lambda rows, begin, end: found)
    with pytest.raises(AssertionError):
        test()


def test_the_tests_catch_calls_without_a_place(monkeypatch):
    """A fault: each row counts its own calls."""
    add = History.add
    monkeypatch.setattr(History, "add", lambda self, counts, call: add(
        self, counts, sum(x.calls for x in self.stretches)))
    for test in CHANGES:
        with pytest.raises(AssertionError):
            test()


def test_the_tests_catch_a_lost_call(monkeypatch):
    """A fault: of two stretches that are merged one is forgotten."""
    def merge(self):
        self.stretches, self.each = self.stretches[::2], 2 * self.each

    monkeypatch.setattr(History, "_merge", merge)
    with pytest.raises(AssertionError):
        test_stretches_add_up_and_stay_few(1000)
