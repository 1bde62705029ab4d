"""Our inference stage beside figures of tools that others wrote, on the same artifact, with the same threads, in turns.

loadgen         MLPerf LoadGen (pip install 'face-edge-sdk[loadgen]') with our session as the system under test:
                SingleStream (its 50th percentile) and Offline (its samples per second, as milliseconds per sample).
benchmark_app   OpenVINO's own, from the openvino wheel, on the bundle's IR: synchronous, one stream, float32 hint.
litert          LiteRT's own benchmark, from the ai-edge-litert wheel, on the bundle's .tflite, through CompiledModel.

LoadGen calls our session, so both clocks see the same inferences. The other tools load the artifact themselves: in each
round our session and every tool run once, in an order that changes, and figures of the same round are compared. The
median of the rounds' ratios is printed with its range; a median within 5 % of 1 counts as agreement.
onnxruntime_perf_test comes with no wheel on PyPI and no package of Debian: run it on the artifact by hand if you have
built it from source.

Exit code 1 if a tool that ran does not agree.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_benchmarks import module_cli
from edge_benchmarks.child_process import call_main
from edge_benchmarks.system_under_test import network_inputs
from edge_sdk.adapter import thread_count
from edge_sdk.bundle import Bundle
from edge_sdk.errors import InferFailed, MissingDependency
from edge_sdk.model import load
from edge_sdk.target import LoadOptions, Session
from edge_sdk.tensors import Tensors
from edge_sdk.timing import now_ns

AGREEMENT = 0.05
INPUTS = 16
WARM_UP = 20
EXPECTED_LATENCY_NS = 15_000
"""LoadGen prepares as many queries as this latency needs; above the true one it would end too early and say INVALID."""


@dataclass(frozen=True)
class SessionUnderTest:
    """Our session, and what the tools need to run the same network.

    Attributes:
        session: our loaded session.
        inputs: inputs by name that it is given in turn.
        files: folder with the bundle's artifact, for tools that read files.
        threads: number of threads of the engine.
    """

    session: Session
    inputs: Sequence[Tensors]
    files: Path
    threads: int


@dataclass(frozen=True)
class Figure:
    """Milliseconds per inference of one turn."""

    median_ms: float
    mean_ms: float


Measure = Callable[[SessionUnderTest, float, float], tuple[float, Figure | None]]


@dataclass(frozen=True)
class Tool:
    """Somebody else's benchmark.

    Attributes:
        name: for the table.
        targets: whose artifacts it runs; empty for all, because it calls our session.
        requires: module that must be importable, and the command that installs it.
        measure: runs one turn, given what to measure, about how many seconds to take, and about how many milliseconds
            an inference takes; returns the tool's milliseconds per inference and, if it called our session, our own
            figure for the same inferences.
        of: which of our figures it is compared with: ``median`` or ``mean``.
        difference: what it counts differently from us.
    """

    name: str
    targets: tuple[str, ...]
    requires: tuple[str, str]
    measure: Measure
    of: str
    difference: str


@dataclass
class Row:
    """One tool's figures and ours, round by round."""

    tool: Tool
    theirs_ms: list[float] = field(default_factory=list)
    ours_ms: list[float] = field(default_factory=list)
    missing: str | None = None

    @property
    def ratios(self) -> list[float]:
        """Theirs over ours, round by round."""
        return [a / b for a, b in zip(self.theirs_ms, self.ours_ms, strict=True)]

    @property
    def agrees(self) -> bool | None:
        """Whether the median ratio lies within 5 % of 1; None if the tool did not run."""
        return abs(statistics.median(self.ratios) - 1) <= AGREEMENT if self.theirs_ms else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "tool": self.tool.name,
            "compared": self.tool.of,
            "theirs_ms": self.theirs_ms,
            "ours_ms": self.ours_ms,
            "ratio": statistics.median(self.ratios) if self.ratios else None,
            "ratio_range": [min(self.ratios), max(self.ratios)] if self.ratios else None,
            "agrees": self.agrees,
            "difference": self.tool.difference,
            "missing": self.missing,
        }


def check(path: Path, *, rounds: int, seconds: float, threads: int | None) -> dict[str, Any]:
    """Compare our session with every tool that runs the bundle's engine.

    Args:
        path: the bundle file.
        rounds: number of turns of each tool.
        seconds: length of a turn.
        threads: number of threads of the engine, for all tools; None takes what :func:`edge_sdk.load` takes.

    Raises:
        EdgeError: what loading raises; a tool that fails is a row that says so.
    """
    bundle = Bundle.open(path)
    target = bundle.manifest.target
    with load(bundle, threads=threads) as model, tempfile.TemporaryDirectory() as name:
        for file, content in bundle.artifact.files.items():
            (Path(name) / file).write_bytes(content)
        inputs = network_inputs(model.task, INPUTS)
        subject = SessionUnderTest(
            model.session, inputs, Path(name), thread_count(LoadOptions(threads=threads))
        )
        rows = [
            Row(tool, missing=_missing(tool)) for tool in TOOLS if not tool.targets or target in tool.targets
        ]
        take_turns(subject, rows, rounds=rounds, seconds=seconds)
    return {**module_cli.label(path), "threads": subject.threads, "rows": [row.to_dict() for row in rows]}


