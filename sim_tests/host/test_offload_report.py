"""The report: its rows and totals, the table, the JSON and the page."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console
from torch import nn

from exactum.gen.errors import UsageError
from exactum.host import offload, open_device
from exactum.host.offloading import Fallback, Report, Row
from exactum.host.offloading.history import History, Stretch
from exactum.host.offloading.tables import duration, short

ROWS = (
    Row("gemm", "a.b", "forward", "e4m3 × e4m3", (4, 5, 6), 2, 180, 60, 1000, 1300, 1, 7, 8, 10,
        20, 3, 1, 0.5, History([Stretch(2, 180, 60, 1000, 1300, 3, 7)], 2)),
    Row("softmax", "<c>", "forward", "fp32", (4, 5), 1, cycles=500, cycles_dense=500,
        seconds=0.25),
)
FALLBACKS = (Fallback("convolution", "d", "no <unit>", 3, 80), Fallback("_log_softmax", "", "x", 1))
REPORT = Report(ROWS, FALLBACKS, "e4m3", "default", 50.0)


def test_totals_and_shares():
    assert REPORT.total("cycles") == 1500
    assert REPORT.seconds_of(1500) == pytest.approx(30e-6)
    assert REPORT.skipped_share == 60 / 240
    assert REPORT.offloaded_share == 240 / 320
    assert [row.density for row in ROWS] == [0.75, 1.0]
    assert [row.cycles_saved_share for row in ROWS] == [1 - 10 / 13, 0.0]
    assert REPORT.cycles_saved_share == 1 - 1500 / 1800
    assert ROWS[0].shape == "4 × 5 × 6"


def test_an_empty_report_can_be_shown(tmp_path):
    with offload(open_device("emulator")) as session:
        pass
    report = session.report()
    assert report.offloaded_share == 1
    assert "Everything that matched was offloaded" in str(report)
    assert "Nothing was offloaded" in report.save(tmp_path / "x.html").read_text()


def test_rows_come_by_cycles_and_are_a_snapshot():
    with offload(open_device("emulator"), "e4m3") as session:
        torch.ones(2, 2) @ torch.ones(2, 2)
        torch.ones(64, 64) @ torch.ones(64, 64)
        early = session.report()
        torch.ones(2, 2) @ torch.ones(2, 2)
    assert [row.sizes for row in early.rows] == [(64, 64, 64), (2, 2, 2)]
    assert early.total("calls") == 2
    assert session.report().total("calls") == 3


def test_a_row_remembers_its_calls():
    with offload(open_device("emulator"), "e4m3") as session:
        for zeros in (0, 0, 48, 64):
            x = torch.ones(64, 64)
            x[:, :zeros] = 0
            x @ torch.ones(64, 64)
        early = session.report()
        torch.ones(64, 64) @ torch.ones(64, 64)
    row, = early.rows
    assert [stretch.density for stretch in row.history.stretches] == [1, 1, 0.25, 0]
    shares = [stretch.cycles_share for stretch in row.history.stretches]
    assert shares[:2] == [1, 1]
    assert shares[2] < 0.6
    assert shares[3] == 0
    assert [stretch.first for stretch in row.history.stretches] == [0, 1, 2, 3]
    assert row.words_b_saved == 2 * 8 * (48 + 65)
    for name in ("products", "products_skipped", "cycles", "cycles_dense", "calls"):
        assert getattr(row, name) == sum(getattr(x, name) for x in row.history.stretches)


def test_the_table_names_operations_and_reasons():
    console = Console(width=132, color_system=None)
    with console.capture() as capture:
        console.print(REPORT)
    assert capture.get() == str(REPORT)
    for text in ("(16.7% saved)", "a.b", "gemm, forward", "e4m3 × e4m3", "4 × 5 × 6", "25.0%",
                 "20 µs", "convolution", "no <unit>", "75.0% of the products offloaded"):
        assert text in str(REPORT)


def test_json_holds_every_field(tmp_path):
    data = json.loads(REPORT.save(tmp_path / "x.json").read_text())
    assert data == json.loads(REPORT.to_json())
    assert data["totals"] == {"calls": 3, "products": 180, "products_skipped": 60, "cycles": 1500,
                              "cycles_dense": 1800, "transposed": 1, "words_a_saved": 7,
                              "words_b_saved": 8, "bytes_in": 10, "bytes_out": 20,
                              "saturations": 3, "lost": 1, "seconds": 0.75}
    assert data["rows"][0] == {
        "op": "gemm", "layer": "a.b", "role": "forward", "formats": "e4m3 × e4m3",
        "sizes": [4, 5, 6], "calls": 2, "products": 180, "products_skipped": 60, "cycles": 1000,
        "cycles_dense": 1300, "transposed": 1, "words_a_saved": 7, "words_b_saved": 8,
        "history": {"each": 2, "first": [3], "last": [7], "density": [0.75],
                    "cycles_share": [0.769231]},
        "bytes_in": 10, "bytes_out": 20, "saturations": 3, "lost": 1, "seconds": 0.5,
        "density": 0.75}
    assert data["fallbacks"][0] == {"op": "convolution", "layer": "d", "reason": "no <unit>",
                                    "calls": 3, "products": 80}
    assert (data["device"], data["clock_mhz"], data["policy"]) == ("default", 50.0, "e4m3")


class Page(HTMLParser):
    """Collects the text, the tags and the references of a page, and checks that tags close."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self, text):
        super().__init__()
        self.words, self.tags, self.references, self._open = [], [], [], []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes
                            if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self._open.pop()

    def handle_data(self, data):
        self.words.append(data)


