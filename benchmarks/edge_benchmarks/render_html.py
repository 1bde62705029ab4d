"""A report as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files

import numpy as np

from edge_benchmarks import render_text, stats
from edge_benchmarks.report import AT, END_TO_END, PROTOCOL, Failure, Run
from edge_benchmarks.svg import Plot, padded

MAX_COLUMNS = 600
"""Points of a trace over time; what lies between two is shown by its least and greatest value."""

COLORS = 8

_COLOR_RULES = "".join(
    f".line.c{i} {{ stroke: var(--c{i}); }} .band.c{i}, .bar.c{i}, .dot.c{i} {{ fill: var(--c{i}); }} "
    f".swatch.c{i} {{ background: var(--c{i}); }}\n"
    for i in range(COLORS)
)


def page(runs: Sequence[Run], failures: Sequence[Failure] = (), *, title: str = "Benchmark report") -> str:
    """The report as the text of one HTML file.

    Args:
        runs: the runs, in the order in which they are shown.
        failures: measurements that could not be made.
        title: heading of the page.
    """
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="dim">{escape(_where(runs))}</p>',
        _table(runs),
        *(f'<p class="INVALID">Not measured: {escape(f.what)}: {escape(f.message)}</p>' for f in failures),
        _across(runs),
        *(_section(number, run) for number, run in enumerate(runs)),
        f'<p class="dim">Protocol {PROTOCOL}. Every percentile is a value that was measured, by nearest rank; '
        "intervals are 95 %, by block bootstrap; no outlier was removed.</p>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_style()}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _style() -> str:
    return (files("edge_benchmarks") / "render_html.css").read_text(encoding="utf-8") + _COLOR_RULES


def _where(runs: Sequence[Run]) -> str:
    places = {
        f"{r.environment.board or ''} {r.environment.cpu or ''}".strip() or "unknown machine" for r in runs
    }
    times = sorted(r.started for r in runs)
    return f"{', '.join(sorted(places))}; {times[0]} to {times[-1]}" if times else "nothing was measured"


def _table(runs: Sequence[Run]) -> str:
    head = ("", "threads", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "per s", "energy mJ", "verdict")
    rows = []
    for number, run in enumerate(runs):
        stage = run.stages.get(END_TO_END)
        cells = [str(run.environment.threads)]
        for name in render_text.PRINTED:
            found = None if stage is None else stage.percentiles[name]
            cells.append(
                f'<span class="dim">n/a (n={run.count})</span>'
                if found is None
                else f'{found.ms:.2f}<br><span class="dim">{found.low:.2f}&ndash;{found.high:.2f}</span>'
            )
        cells.append("n/a" if run.throughput is None else f"{run.throughput.per_s:.1f}")
        cells.append(
            '<span class="dim">unknown</span>'
            if run.energy.gross_mj is None
            else f"{run.energy.gross_mj:.2f}"
        )
        unknown = (
            f'<br><span class="dim">unknown: {escape(", ".join(run.unknown))}</span>' if run.unknown else ""
        )
        rows.append(
            f"<tr><td>{_swatch(number)}{escape(run.title)}<br>"
            f'<span class="dim">{escape(render_text.scenario_text(run.scenario))}</span></td>'
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + f'<td class="words"><span class="verdict {run.verdict}">{run.verdict}</span>{unknown}</td></tr>'
        )
    titles = "".join(f"<th>{escape(h)}</th>" for h in head[:-1]) + f'<th class="words">{head[-1]}</th>'
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _across(runs: Sequence[Run]) -> str:
    parts = []
    curves = [
        (i, run)
        for i, run in enumerate(runs)
        if len(run.traces.get(END_TO_END, ())) >= stats.MIN_SAMPLES["p50"]
    ]
    if curves:
        parts.append(f"<div><h3>Percentiles, end to end</h3>{_curves(curves)}</div>")
    judged = [
        (i, run, metric)
        for i, run in enumerate(runs)
        if run.accuracy is not None
        and run.ms(END_TO_END, "p50") is not None
        and (metric := _headline(run)) is not None
    ]
    if judged:
        parts.append(f"<div><h3>Accuracy against latency</h3>{_scatter(judged)}</div>")
    if not parts:
        return ""
    return f'<h2>Side by side</h2>{_legend(runs)}<div class="grid2">{"".join(parts)}</div>'


def _curves(curves: Sequence[tuple[int, Run]]) -> str:
    """Milliseconds over the percentile, stretched towards the tail; each curve ends where its samples do."""
    traces = [(i, np.sort(run.traces[END_TO_END]) / 1e6) for i, run in curves]
    ends = {i: _last_percentile(len(ranked)) for i, ranked in traces}
    nines = max(ends.values())
    highest = max(float(ranked[_at(ranked, ends[i])]) for i, ranked in traces)
    lowest = min(float(ranked[0]) for _, ranked in traces)
    shown = [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.95, "95"), (0.99, "99"), (0.999, "99.9")]
    plot = Plot(
        (0, _stretch(nines)),
        (lowest * 0.95, highest * 1.05) if highest > 8 * lowest else padded((lowest, highest)),
        x_label="percentile",
        y_label="ms",
        x_ticks=[(_stretch(q), label) for q, label in shown if q <= nines],
        log_y=highest > 8 * lowest,
    )
    for i, ranked in traces:
        grid = 1 - 10 ** -np.linspace(0, _stretch(ends[i]), 160)
        plot.line([(_stretch(float(q)), float(ranked[_at(ranked, float(q))])) for q in grid], i % COLORS)
    return plot.svg("end to end by percentile")


def _last_percentile(count: int) -> float:
    stated = [stats.PER_MILLE[name] / 1000 for name, least in stats.MIN_SAMPLES.items() if count >= least]
    return max(stated, default=0.5)


def _at(ranked: stats.Floats, q: float) -> int:
    return max(0, math.ceil(q * len(ranked)) - 1)


def _stretch(q: float) -> float:
    return -math.log10(max(1e-9, 1 - q))


def _headline(run: Run) -> str | None:
    """Name of the metric that is plotted for a run: the first of its task's that it has; None without one."""
    assert run.accuracy is not None
    for name in ("map50", "uar", "accuracy", "acer"):
        if name in run.accuracy.metrics:
            return name
    return None


