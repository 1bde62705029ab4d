"""Two runs side by side: how much changed, how sure that is, and whether it is a regression.

Another machine, engine or set of pictures would explain any difference, so runs that differ in one are refused unless
the caller names the field that may differ. The change of a latency is the ratio of two percentiles, with an interval and
a p-value by block bootstrap; Holm's correction keeps the chance of one false alarm among all at 5 %.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edge_benchmarks import stats
from edge_benchmarks.render_text import COLUMNS, Kind, kind
from edge_benchmarks.report import AT, END_TO_END, Run
from edge_sdk.errors import InputError

ALIASES = {"e2e": END_TO_END, "pre": "preprocess", "post": "postprocess"}
ALPHA = 0.05
DRAWS = 4000
DEFAULT_RULES = ("e2e.p50>+5%", "e2e.p99>+5%")
FAMILY = ("e2e.p50", "e2e.p90", "e2e.p99", "infer.p50", "throughput")
"""Metrics that are compared even where no rule names them."""

GRAMMAR = "METRIC>+N% (grew by more) or METRIC<-N% (fell by more), such as e2e.p99>+5%"
METRICS = (
    "STAGE.p50 .p90 .p95 .p99 .p99.9 (e2e, pre, infer, post or any stage of the report), throughput, energy.gross, "
    "energy.net, memory.peak, memory.pss, accuracy.NAME"
)

_FIELDS: Mapping[str, Callable[[Run], object]] = {
    **{
        name: (lambda run, name=name: getattr(run.environment, name))  # type: ignore[misc]
        for name in (
            "machine", "board", "cpu", "cores", "os", "kernel", "governor", "max_mhz", "power_mode", "python",
            "numpy", "opencv", "engine", "engine_version", "device",
        )
    },
    "memory": lambda run: None if (mb := run.environment.memory_mb) is None else round(mb / 200),
    "frames": lambda run: run.frames.sha256,
    "unit": lambda run: run.frames.unit,
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """One ``--fail-if``.

    Attributes:
        text: as it was given.
        metric: canonical name.
        direction: ``>``: growing is bad; ``<``: falling is.
        limit: relative change from which it counts, such as 0.05 or -0.05.
    """

    text: str
    metric: str
    direction: Literal[">", "<"]
    limit: float

    def broken(self, change: float) -> bool:
        """Whether a relative change goes beyond the limit."""
        return change > self.limit if self.direction == ">" else change < self.limit


@dataclass(frozen=True)
class Change:
    """One metric of one pair of runs; relative to the base.

    Attributes:
        metric: name.
        base: value.
        run: value.
        change: ``run / base - 1``.
        low: of the 95 % interval; None where there are no samples to draw from.
        high: of the same.
        p: two-sided, by bootstrap, corrected by Holm over all metrics and pairs of the comparison; None as above.
    """

    metric: str
    base: float
    run: float
    change: float
    low: float | None
    high: float | None
    p: float | None

    @property
    def sure(self) -> bool:
        """Whether the change is significant: p below 5 %, or a figure that has no samples."""
        return self.p is None or self.p < ALPHA


@dataclass(frozen=True)
class Pair:
    """The runs of one kind on both sides, and how their metrics differ.

    Attributes:
        title: what they measured.
        base: runs of the base, one or several.
        run: runs held against it.
        changes: by metric.
    """

    title: str
    base: tuple[Run, ...]
    run: tuple[Run, ...]
    changes: tuple[Change, ...]

    @property
    def verdict(self) -> Literal["VALID", "INVALID"]:
        """VALID if every run on both sides is."""
        valid = all(r.verdict == "VALID" for r in (*self.base, *self.run))
        return "VALID" if valid else "INVALID"


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`.

    Attributes:
        pairs: compared.
        only_base: titles of runs that the other side lacks.
        only_run: the reverse.
        regressions: a sentence for each rule that a pair broke.
        unjudged: a sentence for each rule that a pair could not be held to.
        accepted: fields that differ and were allowed to.
    """

    pairs: tuple[Pair, ...]
    only_base: tuple[str, ...]
    only_run: tuple[str, ...]
    regressions: tuple[str, ...]
    unjudged: tuple[str, ...]
    accepted: tuple[str, ...]


