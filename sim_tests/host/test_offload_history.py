"""The history of a report's row: every call is in it, and it stays short."""

import pytest
from matplotlib.figure import Figure

from exactum.host.offloading import Row
from exactum.host.offloading import history as module
from exactum.host.offloading.history import MOST, History
from exactum.host.offloading.zeros import density_figure


def counts(call):
    return {"products": call, "products_skipped": 1, "cycles": 2 * call, "cycles_dense": 3 * call,
            "bytes_in": 7}


def filled(calls):
    found = History()
    for call in range(calls):
        found.add(counts(call))
    return found


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
        place += stretch.calls


def test_a_copy_stays_as_it_is():
    found = filled(3)
    copy = found.copy()
    found.add(counts(9))
    assert len(copy.stretches) == 3
    assert copy == filled(3)


def test_shares_of_nothing_are_whole():
    nothing = module.Stretch()
    assert (nothing.density, nothing.cycles_share) == (1.0, 1.0)
    assert History([nothing]).to_dict() == {"each": 1, "density": [1.0], "cycles_share": [1.0]}


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


def test_the_tests_catch_a_lost_call(monkeypatch):
    """A fault: of two stretches that are merged one is forgotten."""
    def merge(self):
        self.stretches, self.each = self.stretches[::2], 2 * self.each

    monkeypatch.setattr(History, "_merge", merge)
    with pytest.raises(AssertionError):
        test_stretches_add_up_and_stay_few(1000)
