"""Runs as plain text of at most 100 columns, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from edge_benchmarks.environment import Snapshot
from edge_benchmarks.report import END_TO_END, MAX_CLOCK_CV, Failure, Run, Scenario, Stage

COLUMNS = 100
PRINTED = ("p50", "p90", "p99", "p99.9")
GOAL_HARNESS_US = 20.0


class Kind(NamedTuple):
    """What a run measured and under which settings: runs of equal kind are repetitions of one measurement."""

    name: str
    target: str
    precision: str
    scenario: str
    threads: int
    size: str

    def __str__(self) -> str:
        """The kind in one line."""
        return f"{self.name} {self.target} {self.precision}, {self.scenario}, {self.threads} threads, {self.size}"


def kind(run: Run) -> Kind:
    """The kind of a run."""
    e, f = run.environment, run.frames
    return Kind(run.name, run.target, run.precision, scenario_text(run.scenario), e.threads, f.size)


def table(runs: Sequence[Run], failures: Sequence[Failure] = ()) -> str:
    """Plain text; the first line of a run has name, target, precision and verdict."""
    blocks = ["\n".join(_lines(run)) for run in runs]
    if len(runs) > 1:
        blocks.append("\n".join(summary(runs)))
    blocks += [
        "\n".join([*_wrap(f"not measured: {f.what}: {f.message}", 0), *_wrap(f.remedy)]) for f in failures
    ]
    return "\n\n".join(blocks)


def summary(runs: Sequence[Run]) -> list[str]:
    """One line per run, to be read first when there are several; then how much repetitions differ."""
    lines = [f"{'':<50}{'p50':>9}{'p99':>9}{'per s':>10}{'energy':>10}  verdict"]
    for run in runs:
        name = f"{run.title}, {scenario_text(run.scenario)}, {run.environment.threads}t"
        per_s = "n/a" if run.throughput is None else f"{run.throughput.per_s:.1f}"
        energy = "unknown" if run.energy.gross_mj is None else f"{run.energy.gross_mj:.1f} mJ"
        lines.append(
            f"{name[:49]:<50}{_short(run, 'p50'):>9}{_short(run, 'p99'):>9}{per_s:>10}{energy:>10}  {run.verdict}"
        )
    for what in dict.fromkeys(kind(run) for run in runs):
        lines += _repetitions([run for run in runs if kind(run) == what])
    return lines


def _repetitions(runs: Sequence[Run]) -> list[str]:
    """How much the medians of repetitions in several processes differ; no line for a single one."""
    medians = sorted(ms for run in runs if (ms := run.ms(END_TO_END, "p50")) is not None)
    if len(medians) < 2:
        return []
    return _wrap(
        f"{kind(runs[0])}: p50 {medians[(len(medians) - 1) // 2]:.2f} ms in the median one of {len(medians)} "
        f"processes, {medians[0]:.2f} to {medians[-1]:.2f}",
        0,
    )


def markdown(runs: Sequence[Run], failures: Sequence[Failure] = ()) -> str:
    """A Markdown table of all runs, then the facts of each, for a repository or an issue."""
    lines = [
        "| model | target | precision | scenario | threads | p50 ms | p90 ms | p99 ms | per s | verdict |",
        "|---|---|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for run in runs:
        cells = [
            run.name,
            run.target,
            run.precision,
            scenario_text(run.scenario),
            str(run.environment.threads),
            *(_interval(run.stages.get(END_TO_END), name) for name in ("p50", "p90", "p99")),
            "n/a" if run.throughput is None else f"{run.throughput.per_s:.1f}",
            run.verdict + (f"; unknown: {', '.join(run.unknown)}" if run.unknown else ""),
        ]
        lines.append("| " + " | ".join(_escape(cell) for cell in cells) + " |")
    lines.append("\nEnd to end, with 95 % intervals by block bootstrap; protocol EB-1.")
    for run in runs:
        lines.append(f"\n**{_escape(run.title)}, {_escape(scenario_text(run.scenario))}**\n")
        lines += [f"- {_escape(reason)}" for reason in run.reasons]
        lines += [f"- {_escape(fact)}" for fact in facts(run)]
    lines += [f"\nNot measured: {_escape(f.what)}: {_escape(f.message)}" for f in failures]
    return "\n".join(lines) + "\n"


def scenario_text(scenario: Scenario) -> str:
    """A scenario with its parameters, in a few words."""
    s = scenario
    if s.kind == "paced":
        return f"paced {s.fps:g}/s" + (" queued" if s.drop == "none" else "")
    if s.streams is not None:
        return f"{s.kind} {s.streams}"
    return f"cold, cache {s.page_cache}" if s.kind == "cold" else s.kind


def facts(run: Run) -> list[str]:
    """What a report says of a run beside the table of stages: one sentence per fact."""
    e, f, h = run.environment, run.frames, run.health
    found = []
    if run.throughput is not None:
        t = run.throughput
        interval = "" if t.low is None or t.high is None else f" ({t.low:.1f} to {t.high:.1f})"
        found.append(f"throughput: {t.per_s:.1f}{interval} {f.unit}s per second")
    if run.pace is not None:
        share = run.pace.dropped / max(1, run.pace.due)
        found.append(
            f"camera: {run.pace.due} frames due, {run.pace.dropped} dropped ({share:.1%}), "
            f"last one begun {run.pace.behind_s * 1e3:.1f} ms late; age: of the newest result, seen once per period"
        )
    if run.drift is not None:
        d = run.drift
        found.append(
            f"drift: p50 {d.first_p50_ms:.3f} ms in the first tenth, {d.last_p50_ms:.3f} in the last: "
            f"{d.change:+.1%} ({d.low:+.1%} to {d.high:+.1%})"
        )
    warm = "" if run.warm_up is None else f" after {run.warm_up.seconds:.1f} s of warm-up"
    found.append(
        f"{f.unit}s: {run.count} in {run.duration_s:.1f} s{warm}; {f.distinct} pictures of {f.size}, {f.origin}, "
        f"{f.sha256[:12]}"
    )
    groups = [
        f"{'unknown' if g.drawn is None else g.drawn} drawn: {g.reported:.2f} reported"
        + ("" if g.p50_ms is None else f", p50 {g.p50_ms:.2f} ms")
        for g in f.groups
    ]
    found.append(f"faces: {f.faces_reported:.2f} per {f.unit} reported; {'; '.join(groups)}")
    if run.harness is not None:
        found.append(
            f"harness: adds {run.harness.inside_us:.1f} us to a latency and {run.harness.around_us:.1f} us to the loop, "
            f"measured on {run.harness.frames} frames of a null model (goal {GOAL_HARNESS_US:.0f} us)"
        )
    found.append(f"energy: {_energy(run)}")
    if run.memory is not None:
        m = run.memory
        pss = "unknown" if m.pss_mb is None else f"{m.pss_mb:.1f} MB"
        found.append(
            f"memory of a fresh process: {m.start_mb:.1f} MB at start, {m.loaded_mb:.1f} loaded, "
            f"peak {m.peak_mb:.1f} after {m.frames} frames; PSS {pss}"
        )
    if run.roofline is not None:
        found.append(f"roofline: {_roofline(run)}")
    found.append(f"accuracy: {_accuracy(run)}")
    found.append(
        f"machine: {_known(e.board)}, {_known(e.cpu)}, {_known(e.cores)} cores, "
        f"{_number(e.memory_mb, '.0f')} MB; {_known(e.os)}, {_known(e.kernel)}"
        + ("" if e.power_mode is None else f"; power mode {e.power_mode}")
    )
    found.append(f"before: governor {_known(e.governor)}; {_moment(e.before)}")
    found.append(f"after: {_moment(e.after)}")
    found.append(
        f"meanwhile: throttled {_yes(h.throttled)} ({h.throttle}); clock {_variation(h.clock_cv)} ({h.clock}); "
        f"others took {_share(h.background_share)} of all cores; {_known(h.swapped_in)} pages swapped in"
    )
    found.append(
        f"software: {_known(e.engine)} {_known(e.engine_version)}, {e.device}, {e.threads} threads on cores "
        f"{','.join(map(str, e.affinity)) or 'unknown'}; Python {e.python}, numpy {e.numpy}, OpenCV {_known(e.opencv)}, "
        f"face-edge-sdk {e.sdk}"
    )
    found.append(f"bundle: {run.sha256[:12]}, {run.chosen}")
    return found + [f"note: {note}" for note in run.notes]


def _lines(run: Run) -> list[str]:
    unknown = f"; unknown here: {', '.join(run.unknown)}" if run.unknown else ""
    lines = _wrap(f"{run.title} {run.verdict}{unknown}", 0)
    for reason in run.reasons:
        lines += _wrap(reason)
    lines.append(
        f"  {scenario_text(run.scenario) + ', ms':<22}"
        + "".join(f"{p:>14}" for p in PRINTED)
        + f"{'least':>9}{'most':>10}"
    )
    for name, stage in run.stages.items():
        cells = "".join(f"{_cell(stage, p):>14}" for p in PRINTED)
        lines.append(f"  {name.replace('_', ' '):<22}{cells}{stage.min_ms:>9.3f}{stage.max_ms:>10.3f}")
        if name == END_TO_END:
            lines.append(f"  {'  95 % interval':<22}" + "".join(f"{_between(stage, p):>14}" for p in PRINTED))
    for fact in facts(run):
        lines += _wrap(fact)
    return lines


def _cell(stage: Stage, percentile: str) -> str:
    found = stage.percentiles[percentile]
    return f"n/a (n={stage.count})" if found is None else f"{found.ms:.3f}"


def _between(stage: Stage, percentile: str) -> str:
    found = stage.percentiles[percentile]
    return "" if found is None else f"{_digits(found.low)}-{_digits(found.high)}"


def _digits(value: float) -> str:
    """Three digits, or all before the point; never an exponent."""
    return f"{value:.{max(0, 3 - len(str(int(value))))}f}"


def _interval(stage: Stage | None, percentile: str) -> str:
    found = None if stage is None else stage.percentiles[percentile]
    if stage is None or found is None:
        return f"n/a (n={0 if stage is None else stage.count})"
    return f"{found.ms:.2f} ({found.low:.2f} to {found.high:.2f})"


def _short(run: Run, percentile: str) -> str:
    value = run.ms(END_TO_END, percentile)
    return "n/a" if value is None else f"{value:.2f}"


def _energy(run: Run) -> str:
    e = run.energy
    if e.gross_mj is None:
        return f"unknown: {e.reason}"
    net = e.reason if e.net_mj is None else f"net {e.net_mj:.2f} mJ over {e.idle_w:.2f} W idle"
    return f"gross {e.gross_mj:.2f} mJ per {run.frames.unit}, {net}; {e.source}: {e.scope}; {e.readings} readings"


def _roofline(run: Run) -> str:
    r = run.roofline
    assert r is not None
    parts = []
    if r.gmacs is not None:
        parts.append(f"{r.gmacs:.3f} GMAC per inference ({r.counted})")
    if r.achieved_gops is not None:
        parts.append(f"{r.achieved_gops:.1f} GOP/s achieved")
    if r.peak_gops is not None:
        parts.append(f"{r.peak_gops:.1f} GOP/s by 1x1 convolutions through the same engine")
    if r.share is not None:
        parts.append(f"{r.share:.0%} of that")
    return ", ".join(parts + ([r.reason] if r.reason else []))


def _accuracy(run: Run) -> str:
    a = run.accuracy
    if a is None:
        return "unknown: the bundle has no gate"
    figures = ", ".join(
        f"{name} {m.value:.4f}"
        + ("" if m.low is None or m.high is None else f" ({m.low:.4f} to {m.high:.4f})")
        for name, m in a.metrics.items()
    )
    where = "by the gate when it was built" if a.source == "gate" else "measured in this run"
    return f"{figures}; {where}, {a.items} pictures, {a.sha256[:12]}"


def _moment(moment: Snapshot) -> str:
    mhz = "unknown" if not moment.clock_mhz else "/".join(f"{v:.0f}" for v in sorted(set(moment.clock_mhz)))
    hottest = max(moment.temperature_c.values(), default=None)
    return (
        f"load {_number(moment.load, '.2f')}, clocks {mhz} MHz, {_number(hottest, '.0f')} C, "
        f"{_number(moment.available_mb, '.0f')} MB free; busiest: {', '.join(moment.busiest) or 'nothing'}"
    )


def _variation(cv: float | None) -> str:
    return "unknown" if cv is None else f"varied by {cv:.1%} (limit {MAX_CLOCK_CV:.0%})"


def _yes(value: bool | None) -> str:
    return {None: "unknown", True: "yes", False: "no"}[value]


def _known(value: object) -> str:
    return "unknown" if value is None else str(value)


def _number(value: float | None, spec: str) -> str:
    return "unknown" if value is None else format(value, spec)


def _share(value: float | None) -> str:
    return "an unknown share" if value is None else f"{value:.0%}"


_MARKUP = str.maketrans({**{c: f"\\{c}" for c in "\\|`*_[]!#"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"})


def _escape(text: str) -> str:
    """Text that Markdown shows as it is: no link, no picture, no HTML, no line of its own."""
    return " ".join(text.translate(_MARKUP).split())


def _wrap(text: str, indent: int = 2) -> list[str]:
    return textwrap.wrap(text, COLUMNS, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2))
