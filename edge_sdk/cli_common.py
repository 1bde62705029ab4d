"""What the verbs of ``edge-sdk`` share, whichever floor they stand on: options, progress, JSON."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from edge_sdk.bundle import Bundle, Coverage
from edge_sdk.model import Model, load
from edge_sdk.schema import to_plain
from edge_sdk.target import Progress


class Verb(Protocol):
    """Adds a verb to the command line."""

    def __call__(
        self, name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        """Return the verb's own parser, which already knows ``--json`` and ``--debug``.

        Args:
            name: what the user types.
            run: does the work; returns the exit code; raises an EdgeError otherwise.
            text: what ``--help`` says.
        """
        ...


def engine_options(sub: argparse.ArgumentParser) -> None:
    """Add the options that choose a bundle and its engine."""
    sub.add_argument("--target", metavar="NAME", help="engine that must run it")
    sub.add_argument(
        "--prefer",
        metavar="NAME,NAME",
        help="engines that may run it, in this order, while or where others cannot",
    )
    sub.add_argument(
        "--precision",
        metavar="P",
        help="precision that the bundle must have: fp32, fp16, int8, int8-wonly or int8-mixed",
    )
    sub.add_argument("--threads", type=int, metavar="N", help="of the engine (default: the cores, at most 4)")
    sub.add_argument(
        "--device",
        metavar="D[,D]",
        help="where the engine must run, such as GPU; of several the first that is there (default: CPU)",
    )
    sub.add_argument("--profile", metavar="NAME", help="board, or its .toml file: engine and threads for it")


def load_asked(
    args: argparse.Namespace, confidence: float | None = None, bundle: Bundle | None = None
) -> Model[Any]:
    """Load the model or bundle that the arguments name, or ``bundle``, as :func:`engine_options` has asked."""
    name = args.model if hasattr(args, "model") else args.bundle
    # AUTO:GPU,CPU is one device to OpenVINO.
    whole = args.device is None or args.device.startswith("AUTO")
    return load(
        name if bundle is None else bundle,
        target=args.target,
        prefer=() if args.prefer is None else args.prefer.split(","),
        precision=args.precision,
        threads=args.threads,
        device=args.device if whole else args.device.split(","),
        profile=args.profile,
        confidence=confidence,
    )


def print_gate(bundle: Bundle) -> None:
    """Print what the accuracy gate measured, one line per metric."""
    gate, confidence = bundle.manifest.gate, bundle.manifest.recipe.gate.confidence
    verdict = "passed" if gate.waiver is None else f"WAIVED ({gate.waiver})"
    bounded = any(m.low is not None for m in gate.metrics.values())
    note = f", bounds at {100 * confidence:g} % confidence" if bounded else ""
    print(f"gate {verdict} on {gate.evaluation.items} held-out pictures{note}:")
    for name, m in gate.metrics.items():
        bounds = "" if m.low is None or m.high is None else f" ({m.low:+.4f} .. {m.high:+.4f})"
        print(
            f"  {name:<12}float {m.reference:.4f}   compiled {m.compiled:.4f}   "
            f"{m.compiled - m.reference:+.4f}{bounds}   allowed {m.max_drop:g}"
        )


def shown_coverage(coverage: Coverage) -> str:
    """What a calibration set covers, on one line: 5th, 50th and 95th percentile."""
    parts = [
        ("brightness", coverage.brightness),
        ("contrast", coverage.contrast),
        ("faces", coverage.face_size),
    ]
    shown = [f"{name} {' / '.join(f'{v:.0f}' for v in values)}" for name, values in parts if values]
    if coverage.face_size:
        shown[-1] += " px"
    shown += [f"{label} {count}" for label, count in (coverage.per_class or {}).items()]
    return ", ".join(shown)


@contextmanager
def progress() -> Iterator[Progress]:
    """Stages on one stderr line; silent when stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return

    def show(stage: str, done: int, total: int) -> None:
        sys.stderr.write(f"\r\033[K{stage} {100 * done // max(1, total)} %")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\033[K")


@contextmanager
def stdout_is_ours() -> Iterator[None]:
    """Quantizers print to stdout, some from C++; while they run, that goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def printable(text: str) -> str:
    """Text on one line that a terminal shows and does not obey: control characters and newlines as escapes.

    For what came from elsewhere: file names, manifests, messages of engines.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


class _PlainStream(io.TextIOBase):
    """A stream that escapes what a terminal would obey, line ends and tabs left as they are."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if not text.isprintable():
            text = "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)
        self._stream.write(text)
        return len(text)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read by who prints; nobody sets it
        return self._stream.encoding


@contextmanager
def plain_output() -> Iterator[None]:
    """The one place through which a verb prints: whatever is printed, no control character reaches the terminal."""
    kept = sys.stdout
    # A process that was started with its output closed has none: what it prints goes nowhere.
    sys.stdout = _PlainStream(kept if kept is not None else io.StringIO())
    try:
        yield
    finally:
        sys.stdout = kept


def print_json(value: Any) -> None:
    """Print a value, or a dataclass, as JSON; what could not be measured is null."""
    if dataclasses.is_dataclass(value):
        value = to_plain(value)
    print(json.dumps(_without_nan(value), indent=2, allow_nan=False))


def _without_nan(value: Any) -> Any:
    """A figure that could not be measured is null: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