def parse_rule(text: str) -> Rule:
    """Read a rule: ``METRIC>+N%`` or ``METRIC<-N%``.

    Raises:
        InputError: it is not in the grammar.
    """
    found = re.fullmatch(r"\s*([a-z_0-9.-]+)\s*([<>])\s*([+-]?\d+(?:\.\d+)?)\s*%\s*", text)
    if found is None:
        raise InputError(f"cannot read the rule {text!r}: expected {GRAMMAR}", remedy=f"metrics: {METRICS}")
    metric, direction, limit = found[1], found[2], float(found[3]) / 100
    if (direction == ">" and limit < 0) or (direction == "<" and limit > 0):
        raise InputError(
            f"the rule {text!r} would call an improvement a regression", remedy=f"write {GRAMMAR}"
        )
    stage, _, rest = metric.partition(".")
    known = (
        metric in ("throughput", "energy.gross", "energy.net", "memory.peak", "memory.pss")
        or (stage == "accuracy" and rest)
        or rest in stats.PER_MILLE
    )
    if not known:
        raise InputError(f"the rule {text!r} names no metric", remedy=f"metrics: {METRICS}")
    return Rule(text.strip(), metric, ">" if direction == ">" else "<", limit)


def compare(
    base: Sequence[Run],
    run: Sequence[Run],
    *,
    rules: Sequence[Rule] = (),
    across: Sequence[str] = (),
    draws: int = DRAWS,
) -> Comparison:
    """Compare all runs of one kind that are on both sides.

    Args:
        base: runs to compare with.
        run: runs that are judged.
        rules: which changes count as a regression.
        across: names of fields of the environment that may differ.
        draws: number of resamples of each side; no p-value below ``2 / draws`` can be told.

    Raises:
        InputError: nothing in common, unlike environments, or an unknown field in ``across``.
    """
    unknown = sorted(set(across) - set(_FIELDS))
    if unknown:
        raise InputError(f"no field {unknown[0]!r} to compare across", remedy=f"fields: {', '.join(_FIELDS)}")
    left, right = _kinds(base), _kinds(run)
    common = [(key, key) for key in left if key in right]
    if not common and len(left) == len(right) == 1 and _like(next(iter(left))) == _like(next(iter(right))):
        # One bundle on each side: whoever names two files wants these two compared.
        common = [(next(iter(left)), next(iter(right)))]
    if not common:
        raise InputError(
            f"the files have no measurement in common: {'; '.join(map(str, left)) or 'nothing'} against "
            f"{'; '.join(map(str, right)) or 'nothing'}",
            remedy="measure the same bundles in the same scenario, with the same threads",
        )
    accepted: dict[str, None] = {}
    for key, other in common:
        accepted |= dict.fromkeys(_check_alike(str(key), left[key], right[other], across))
    wanted = tuple(dict.fromkeys((*FAMILY, *(rule.metric for rule in rules))))
    drafts = [_changes(left[key], right[other], wanted, draws) for key, other in common]
    corrected = iter(stats.holm([c.p for changes in drafts for c in changes if c.p is not None]))
    pairs = []
    for (key, other), changes in zip(common, drafts, strict=True):
        title = str(key) if key == other else f"{key!s} -> {other!s}"
        final = tuple(
            c if c.p is None else Change(c.metric, c.base, c.run, c.change, c.low, c.high, next(corrected))
            for c in changes
        )
        pairs.append(Pair(title, tuple(left[key]), tuple(right[other]), final))
    regressions, unjudged = _judge(pairs, rules)
    used_left, used_right = {key for key, _ in common}, {other for _, other in common}
    return Comparison(
        pairs=tuple(pairs),
        only_base=tuple(str(key) for key in left if key not in used_left),
        only_run=tuple(str(key) for key in right if key not in used_right),
        regressions=regressions,
        unjudged=unjudged,
        accepted=tuple(accepted),
    )


def table(comparison: Comparison) -> str:
    """Plain text of at most 100 columns."""
    lines: list[str] = []
    for pair in comparison.pairs:
        lines += _wrap(f"{pair.title}: {pair.verdict}", 0)
        for side, runs in (("base", pair.base), ("run", pair.run)):
            for one in runs:
                for reason in one.reasons:
                    lines += _wrap(f"{side} is INVALID: {reason}")
        if len(pair.base) == 1 or len(pair.run) == 1:
            lines += _wrap(
                "one process on a side: how much processes differ among themselves is not in the intervals (--repeat)"
            )
        lines.append(
            f"  {'metric':<18}{'base':>12}{'run':>12}{'change':>10}{'95 % interval':>22}{'p (Holm)':>10}"
        )
        for c in pair.changes:
            interval = "not sampled" if c.low is None or c.high is None else f"{c.low:+.1%} to {c.high:+.1%}"
            p = "" if c.p is None else f"{c.p:.3f}"
            lines.append(
                f"  {c.metric:<18}{c.base:>12.3f}{c.run:>12.3f}{c.change:>+10.1%}{interval:>22}{p:>10}"
            )
        lines.append("")
    for which, titles in (("base", comparison.only_base), ("run", comparison.only_run)):
        lines += [line for title in titles for line in _wrap(f"only in {which}: {title}", 0)]
    if comparison.accepted:
        lines += _wrap(f"accepted differences: {', '.join(comparison.accepted)}", 0)
    for sentence in comparison.unjudged:
        lines += _wrap(f"cannot judge {sentence}", 0)
    for sentence in comparison.regressions:
        lines += _wrap(f"REGRESSION {sentence}", 0)
    if not comparison.regressions:
        lines.append("no regression")
    return "\n".join(lines)