def take_turns(subject: SessionUnderTest, rows: Sequence[Row], *, rounds: int, seconds: float) -> None:
    """Run our session and every tool that can run once per round; each round begins with another one."""
    closed_loop(subject, min(1.0, seconds))
    for turn in range(rounds):
        running = [row for row in rows if row.missing is None]
        order: list[Row | None] = [None, *running]
        first = turn % len(order)
        ours: Figure | None = None
        theirs: dict[str, tuple[float, Figure | None]] = {}
        # The tools are told about how long an inference takes: most count runs, not seconds.
        about = closed_loop(subject, 0.2).median_ms
        for row in order[first:] + order[:first]:
            if row is None:
                ours = closed_loop(subject, seconds)
                continue
            try:
                theirs[row.tool.name] = row.tool.measure(subject, seconds, about)
            except (InferFailed, OSError, ValueError, KeyError) as error:
                row.missing = f"failed: {error}"
        assert ours is not None
        for row in running:
            if row.tool.name in theirs:
                ms, same = theirs[row.tool.name]
                beside = same or ours
                row.theirs_ms.append(ms)
                row.ours_ms.append(beside.median_ms if row.tool.of == "median" else beside.mean_ms)


def closed_loop(subject: SessionUnderTest, seconds: float) -> Figure:
    """Time our session's inferences one after another for ``seconds``, after a few that are not counted."""
    infer, inputs = subject.session.infer, subject.inputs
    for turn in range(WARM_UP):
        infer(inputs[turn % len(inputs)])
    taken: list[int] = []
    end = now_ns() + int(seconds * 1e9)
    while not taken or now_ns() < end:
        given = inputs[len(taken) % len(inputs)]
        before = now_ns()
        infer(given)
        taken.append(now_ns() - before)
    return Figure(statistics.median(taken) / 1e6, statistics.fmean(taken) / 1e6)


def _loadgen(scenario: str, key: str) -> Measure:
    """A turn of LoadGen in a scenario, and the key of its detailed log that holds the result."""

    def measure(subject: SessionUnderTest, seconds: float, about_ms: float) -> tuple[float, Figure]:
        import mlperf_loadgen as loadgen

        infer, inputs = subject.session.infer, subject.inputs
        taken: list[int] = []

        def issue(samples: Sequence[Any]) -> None:
            for sample in samples:
                before = now_ns()
                infer(inputs[sample.index])
                taken.append(now_ns() - before)
                loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0)])

        settings = loadgen.TestSettings()
        settings.scenario = getattr(loadgen.TestScenario, scenario)
        settings.mode = loadgen.TestMode.PerformanceOnly
        settings.min_duration_ms = int(seconds * 1000)
        settings.min_query_count = 1 if scenario == "Offline" else WARM_UP
        settings.single_stream_expected_latency_ns = EXPECTED_LATENCY_NS
        settings.single_stream_target_latency_percentile = 0.5
        settings.offline_expected_qps = 1000 / about_ms
        with tempfile.TemporaryDirectory() as folder:
            output = loadgen.LogOutputSettings()
            output.outdir, output.copy_summary_to_stdout = folder, False
            logs = loadgen.LogSettings()
            logs.log_output, logs.enable_trace = output, False
            system = loadgen.ConstructSUT(issue, lambda: None)
            library = loadgen.ConstructQSL(len(inputs), len(inputs), lambda _: None, lambda _: None)
            try:
                loadgen.StartTestWithLogSettings(system, library, settings, logs)
            finally:
                loadgen.DestroyQSL(library)
                loadgen.DestroySUT(system)
            found = loadgen_results((Path(folder) / "mlperf_log_detail.txt").read_text())
        ms = 1000 / float(found[key]) if scenario == "Offline" else float(found[key]) / 1e6
        return ms, Figure(statistics.median(taken) / 1e6, statistics.fmean(taken) / 1e6)

    return measure


def loadgen_results(log: str) -> dict[str, Any]:
    """Keys that start with ``result_`` of LoadGen's detailed log.

    Raises:
        InferFailed: the log has no result.
    """
    lines = (json.loads(line.removeprefix(":::MLLOG ")) for line in log.splitlines() if ":::MLLOG" in line)
    found = {entry["key"]: entry["value"] for entry in lines if entry["key"].startswith("result_")}
    if not found:
        raise InferFailed("LoadGen's log has no result", remedy="run it for longer")
    return found


