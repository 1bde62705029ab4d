"""Figures of each peer, the goals, and the table and picture that show them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_benchmarks.report import MAX_BACKGROUND
from edge_benchmarks.stats import MIN_SAMPLES
from edge_sdk.files import replacing
from edge_sdk.reporting import import_matplotlib
from peers.catalogue import Peer
from peers.measure import Measurements

BASELINE = "ultralytics-onnxruntime"
INT8 = "ultralytics-openvino-int8"
GOALS = (
    ("end to end against Ultralytics onnxruntime", "at least 2.2x faster"),
    ("end to end against Ultralytics OpenVINO int8", "faster"),
    ("wrapper against Ultralytics'", "at most 1/5"),
    ("first result against Ultralytics'", "at most 1/6"),
    ("resident memory", "at most 140 MB"),
)


def summary(
    peers: Sequence[Peer],
    measured: Mapping[str, Measurements],
    sizes: Mapping[str, float],
    labels: npt.NDArray[np.int64] | None,
) -> list[dict[str, Any]]:
    """One row of plain values per peer, for JSON and the table; what is not known is None."""
    return [_row(peer, measured[peer.name], sizes.get(peer.name), labels) for peer in peers]


def _row(
    peer: Peer, mine: Measurements, size: float | None, labels: npt.NDArray[np.int64] | None
) -> dict[str, Any]:
    e2e = np.concatenate(mine.end_to_end_ns) if mine.end_to_end_ns else np.empty(0, np.int64)
    row: dict[str, Any] = {
        "name": peer.name,
        "title": peer.title,
        "ours": peer.ours,
        "frames": len(e2e),
        "faces_per_frame": round(mine.faces / len(e2e), 3) if len(e2e) else None,
        "end_to_end_ms": {p: _percentile(e2e, p) for p in ("p50", "p90", "p99")},
        "rounds_p50_ms": [float(np.median(ns)) / 1e6 for ns in mine.end_to_end_ns],
        "engine_p50_ms": None,
        "wrapper_p50_ms": None,
        "first_result_s": _median_s(mine.cold_ns),
        "first_results_s": [ns / 1e9 for ns in mine.cold_ns],
        "peak_mb": statistics.median(mine.peak) / 1e6 if mine.peak else None,
        "installed_mb": size,
        "accuracy": None,
        "found": None,
        "background_share": mine.background,
        "failure": mine.failure,
    }
    if mine.engine_ns and len(e2e):
        engine = np.concatenate(mine.engine_ns)
        row["engine_p50_ms"] = _percentile(engine, "p50")
        # Frame by frame, then the median: the medians of two spreads may not be subtracted.
        row["wrapper_p50_ms"] = _percentile(e2e - engine, "p50")
    if mine.answers is not None and labels is not None:
        row["accuracy"] = float((mine.answers == labels).mean())
        row["found"] = float((mine.answers >= 0).mean())
    return row


def _percentile(ns: npt.NDArray[np.int64], name: str) -> float | None:
    """Milliseconds by nearest rank; None where the samples are too few for it."""
    if len(ns) < MIN_SAMPLES[name]:
        return None
    return float(np.percentile(ns, float(name[1:]), method="inverted_cdf")) / 1e6


def _median_s(ns: Sequence[int]) -> float | None:
    return statistics.median(ns) / 1e9 if ns else None


def goals(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every goal for every row of our own; ``met`` is None where a figure is missing."""
    by_name = {row["name"]: row for row in rows}
    base, int8 = by_name.get(BASELINE), by_name.get(INT8)
    found = []
    for row in rows:
        if not row["ours"]:
            continue
        values = (
            (_faster(base, row), 2.2, "x", "faster"),
            (_faster(int8, row), 1.0, "x", "faster"),
            (_share(row, base, "wrapper_p50_ms"), 1 / 5, "", "share"),
            (_share(row, base, "first_result_s"), 1 / 6, "", "share"),
            (row["peak_mb"], 140.0, " MB", "share"),
        )
        for (what, goal), (value, limit, unit, kind) in zip(GOALS, values, strict=True):
            met = None if value is None else (value >= limit if kind == "faster" else value <= limit)
            found.append(
                {"peer": row["name"], "what": what, "goal": goal, "value": value, "unit": unit, "met": met}
            )
    return found


def _faster(than: Mapping[str, Any] | None, row: Mapping[str, Any]) -> float | None:
    """Median over rounds of the ratio of the two medians: what slowed a round slowed both."""
    if than is None or not row["rounds_p50_ms"] or len(than["rounds_p50_ms"]) != len(row["rounds_p50_ms"]):
        return None
    pairs = zip(than["rounds_p50_ms"], row["rounds_p50_ms"], strict=True)
    return float(statistics.median(theirs / ours for theirs, ours in pairs))


def _share(row: Mapping[str, Any], of: Mapping[str, Any] | None, key: str) -> float | None:
    if of is None or row[key] is None or not of[key]:
        return None
    return float(row[key] / of[key])


