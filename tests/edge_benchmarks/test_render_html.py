"""One page that needs nothing else, and shows every run and what is not known."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from edge_benchmarks import render_html, report
from edge_benchmarks.svg import Plot, padded, ticks


class Checker(HTMLParser):
    """Tags that close in the order in which they were opened, and the text between."""

    VOID = ("meta", "br", "line", "rect")

    def __init__(self):
        super().__init__()
        self.open, self.said, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


def read(html):
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    return checker


def test_the_page_is_whole_and_asks_for_nothing(make_run):
    html = render_html.page([make_run(), make_run(count=5000)], title="A <title>")
    found = read(html)
    assert not re.search(r"<script|https?://|url\(|@import|<img|<link", html)
    assert "A <title>" in found.said
    assert html.count("<svg") == 2 + 2 * 4  # side by side; histogram, trace, clocks and temperature of each
    assert "Unknown here: power." in found.said
    for number in re.findall(r'(?:points|x|y|x1|x2|y1|y2|cx|cy|width|height)="([^"%a-z]+)"', html):
        assert all(np.isfinite(float(v)) for v in re.split(r"[ ,]", number.strip()))


def test_what_is_wrong_is_said_where_it_is_seen(make_run):
    run = make_run(count=20, health={"throttled": None, "background_share": 0.5}, incomplete="interrupted")
    said = " ".join(read(render_html.page([run], [report.Failure("b & c", "no engine", "x")])).said)
    for words in (
        "INVALID", "incomplete: interrupted", "others took 50% of all cores", "unknown: throttling", "n/a (n=20)",
        "Not measured: b & c: no engine",
    ):  # fmt: skip
        assert words in said


def test_a_run_without_a_single_frame_still_gives_a_page(make_run):
    run = make_run(end_to_end=[], stages={}, incomplete="interrupted by the user")
    assert "interrupted by the user" in " ".join(read(render_html.page([run])).said)
    assert "nothing was measured" in render_html.page([])


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0, 10, False), (9.7, 9.9, False), (1, 5000, True), (3, 40, True)]
)
def test_ticks_are_round_and_inside(low, high, log):
    found = ticks(low, high, log=log)
    assert 2 <= len(found) <= 13
    assert all(low <= v <= high for v in found)


def test_equal_values_still_have_a_range():
    low, high = padded([5.0, 5.0])
    assert low < 5 < high
    Plot((0, 1), padded([0.0]), x_label="x", y_label="y").svg("nothing")