def _scatter(judged: Sequence[tuple[int, Run, str]]) -> str:
    points = []
    for i, run, metric in judged:
        assert run.accuracy is not None
        figure, stage = run.accuracy.metrics[metric], run.stages[END_TO_END].percentiles["p50"]
        assert stage is not None
        low = figure.value if figure.low is None else figure.low
        high = figure.value if figure.high is None else figure.high
        points.append((i, run, metric, figure.value, low, high, stage))
    xs = [v for *_, s in points for v in (s.low, s.high)]
    ys = [v for *_, low, high, _ in points for v in (low, high)]
    metrics = sorted({metric for _, _, metric, *_ in points})
    plot = Plot(padded(xs, 0.12), padded(ys, 0.2), x_label="p50 end to end, ms", y_label=" or ".join(metrics))
    for i, run, metric, value, low, high, stage in points:
        plot.whisker((stage.low, stage.high), (value, value), i % COLORS)
        plot.whisker((stage.ms, stage.ms), (low, high), i % COLORS)
        plot.point(stage.ms, value, i % COLORS, f"{run.title}: {metric} {value:.4f}, {stage.ms:.2f} ms")
    return plot.svg("accuracy against latency")


def _section(number: int, run: Run) -> str:
    color = number % COLORS
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in run.reasons)
    plots = []
    if END_TO_END in run.traces and len(run.traces[END_TO_END]):
        plots.append(f"<div><h3>Latency, end to end</h3>{_histogram(run, color)}</div>")
        plots.append(f"<div><h3>Over time</h3>{_trace(run, color)}{_series(run)}</div>")
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in render_text.facts(run))
    return (
        f"<h2>{_swatch(number)}{escape(run.title)}, {escape(render_text.scenario_text(run.scenario))} "
        f'<span class="verdict {run.verdict}">{run.verdict}</span></h2>'
        + (f'<ul class="reasons">{reasons}</ul>' if reasons else "")
        + _stages(run)
        + f'<div class="grid2">{"".join(plots)}</div>'
        + f"<details><summary>Environment, harness, accuracy and everything else</summary><ul>{facts}</ul></details>"
    )