def reasons(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why the figures should not be quoted."""
    found = []
    shares = {row["name"]: row["background_share"] for row in rows if row["frames"]}
    if any(share is None for share in shares.values()):
        found.append("background load is unknown on this system")
    loud = {name: share for name, share in shares.items() if share is not None and share > MAX_BACKGROUND}
    if loud:
        worst = max(loud, key=lambda name: loud[name])
        found.append(
            f"background load: others took up to {loud[worst]:.0%} of all cores (in the turns of {worst}), "
            f"at most {MAX_BACKGROUND:.0%} allowed"
        )
    return found


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown: a table of peers, remarks, and the goals."""
    rows, machine = report["peers"], report["machine"]
    accuracy = f"accuracy ({report['faces']['rows']} faces)" if report["faces"] else "accuracy"
    head = ("", "e2e p50", "p99", "engine", "wrapper", "first s", "RSS MB", "MB on disk", accuracy, "others")
    lines = [f"**{report['verdict']}**" + "".join(f"; {reason}" for reason in report["reasons"]), ""]
    body = [
        (
            row["title"],
            _cell(row["end_to_end_ms"]["p50"], ".2f"),
            _cell(row["end_to_end_ms"]["p99"], ".2f"),
            _cell(row["engine_p50_ms"], ".2f"),
            _cell(row["wrapper_p50_ms"], ".2f"),
            _cell(row["first_result_s"], ".2f"),
            _cell(row["peak_mb"], ".0f"),
            _cell(row["installed_mb"], ".0f"),
            _cell(row["accuracy"], ".1%"),
            _cell(row["background_share"], ".0%"),
        )
        for row in rows
    ]
    lines += _table(head, body)
    frames = report["frames"]
    lines += [
        "",
        f"Milliseconds per frame, {report['rounds']} rounds of {report['seconds']:g} s in turns; "
        f"{frames['distinct']} frames, {frames['sha256'][:12]}; "
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {report['started']}. "
        "Others: part of all cores that somebody else took.",
    ]
    lines += [f"- {row['title']}: {row['failure']}" for row in rows if row["failure"]]
    if report["goals"]:
        ours = [row["name"] for row in rows if row["ours"]]
        cells = {(g["peer"], g["what"]): g for g in report["goals"]}
        lines += [
            "",
            *_table(
                ("goal", *ours),
                [(f"{what}: {goal}", *(_goal(cells[name, what]) for name in ours)) for what, goal in GOALS],
            ),
        ]
    return "\n".join(lines) + "\n"


def _goal(goal: Mapping[str, Any]) -> str:
    if goal["met"] is None:
        return "n/a"
    return f"{goal['value']:.3g}{goal['unit']} {'met' if goal['met'] else 'MISSED'}"


def _cell(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join((first, *rest))} |"

    rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (w - 1)}:" for w in widths[1:])]
    return [line(head), f"|{'|'.join(f' {r} ' for r in rule)}|", *(line(cells) for cells in body)]


def picture(report: Mapping[str, Any], path: Path) -> None:
    """Bars of every peer: engine and wrapper, first result, memory, size; written whole or not at all."""
    import_matplotlib()
    from matplotlib import pyplot

    rows = [row for row in report["peers"] if row["frames"]]
    places = np.arange(len(rows))[::-1]
    colours = ["#1b6ca8" if row["ours"] else "#8a8f98" for row in rows]
    figure, axes = pyplot.subplots(
        1,
        4,
        figsize=(15, 0.42 * len(rows) + 1.9),
        sharey=True,
        width_ratios=(2.2, 1, 1, 1),
        layout="constrained",
    )
    latency = axes[0]
    for place, row, colour in zip(places, rows, colours, strict=True):
        p50, p99 = row["end_to_end_ms"]["p50"], row["end_to_end_ms"]["p99"]
        wrapper = row["wrapper_p50_ms"] or 0.0
        latency.barh(place, (p50 or 0.0) - wrapper, color=colour, height=0.62)
        latency.barh(place, wrapper, left=(p50 or 0.0) - wrapper, color="#e08a1e", height=0.62)
        if p99 is not None:
            latency.plot([p99, p99], [place - 0.31, place + 0.31], color="black", lw=1.4)
        said = _cell(p50, ".1f") + (f"  {row['accuracy']:.1%} right" if row["accuracy"] is not None else "")
        latency.text(max(p50 or 0.0, p99 or 0.0) * 1.02, place, f" {said}", va="center", fontsize=8)
    latency.set_title("end to end, ms: engine and wrapper (orange), p50; line: p99", fontsize=9, loc="left")
    latency.set_yticks(places, [row["title"] for row in rows], fontsize=9)
    latency.margins(x=0.22)
    for axis, key, form, title in (
        (axes[1], "first_result_s", ".2f", "start to first result, s"),
        (axes[2], "peak_mb", ".0f", "peak resident set, MB"),
        (axes[3], "installed_mb", ".0f", "site-packages, MB"),
    ):
        values = [row[key] or np.nan for row in rows]
        axis.barh(places, values, color=colours, height=0.62)
        axis.set_xscale("log")
        axis.set_title(f"{title} (log)", fontsize=9, loc="left")
        axis.margins(x=0.3)
        for place, value in zip(places, values, strict=True):
            axis.text(value * 1.06, place, _cell(value, form), va="center", fontsize=8)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    machine = report["machine"]
    figure.suptitle(
        f"{report['verdict']}: {machine['cpu']}, {machine['cores']} cores, 640x480 frames, {report['started']}",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    try:
        with replacing(path) as partial:
            figure.savefig(partial, dpi=110, format=path.suffix.lstrip(".") or "png")
    finally:
        pyplot.close(figure)
