"""Tables for a terminal and for Markdown: what they must say, and that they fit."""

from dataclasses import replace

import pytest

from edge_benchmarks import render_text, report


def test_the_table_starts_with_what_and_verdict(make_run):
    lines = render_text.table([make_run()]).splitlines()
    assert lines[0] == "fer-yolo11n onnxruntime fp32 VALID"
    shown = "\n".join(lines)
    for stage in ("capture", "preprocess", "infer", "postprocess", "end to end", "95 % interval"):
        assert stage in shown


def test_the_table_says_what_is_not_known(make_run):
    run = make_run(count=20, environment={"governor": None}, health={"throttled": None, "swapped_in": None})
    shown = render_text.table([run])
    assert "unknown here: throttling, swap" in shown
    assert "n/a (n=20)" in shown
    assert "governor unknown" in shown
    assert "energy: unknown: not asked for" in shown


def test_the_table_fits_a_hundred_columns_of_plain_text(make_run):
    long = {"board": None, "cpu": "Some Processor With A Very Long Name " * 5}
    run = replace(make_run(count=20, environment=long, notes=("word " * 60,)), count=9_999_999)
    shown = render_text.table([run, make_run()], [report.Failure("x" * 80, "word " * 40, "do " * 40)])
    assert max(map(len, shown.splitlines())) <= 100
    assert shown.isascii()
    assert (
        shown.count("fer-yolo11n onnxruntime fp32") == 5
    )  # two runs, a line of the summary each, and one of both


def test_everything_measured_is_said(make_run):
    run = make_run(
        scenario=report.Scenario("paced", 10.0, fps=30.0, drop="latest"),
        pace=report.Pace(300, 12, 0.004),
        drift=report.Drift(10.0, 11.0, 0.1, 0.09, 0.11),
        memory=report.Memory(30.0, 80.0, 90.0, 55.5, 50),
        roofline=report.Roofline(0.79, "the ONNX graph", 120.0, 400.0, 0.3, ""),
        energy=report.Energy("INA3221", "rails VDD_IN", "", 40.0, 31.0, 4.0, 0.9, 100),
        accuracy=report.Accuracy("measured", 100, "0" * 64, {"map50": report.Figure(0.8, 0.75, 0.85)}),
    )
    flat = " ".join(render_text.table([run]).split())
    for fact in (
        "300 frames due, 12 dropped (4.0%)", "+10.0% (+9.0% to +11.0%)", "peak 90.0 after 50 frames; PSS 55.5",
        "30% of that", "gross 40.00 mJ per frame, net 31.00 mJ", "map50 0.8000 (0.7500 to 0.8500)", "paced 30/s",
        "harness: adds 1.1 us",
    ):  # fmt: skip
        assert fact in flat


@pytest.mark.parametrize(
    "text",
    [
        "![x](http://host/x.png)",
        "[x](javascript:alert(1))",
        "<img src=x>",
        "<javascript:x>",
        "a\n# b",
        "`c`",
        "*d*",
        "a\\|b",
    ],
)
def test_markdown_shows_what_came_from_elsewhere_as_text(make_run, text):
    reader = pytest.importorskip("markdown_it", reason="a reader of Markdown").MarkdownIt()
    shown = render_text.markdown([make_run()], [report.Failure(text, text, text)])
    (line,) = [line for line in shown.splitlines() if line.startswith("Not measured")]
    html = reader.render(line)
    assert html.count("<") == 2, html  # of the paragraph
    assert html.startswith("<p>")


def test_markdown_has_a_row_a_run_and_escapes_what_would_break_it(make_run):
    shown = render_text.markdown([make_run(), make_run(count=20)], [report.Failure("a|b", "none <b>", "x")])
    rows = [line for line in shown.splitlines() if line.startswith("| fer-yolo11n")]
    assert len(rows) == 2
    assert len({row.count("|") for row in rows}) == 1
    assert "n/a (n=20)" in rows[1]
    assert "a\\|b: none &lt;b&gt;" in shown