def _benchmark_app(subject: SessionUnderTest, seconds: float, about_ms: float) -> tuple[float, None]:
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", str(subject.files / "model.xml"), "-d", "CPU", "-api", "sync", "-hint", "none"]
        arguments += ["-nstreams", "1", "-nthreads", str(subject.threads), "-infer_precision", "CPU:f32"]
        arguments += ["-t", str(max(1, round(seconds))), "-report_type", "no_counters"]
        arguments += ["-report_folder", folder, "-json_stats"]
        call_main("openvino.tools.benchmark.main", arguments, timeout_s=_limit_s(seconds))
        report = json.loads((Path(folder) / "benchmark_report.json").read_text())
    return float(report["execution_results"]["latency (ms)"]), None


def _litert(subject: SessionUnderTest, seconds: float, about_ms: float) -> tuple[float, None]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        arguments = ["--model", str(subject.files / "model.tflite"), "--num_threads", str(subject.threads)]
        arguments += [
            "--warmup_runs",
            str(WARM_UP),
            "--num_runs",
            str(max(20, int(seconds * 1000 / about_ms))),
        ]
        arguments += ["--result_json", str(file)]
        call_main("ai_edge_litert.tools.benchmark_litert_model", arguments, timeout_s=_limit_s(seconds))
        return float(json.loads(file.read_text())["latency"]["median_ms"]), None


def _limit_s(seconds: float) -> float:
    """Seconds after which a tool that was asked to run for ``seconds`` is killed: it loads and warms up as well."""
    return 2 * seconds + 60


LOADGEN = ("mlperf_loadgen", "pip install 'face-edge-sdk[loadgen]'")
TOOLS = (
    Tool(
        "LoadGen SingleStream",
        (),
        LOADGEN,
        _loadgen("SingleStream", "result_50.00_percentile_latency_ns"),
        "median",
        "adds its own issue and completion of a query",
    ),
    Tool(
        "LoadGen Offline",
        (),
        LOADGEN,
        _loadgen("Offline", "result_samples_per_second"),
        "mean",
        "adds its own completion of a sample",
    ),
    Tool(
        "benchmark_app",
        ("openvino",),
        ("openvino.tools.benchmark", "pip install openvino"),
        _benchmark_app,
        "median",
        "fills the input once, and reads no output",
    ),
    Tool(
        "LiteRT benchmark",
        ("tflite",),
        ("ai_edge_litert.tools.benchmark_litert_model", "pip install ai-edge-litert"),
        _litert,
        "median",
        "fills the input once, reads no output, and runs CompiledModel where we run Interpreter",
    ),
)


def _missing(tool: Tool) -> str | None:
    """Why a tool cannot run here."""
    module, remedy = tool.requires
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    return None if found else f"not installed: {remedy}"


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Plain text of at most 100 columns."""
    lines = [f"{'':<34}{'ours ms':>9}{'theirs':>9}{'theirs/ours':>13}{'range':>15}  verdict"]
    for result in results:
        lines.append(f"{result['target']}-{result['precision']}, {result['threads']} threads")
        for row in result["rows"]:
            name = f"  {row['tool']} ({row['compared']})"
            if row["ratio"] is None:
                lines.append(f"{name:<34}{row['missing']}")
                continue
            ours, theirs = (statistics.median(row[key]) for key in ("ours_ms", "theirs_ms"))
            low, high = row["ratio_range"]
            verdict = "agrees" if row["agrees"] else "differs"
            lines.append(
                f"{name:<34}{ours:>9.3f}{theirs:>9.3f}{row['ratio']:>13.3f}{f'{low:.3f}..{high:.3f}':>15}  {verdict}"
            )
            if not row["agrees"]:
                lines.append(f"    {row['difference']}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = module_cli.parser("crosscheck", __doc__)
    module_cli.add_bundles(parser)
    parser.add_argument("--threads", type=module_cli.positive, metavar="N", help="of the engine")
    parser.add_argument("--rounds", type=module_cli.positive, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--seconds", type=module_cli.positive, default=3, metavar="SEC", help="of a turn (default: 3)"
    )
    return module_cli.run_main(lambda: _print(parser.parse_args(argv)))


def _print(args: argparse.Namespace) -> int:
    results = [
        check(path, rounds=args.rounds, seconds=args.seconds, threads=args.threads)
        for path in module_cli.expand(args.bundles)
    ]
    rows = [row for result in results for row in result["rows"]]
    if not any(row["theirs_ms"] for row in rows):
        raise MissingDependency("no tool could run", remedy=next(row["missing"] for row in rows))
    print(json.dumps(results, indent=2) if args.json else table(results))
    return 0 if all(row["agrees"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