def _kinds(runs: Sequence[Run]) -> dict[Kind, list[Run]]:
    """Runs by what they measured; runs of one kind are repetitions of each other."""
    found: dict[Kind, list[Run]] = {}
    for run in runs:
        found.setdefault(kind(run), []).append(run)
    return found


def _like(key: Kind) -> tuple[str, str]:
    """What two different bundles must share to be compared: scenario and size of the pictures."""
    return key.scenario, key.size


def _check_alike(title: str, base: Sequence[Run], run: Sequence[Run], across: Sequence[str]) -> list[str]:
    """Return the differences between the environments that the caller accepts; raise InputError for any other."""
    unlike: list[str] = []
    accepted: list[str] = []
    for name, value in _FIELDS.items():
        ours, theirs = sorted({str(value(r)) for r in base}), sorted({str(value(r)) for r in run})
        if ours != theirs:
            said = f"{name} ({_short(ours)} against {_short(theirs)})"
            (accepted if name in across else unlike).append(said)
    # A bundle for another engine brings another engine: that is the comparison.
    if unlike and base[0].target != run[0].target:
        unlike = [said for said in unlike if not said.startswith(("engine ", "engine_version "))]
    if unlike:
        names = ",".join(said.split(" ")[0] for said in unlike)
        raise InputError(
            f"{title}: unlike environments: {'; '.join(unlike)}",
            remedy=f"measure both on one machine, or accept the differences with --across {names}",
        )
    return accepted


def _short(values: Sequence[str]) -> str:
    return "/".join(v if len(v) <= 40 else v[:12] + "..." for v in values)


def _changes(base: Sequence[Run], run: Sequence[Run], metrics: Sequence[str], draws: int) -> list[Change]:
    """Every metric that both sides can state."""
    found: dict[str, Change] = {}
    by_stage: dict[str, list[str]] = {}
    for metric in metrics:
        stage, _, name = metric.partition(".")
        if name in stats.PER_MILLE and stage not in ("energy", "memory", "accuracy"):
            by_stage.setdefault(ALIASES.get(stage, stage), []).append(metric)
    for stage, mine in by_stage.items():
        found |= _percentile_changes(base, run, stage, mine, draws)
    if "throughput" in metrics:
        change = _throughput_change(base, run, draws)
        found |= {} if change is None else {"throughput": change}
    for metric in metrics:
        value = _plain(metric)
        if value is None:
            continue
        if metric.startswith("energy.") and len({r.energy.source for r in (*base, *run)}) > 1:
            continue  # two sources cover different parts of a machine
        ours, theirs = [value(r) for r in base], [value(r) for r in run]
        if None not in ours and None not in theirs:
            a, b = float(np.mean(ours)), float(np.mean(theirs))  # type: ignore[arg-type]
            if a:
                found[metric] = Change(metric, a, b, b / a - 1, None, None, None)
    return [found[metric] for metric in metrics if metric in found]


