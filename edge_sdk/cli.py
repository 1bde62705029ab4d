"""The command ``edge-sdk``.

Exit codes: 0 fine; 1 a check failed (gate, verification, regression); 2 wrong use or bad input; 3 the environment lacks
something; 4 integrity; 70 a fault of this program; 130 interrupted. Results go to stdout, errors to stderr in two lines:
what, and what to do.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edge_sdk import __version__, cli_signing, zoo
from edge_sdk.bundle import Bundle
from edge_sdk.cli_common import (
    engine_options,
    load_asked,
    plain_output,
    print_gate,
    print_json,
    printable,
    shown_coverage,
)
from edge_sdk.draw import annotate
from edge_sdk.engine_cache import default_cache
from edge_sdk.errors import ChecksumMismatch, EdgeError, InputError
from edge_sdk.image import Image, write_image
from edge_sdk.model import Model, load
from edge_sdk.results import Detections
from edge_sdk.schema import to_plain
from edge_sdk.selection import find_bundle, names_a_file, open_shipped
from edge_sdk.sources import open_source
from edge_sdk.spec import Recipe
from edge_sdk.target import LoadOptions, available_targets
from edge_sdk.tasks import faces_of
from edge_sdk.tensors import TensorSpec

FAULT = 70
"""Exit code of an error that this program should have foreseen (``EX_SOFTWARE`` of BSD's sysexits.h)."""
FLOORS = ("edge_targets.cli", "edge_benchmarks.cli", "edge_quantize.cli")
"""Modules of the floors above that add verbs of their own, by name as a target is found; a device's come first."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        with plain_output():
            return _run(words)
    except BrokenPipeError:
        # The reader left, as `| head` does: nothing is wrong, and nothing more can be said.
        _discard_stdout()
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(words: Sequence[str]) -> int:
    """Run a verb; what goes wrong is told in two lines."""
    try:
        args = _parser(words).parse_args(words)
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except EdgeError as error:
        return _tell(words, error.message, error.remedy, error.exit_code)
    except BrokenPipeError:
        raise
    except OSError as error:
        # Files of the user's have errors of their own: what is left is the output, or a machine out of something.
        what = f"{error.strerror or type(error).__name__}: {error.filename or 'the output'}"
        code = _tell(words, what, "make room, or allow it to be read or written, and run it again", 3)
        _discard_stdout()
        return code
    except Exception as error:  # nothing ends in a traceback unless that is asked for
        what = f"this is a fault of edge-sdk: {type(error).__name__}: {error}"
        remedy = f"report it, with the traceback that --debug prints and this version: {__version__}"
        return _tell(words, what, remedy, FAULT)


def _tell(words: Sequence[str], what: str, remedy: str, code: int) -> int:
    """Print the error that is being handled; returns the exit code."""
    if "--debug" in words:
        traceback.print_exc()
    print(f"error: {printable(what)}\n  {printable(remedy)}", file=sys.stderr)
    return code


def _discard_stdout() -> None:
    """Let what is still in stdout's buffer go nowhere: at the end Python would fail to write it again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # of a stream that is none, or no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of a command line: of all verbs, or of as few floors as know the one that is asked for."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print JSON for a program to read")
    shared.add_argument("--debug", action="store_true", help="print tracebacks")
    parser = argparse.ArgumentParser(
        prog="edge-sdk",
        description="Face models on small devices.",
        epilog="exit codes: 0 fine, 1 a check failed, 2 wrong use or bad input, 3 environment, 4 integrity, "
        "70 a fault of this program",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, parents=[shared], help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    verb("zoo", _zoo, "list the shipped models and their bundles")

    sub = verb("predict", _predict, "run a model on a picture, a folder of pictures or a video file")
    sub.add_argument("model", metavar="MODEL", help="zoo name or .edge file")
    sub.add_argument("--source", required=True, metavar="S", help="picture, folder or video file: one stream")
    sub.add_argument("--save", type=Path, metavar="DIR", help="write annotated pictures there")
    sub.add_argument("--conf", type=float, metavar="F", help="report faces from this score on")
    sub.add_argument(
        "--faces",
        metavar="MODEL",
        help="detector that finds the faces for a classifier or liveness network (default: none for a classifier, "
        "which then takes a picture as one crop; fer-yolo11n for liveness)",
    )
    sub.add_argument("--limit", type=int, metavar="N", help="stop after N frames")
    engine_options(sub)

    sub = verb("inspect", _inspect, "show a bundle's manifest")
    sub.add_argument("bundle", metavar="BUNDLE", help=".edge file or zoo name")

    sub = verb(
        "verify", _verify, "check a bundle's hashes, signatures, and its golden vectors on this device"
    )
    sub.add_argument("bundle", metavar="BUNDLE", help=".edge file or zoo name")
    cli_signing.trust_options(sub)
    sub.add_argument(
        "--no-isolation",
        action="store_true",
        help="load it in this process, which an engine may end (default: in one of its own)",
    )
    sub.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="S",
        help="seconds that process may take (default: 600)",
    )

    cli_signing.register(verb)

    # The floors above take as long to import as all of this: a device does not wait for what only a host does.
    for floor in FLOORS:
        if words and words[0] in verbs.choices:
            break
        importlib.import_module(floor).register(verb)
    return parser


def _zoo(args: argparse.Namespace) -> int:
    installed = available_targets()
    rows: list[dict[str, Any]] = []
    for name in zoo.NAMES:
        for shipped in zoo.bundles(name):
            bundle = open_shipped(shipped)
            rows.append(
                {
                    "model": name,
                    "target": shipped.target,
                    "precision": shipped.precision,
                    "megabytes": round(shipped.path.stat().st_size / 1e6, 1),
                    "relative_latency": zoo.latency_here(shipped),
                    "engine_installed": shipped.target in installed,
                    "gate": {n: m.compiled for n, m in bundle.manifest.gate.metrics.items()},
                    "waiver": bundle.manifest.gate.waiver,
                    "file": str(shipped.path),
                }
            )
    if args.json:
        print_json(rows)
        return 0
    print(f"{'MODEL':<16}{'TARGET':<13}{'PRECISION':<11}{'MB':>5}{'LATENCY*':>10}  {'ENGINE':<15}GATE")
    for row in rows:
        gate = "  ".join(f"{name} {value:.3f}" for name, value in sorted(row["gate"].items()))
        gate += "" if row["waiver"] is None else f"  WAIVED: {row['waiver']}"
        engine = "installed" if row["engine_installed"] else "not installed"
        print(
            f"{row['model']:<16}{row['target']:<13}{row['precision']:<11}{row['megabytes']:>5}"
            f"{row['relative_latency']:>10.2f}  {engine:<15}{gate}"
        )
    print("* median of the engine divided by onnxruntime fp32, measured in one run on x86_64")
    return 0


def _predict(args: argparse.Namespace) -> int:
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit must be at least 1, got {args.limit}", remedy="leave it out for all")
    if args.save is not None:
        _make_folder(args.save)
    # The source first: a wrong path should not wait for a model to load.
    with open_source(args.source) as source, ExitStack() as stack:
        model, detector = _models(args, stack)
        if not args.json:
            info = model.info
            print(
                f"{info.name} on {info.target} {info.precision}, {info.device} ({info.chosen})",
                *info.notes,
                sep="\n  ",
                file=sys.stderr,
            )
        # The frames of a source are one stream, to each network that remembers.
        state, before = model.new_state(), None if detector is None else detector.new_state()
        for frame in source:
            boxes = None if detector is None else detector(frame.image, state=before).boxes
            found = model(frame.image, boxes=boxes, state=state)
            if args.json:
                record = {"frame": frame.name, "index": frame.index, "timestamp": round(frame.timestamp, 3)}
                print(json.dumps({**record, **found.to_dict(), **_places(boxes)}), flush=True)
            else:
                print(
                    f"{printable(frame.name)}: {printable(found.describe())}, {found.times.total_ms:.1f} ms",
                    flush=True,
                )
            if args.save is not None:
                picture = annotate(frame.image, found, boxes)
                _save(args.save / _picture_name(frame.name), picture, Path(args.source))
            if args.limit is not None and frame.index + 1 >= args.limit:
                break
    return 0


def _models(args: argparse.Namespace, stack: ExitStack) -> tuple[Model[Any], Model[Detections] | None]:
    """The model asked for, and the detector that finds its faces if it needs one.

    ``--conf`` belongs to whichever of the two finds faces.
    """
    bundle = Bundle.open(args.model) if names_a_file(args.model) else None
    task = (zoo.spec(args.model) if bundle is None else bundle.manifest.spec).task
    confidence = args.conf if faces_of(task) == "found" else None
    model = stack.enter_context(load_asked(args, confidence, bundle))
    if model.task.faces == "found":
        if args.faces is not None:
            raise InputError(f"{model.info.name} finds faces itself", remedy="leave --faces out")
        return model, None
    name = args.faces or (DEFAULT_DETECTOR if model.task.faces == "required" else None)
    if name is None:
        return model, None
    detector: Model[Detections] = load(name, threads=args.threads, confidence=args.conf)
    return model, stack.enter_context(detector)


def _places(boxes: Any) -> dict[str, Any]:
    """Where the faces were that a result of a classifier speaks of."""
    return {} if boxes is None else {"boxes": [[round(float(v), 1) for v in box] for box in boxes]}


def _inspect(args: argparse.Namespace) -> int:
    bundle = find_bundle(args.bundle).bundle
    if args.json:
        signatures = cli_signing.signatures_shown(bundle)
        print_json({**to_plain(bundle.manifest), "sha256": bundle.sha256, "signatures": signatures})
        return 0
    manifest, spec = bundle.manifest, bundle.manifest.spec
    calibration = manifest.calibration
    rows = [
        ("model", f"{spec.name} ({spec.task})"),
        ("identity", bundle.sha256),
        ("labels", ", ".join(spec.labels)),
        ("inputs", ", ".join(map(_tensor, spec.inputs))),
        ("outputs", ", ".join(map(_tensor, spec.outputs))),
        *[("remembers", f"{pair.output} becomes {pair.input} of the next step") for pair in spec.state],
        ("runs on", f"{manifest.target} {manifest.recipe.precision}"),
        ("built with", ", ".join(f"{k} {v}" for k, v in manifest.fingerprint.items())),
        ("producer", manifest.producer),
        ("recipe", _recipe(manifest.recipe)),
        ("calibrated on", f"{calibration.items} pictures, {calibration.sha256[:12]}" if calibration else "-"),
        *(
            [("covering", shown_coverage(calibration.coverage))]
            if calibration and calibration.coverage
            else []
        ),
        *cli_signing.signature_rows(bundle),
        ("licence", spec.licence),
        *[("trained from", line) for line in spec.provenance],
    ]
    for name, value in rows:
        print(f"{name:<14}{value}")
    print_gate(bundle)
    for name, entry in manifest.files.items():
        print(f"  {entry.sha256[:12]} {entry.bytes:>10,}  {name}")
    return 0


def _tensor(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype} {'x'.join(map(str, tensor.shape))}"


def _recipe(recipe: Recipe) -> str:
    """Its name, and what it changes where its name does not say so."""
    fields = to_plain(recipe).items()
    said = [f"{k} {v}" for k, v in fields if k not in ("name", "precision", "calibration_items", "gate")]
    return ", ".join([recipe.name, *said])


def _verify(args: argparse.Namespace) -> int:
    found = find_bundle(args.bundle)
    bundle, path = found.bundle, found.path
    signers = cli_signing.check_asked(args, bundle)
    if not 0 < args.timeout < math.inf:
        raise InputError(f"--timeout must be above 0, got {args.timeout}", remedy="leave it out for 600 s")
    try:
        if args.no_isolation:
            load(bundle).close()
        else:
            # Only there: an engine that crashes on what others made shall not take this process with it. What starts
            # processes is slow to import, and other verbs do not need it.
            from edge_sdk.isolation import prove_in_child

            options = LoadOptions(cache=default_cache())
            prove_in_child(path, bundle, bundle.manifest.target, options, timeout_s=args.timeout)
    except ChecksumMismatch as error:
        if args.json:
            print_json({"bundle": str(path), "hashes": "pass", "golden": "fail", "reason": error.message})
        error.exit_code = 1  # the file is whole; this device answers differently
        raise
    cases = bundle.manifest.golden.cases
    if args.json:
        passed = {"hashes": "pass", "golden": "pass", "signed_by": signers}
        print_json({"bundle": str(path), "sha256": bundle.sha256, **passed})
    else:
        signed = f", signed by {', '.join(signers)}" if signers else ""
        print(
            f"{path}: {len(bundle.files)} files as hashed, {cases} golden case(s) pass on this device{signed}"
        )
    return 0


DEFAULT_DETECTOR = "fer-yolo11n"


def _picture_name(frame: str) -> str:
    """A file name for an annotated frame: the picture's own, or the video's with the frame number."""
    stem, _, number = frame.partition("#")
    if number:
        return f"{Path(stem).stem}-{int(number):06d}.png"
    return frame if Path(frame).suffix.lower() in {".png", ".jpg", ".jpeg"} else frame + ".png"


def _save(path: Path, picture: Image, source: Path) -> None:
    """Write an annotated picture, never over the one it was made from."""
    original = source / path.name if source.is_dir() else source
    if path.exists() and original.exists() and path.samefile(original):
        raise InputError(f"--save would overwrite {original}", remedy="name another folder")
    write_image(path, picture)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make folder {folder}: {error.strerror}", remedy="choose a writable place"
        ) from error