def figure():
    picture = Figure()
    axes = picture.add_subplot()
    axes.plot([3, 2, 1], label="loss & co")
    axes.legend()
    return picture


def test_the_page_is_whole_and_needs_nothing_else(tmp_path):
    path = REPORT.save(tmp_path / "x.html", title="A <title>", intro="Said & done.",
                       figures=[("Loss", figure(), "Falls.")])
    text = path.read_text()
    page = Page(text)
    words = " ".join(" ".join(page.words).split())
    for expected in ("A <title>", "Said & done.", "Loss", "Falls.", "loss & co", "no <unit>",
                     "<c>", "Density and cycles saved", "Zeros skipped per layer",
                     "Cycles and time per operation", "50 MHz", "75.0%", "a.b", "gemm, forward"):
        assert expected in words
    assert page.tags.count("svg") == 4
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert all(reference.startswith("#") for reference in page.references)
    assert not re.search(r"url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text
    assert list(tmp_path.iterdir()) == [path]


def test_the_page_is_the_same_each_time(tmp_path):
    first = REPORT.save(tmp_path / "a.html", figures=[("Loss", figure(), "")]).read_bytes()
    assert REPORT.save(tmp_path / "b.html", figures=[("Loss", figure(), "")]).read_bytes() == first


def test_a_long_network_gets_a_page(tmp_path):
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(40)))
    with offload(open_device("emulator")) as session:
        model(torch.ones(1, 2)).sum().backward()
    assert session.report().save(tmp_path / "x.html").stat().st_size < 1_000_000


def test_a_failed_write_leaves_the_last_good_one(tmp_path, monkeypatch):
    path = REPORT.save(tmp_path / "x.json")
    good = path.read_text()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(UsageError, match=r"X212.*No space left"):
        REPORT.save(path)
    assert path.read_text() == good
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_may_be_read_by_everyone(tmp_path):
    for name in ("x.json", "x.html"):
        path = REPORT.save(tmp_path / name)
        assert path.stat().st_mode & 0o777 == 0o644
        path.chmod(0o600)
        assert REPORT.save(path).stat().st_mode & 0o777 == 0o644


def test_no_share_is_claimed_where_a_number_of_products_is_unknown(tmp_path):
    report = Report(ROWS, (*FALLBACKS, Fallback("fused", "e", "why", 2, None)), "e4m3", "d", 50.0)
    assert report.offloaded_share is None
    for text in (str(report), report.save(tmp_path / "x.html").read_text()):
        assert "at least one operation of unknown size was not offloaded" in " ".join(text.split())
        assert "of the products offloaded" not in text
        assert "of all products offloaded" not in text
        assert "–" in text
    assert report.to_dict()["fallbacks"][-1]["products"] is None


def test_what_cannot_be_saved_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"X212.*\.html or \.json; got .*x\.pdf"
                                         r"[^$]*name it x\.html, or x\.json"):
        REPORT.save(tmp_path / "x.pdf")
    with pytest.raises(UsageError, match=r"X212.*No such file"):
        REPORT.save(tmp_path / "nowhere" / "x.html")


@pytest.mark.parametrize(("number", "text"), [
    (0, "0"), (999, "999"), (1000, "1.00 k"), (12345678, "12.3 M"), (999950, "1.00 M"),
    (5e9, "5.00 G"), (5e12, "5.0 T")])
def test_short_numbers(number, text):
    assert short(number) == text


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0"), (2.5, "2.5 s"), (0.0123, "12.3 ms"), (1.5e-5, "15 µs"), (2e-9, "2 ns")])
def test_durations(seconds, text):
    assert duration(seconds) == text