def _stages(run: Run) -> str:
    rows = []
    for name, stage in run.stages.items():
        cells = "".join(
            f'<td><span class="dim">n/a (n={stage.count})</span></td>'
            if p is None
            else f"<td>{p.ms:.3f}</td>"
            for p in (stage.percentiles[n] for n in render_text.PRINTED)
        )
        strong = ("<strong>", "</strong>") if name == END_TO_END else ("", "")
        rows.append(
            f"<tr><td>{strong[0]}{escape(name.replace('_', ' '))}{strong[1]}</td>{cells}"
            f"<td>{stage.min_ms:.3f}</td><td>{stage.mean_ms:.3f}</td><td>{stage.max_ms:.3f}</td></tr>"
        )
    titles = "".join(f"<th>{h}</th>" for h in ("ms", *render_text.PRINTED, "least", "mean", "most"))
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _histogram(run: Run, color: int) -> str:
    """Bars of equal width on a logarithmic axis; counts on a logarithmic one too, so that a single slow frame shows."""
    samples = run.traces[END_TO_END] / 1e6
    low, high = float(samples.min()) * 0.98, float(samples.max()) * 1.02
    edges = np.geomspace(low, high, 61)
    counts, _ = np.histogram(samples, edges)
    log_x = high / low > 8
    if not log_x:
        edges = np.linspace(low, high, 61)
        counts, _ = np.histogram(samples, edges)
    plot = Plot(
        (low, high),
        (0.7, float(counts.max()) * 1.5),
        x_label="ms",
        y_label=f"{run.frames.unit}s" if run.scenario.kind != "cold" else "processes",
        log_x=log_x,
        log_y=True,
    )
    for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
        if count:
            plot.bar(
                (float(left), float(right)),
                (0.7, float(count)),
                color,
                f"{left:.2f} to {right:.2f} ms: {count}",
            )
    for level, name in enumerate(("p50", "p90", "p99")):
        value = run.ms(END_TO_END, name)
        if value is not None:
            plot.mark(value, f"{name} {value:.2f}", level)
    return plot.svg("histogram of the latency")


def _trace(run: Run, color: int) -> str:
    """Every sample: median of what falls on a pixel column, and a band from the least to the greatest."""
    at, values = run.traces[AT] / 1e9, run.traces[END_TO_END] / 1e6
    end = max(float(at.max()), 1e-3)
    plot = Plot((0, end), padded((float(values.min()), float(values.max()))), x_label="s", y_label="ms")
    if len(values) <= MAX_COLUMNS:
        order = np.argsort(at, kind="stable")
        plot.line([(float(at[i]), float(values[i])) for i in order], color)
        return plot.svg("latency over time")
    column = np.minimum((at / end * MAX_COLUMNS).astype(int), MAX_COLUMNS - 1)
    band, line = [], []
    for c in np.unique(column):
        inside = values[column == c]
        x = (float(c) + 0.5) / MAX_COLUMNS * end
        band.append((x, float(inside.min()), float(inside.max())))
        line.append((x, float(np.median(inside))))
    plot.band(band, color)
    plot.line(line, color)
    return plot.svg("latency over time")


def _series(run: Run) -> str:
    """Clocks, temperature and power under the trace, each where it could be read."""
    s, end = run.series, max(float(run.traces[AT].max()) / 1e9, 1e-3)
    parts, missing = [], []
    for values, label, color in (
        (s.clock_mhz, "MHz", 5),
        (s.temperature_c, "degrees C", 1),
        (s.power_w, "W", 3),
    ):
        points = [(t, v) for t, v in zip(s.at_s, values, strict=True) if v is not None and t <= end]
        if len(points) < 2:
            missing.append({"MHz": "clocks", "degrees C": "temperature", "W": "power"}[label])
            continue
        plot = Plot((0, end), padded([v for _, v in points]), x_label="s", y_label=label, height=130)
        plot.line(points, color)
        parts.append(plot.svg(f"{label} over time"))
    if missing:
        parts.append(f'<p class="dim">Unknown here: {", ".join(missing)}.</p>')
    return "".join(parts)


def _legend(runs: Sequence[Run]) -> str:
    items = "".join(
        f"<li>{_swatch(i)}{escape(run.title)}, {escape(render_text.scenario_text(run.scenario))}</li>"
        for i, run in enumerate(runs)
    )
    return f'<ul class="legend">{items}</ul>'


def _swatch(number: int) -> str:
    return f'<span class="swatch c{number % COLORS}"></span>'