def _percentile_changes(
    base: Sequence[Run], run: Sequence[Run], stage: str, metrics: Sequence[str], draws: int
) -> dict[str, Change]:
    """All percentiles of one stage from the same resamples."""
    names = [metric.partition(".")[2] for metric in metrics]
    sides = []
    for side, runs in enumerate((base, run)):
        samples = [r.traces.get(stage) for r in runs]
        if any(s is None or not len(s) for s in samples):
            return {}
        known = [s for s in samples if s is not None]
        stated = [n for n in names if all(stats.rank(n, len(s)) is not None for s in known)]
        sides.append((known, stated, [r.duration_s for r in runs], side))
    stated = [n for n in names if n in sides[0][1] and n in sides[1][1]]
    if not stated:
        return {}
    # Very long runs are drawn from less often; their intervals are narrow enough.
    longest = max(len(one) for samples, *_ in sides for one in samples)
    draws = min(draws, max(1000, 200_000_000 // longest))
    (a, drawn_a), (b, drawn_b) = (_drawn(s, stated, seconds, draws, side) for s, _, seconds, side in sides)
    found = {}
    for i, name in enumerate(stated):
        metric = metrics[names.index(name)]
        found[metric] = _sampled(metric, a[i], b[i], drawn_a[:, i], drawn_b[:, i])
    return found


def _drawn(
    samples: Sequence[stats.Samples], names: Sequence[str], seconds: Sequence[float], draws: int, seed: int
) -> tuple[stats.Floats, stats.Floats]:
    """Percentiles in milliseconds, means over the runs; and those of resamples of runs, and of blocks within them."""
    points, drawn = [], []
    for i, (one, duration) in enumerate(zip(samples, seconds, strict=True)):
        ranks = [r for name in names if (r := stats.rank(name, len(one))) is not None]
        block = stats.block_length(len(one), duration)
        points.append(np.partition(one, ranks)[ranks] / 1e6)
        drawn.append(stats.resample(one, ranks, block=block, seed=seed * 1000 + i, count=draws) / 1e6)
    return np.mean(points, axis=0), _over_runs(drawn, seed)


def _over_runs(drawn: Sequence[stats.Floats], seed: int) -> stats.Floats:
    """Means of runs drawn with replacement, each as one of its own resamples: (draws, ...) from (runs, draws, ...)."""
    stacked = np.stack(drawn)
    runs, draws = stacked.shape[:2]
    chosen = np.random.default_rng(seed).integers(0, runs, (runs, draws))
    mixed: stats.Floats = stacked[chosen, np.arange(draws)].mean(axis=0)
    return mixed


def _throughput_change(base: Sequence[Run], run: Sequence[Run], draws: int) -> Change | None:
    """Change of the decisions per second; resampled by whole seconds where every run has at least ten."""
    if any(r.throughput is None for r in (*base, *run)):
        return None
    values = [[r.throughput.per_s for r in runs if r.throughput is not None] for runs in (base, run)]
    a, b = (float(np.mean(v)) for v in values)
    if any(int(r.duration_s) < stats.MIN_BLOCKS or AT not in r.traces for r in (*base, *run)):
        return Change("throughput", a, b, b / a - 1, None, None, None)
    drawn = []
    for side, runs in enumerate((base, run)):
        means = [
            stats.resample_means(_per_second(r), block=1, seed=2 * i + side, count=draws)
            for i, r in enumerate(runs)
        ]
        drawn.append(_over_runs(means, side))
    return _sampled("throughput", a, b, drawn[0], drawn[1])


def _per_second(run: Run) -> stats.Samples:
    """Decisions begun in each whole second."""
    whole = int(run.duration_s)
    return np.bincount(np.minimum(run.traces[AT] // 1_000_000_000, whole), minlength=whole + 1)[:whole]


def _sampled(metric: str, a: float, b: float, drawn_a: stats.Floats, drawn_b: stats.Floats) -> Change:
    changes = drawn_b / drawn_a - 1
    low, high = np.percentile(changes, (2.5, 97.5))
    n = len(changes)
    # One is added to both counts: a bootstrap of n draws cannot tell p below 1 / n (Davison and Hinkley, 1997).
    tail = min(int((changes <= 0).sum()), int((changes >= 0).sum()))
    return Change(
        metric,
        float(a),
        float(b),
        float(b / a - 1),
        float(low),
        float(high),
        min(1.0, 2 * (tail + 1) / (n + 1)),
    )


def _plain(metric: str) -> Callable[[Run], float | None] | None:
    """The function that reads a metric without samples from a run; None for metrics that have samples."""
    group, _, name = metric.partition(".")
    if group == "accuracy":

        def accuracy(run: Run) -> float | None:
            figure = None if run.accuracy is None else run.accuracy.metrics.get(name)
            return None if figure is None else figure.value

        return accuracy
    readers: dict[str, Callable[[Run], float | None]] = {
        "energy.gross": lambda run: run.energy.gross_mj,
        "energy.net": lambda run: run.energy.net_mj,
        "memory.peak": lambda run: None if run.memory is None else run.memory.peak_mb,
        "memory.pss": lambda run: None if run.memory is None else run.memory.pss_mb,
    }
    return readers.get(metric)


def _judge(pairs: Sequence[Pair], rules: Sequence[Rule]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    regressions, unjudged = [], []
    for rule in rules:
        for pair in pairs:
            change = next((c for c in pair.changes if c.metric == rule.metric), None)
            if change is None:
                unjudged.append(
                    f"{rule.text} of {pair.title}: not measured on both sides, or from too few samples"
                )
            elif rule.broken(change.change) and change.sure:
                regressions.append(f"{rule.text} of {pair.title}: {change.change:+.1%}")
    return tuple(regressions), tuple(unjudged)


def to_dict(comparison: Comparison) -> dict[str, Any]:
    """Plain values for JSON."""
    return {
        "regression": bool(comparison.regressions),
        "regressions": list(comparison.regressions),
        "unjudged": list(comparison.unjudged),
        "accepted": list(comparison.accepted),
        "only_base": list(comparison.only_base),
        "only_run": list(comparison.only_run),
        "pairs": [
            {
                "title": pair.title,
                "verdict": pair.verdict,
                "runs": [len(pair.base), len(pair.run)],
                "changes": [vars(change) for change in pair.changes],
            }
            for pair in comparison.pairs
        ],
    }


def _wrap(text: str, indent: int = 2) -> list[str]:
    return textwrap.wrap(text, COLUMNS, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2))
