"""Face software beside the product, on this machine, in one run: latency, first result, memory, size, accuracy.

Every peer runs in a virtual environment of its own, by JSON over stdin and stdout; nothing of it is a dependency of the
project. Environments are made once (minutes; Ultralytics' takes 6 GB) and kept. All peers take turns. Ultralytics
and model_api run the product's own YOLO11n weights, exported by Ultralytics' exporter: only the software differs.

Writes peers.json, peers.md and peers.png into --output.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_benchmarks import environment, module_cli
from edge_benchmarks.frames import FrameSet, frame_set
from edge_sdk.adapter import thread_count
from edge_sdk.cli_common import progress
from edge_sdk.files import write_atomically
from edge_sdk.image import Image
from edge_sdk.schema import to_plain
from edge_sdk.target import LoadOptions
from edge_training.data import fer2013
from peers import catalogue, measure, table
from peers.catalogue import REPOSITORY, WORKERS, Peer
from peers.environments import SIDE, Environments, require_repository

SCHEMA = 1
CALIBRATION_FACES = 192


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runs = REPOSITORY / "runs"
    parser.add_argument("--environments", type=Path, default=runs / "peers-envs", metavar="DIR")
    parser.add_argument("--output", type=Path, default=runs / "peers", metavar="DIR")
    parser.add_argument(
        "--data",
        type=Path,
        default=REPOSITORY.parent / "shared" / "data",
        metavar="DIR",
        help="holds fer2013/ and peers/; without it there is no accuracy, and no mini-XCEPTION",
    )
    parser.add_argument("--frames", type=Path, metavar="DIR", help="your pictures instead of the drawn ones")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--rounds", type=module_cli.positive, default=6, metavar="N", help="default: 6")
    parser.add_argument(
        "--seconds", type=_seconds, default=2.5, metavar="SEC", help="of a turn (default: 2.5)"
    )
    parser.add_argument(
        "--starts", type=module_cli.positive, default=3, metavar="N", help="cold starts (default: 3)"
    )
    parser.add_argument(
        "--rows",
        type=module_cli.positive,
        default=1800,
        metavar="N",
        help="labelled faces (default: 1800 of 3589)",
    )
    parser.add_argument("--prepare", action="store_true", help="make the environments and measure nothing")
    parser.add_argument("--json", action="store_true", help="print JSON for a program to read")
    return module_cli.run_main(lambda: _compare(parser.parse_args(argv)))


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds up to 3600, got {text}")
    return value


def _compare(args: argparse.Namespace) -> int:
    require_repository()
    known = catalogue.read()
    peers = known.chosen(args.peers)
    frames = frame_set(args.frames)
    faces = _faces(args.data)
    environments = Environments(
        args.environments, known, lambda line: print(line, file=sys.stderr, flush=True)
    )
    calibration = (
        [] if faces is None else [_canvas(face) for face in faces.public_test.images[:CALIBRATION_FACES]]
    )
    failed = environments.prepare(peers, calibration)
    if args.prepare:
        for name, why in failed.items():
            print(f"{name}: {why}", file=sys.stderr)
        return 1 if failed else 0
    args.output.mkdir(parents=True, exist_ok=True)
    rows, labels = _rows(faces, args.rows)
    report = _measure(args, peers, environments, failed, frames, rows, labels)
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    write_atomically(args.output / "peers.json", text)
    write_atomically(args.output / "peers.md", table.markdown(report))
    table.picture(report, args.output / "peers.png")
    print(text if args.json else table.markdown(report), end="")
    print(f"wrote {args.output}/peers.json, peers.md, peers.png", file=sys.stderr)
    return 0


def _measure(
    args: argparse.Namespace,
    peers: Sequence[Peer],
    environments: Environments,
    failed: dict[str, str],
    frames: FrameSet,
    rows: Any,
    labels: npt.NDArray[np.int64] | None,
) -> dict[str, Any]:
    started, before = environment.now(), environment.snapshot()
    measured = {peer.name: measure.Measurements(failure=failed.get(peer.name)) for peer in peers}
    for peer in peers:
        if peer.network.startswith("@data/") and not _network(peer, args.data, environments).is_file():
            measured[peer.name].failure = f"no {peer.network.replace('@data', str(args.data))}"
    with tempfile.TemporaryDirectory() as name, progress() as stage:
        folder = Path(name)
        one, all_, faces = folder / "one.npy", folder / "all.npy", folder / "faces.npy"
        np.save(one, np.stack(frames.images[:1]))
        np.save(all_, np.stack(frames.images))
        if rows is not None:
            np.save(faces, rows)

        def start(peer: Peer, file: Path) -> list[str]:
            settings = {
                "network": str(_network(peer, args.data, environments)),
                "target": peer.environment.removeprefix("ours-"),
                "frames": str(file),
                "side": SIDE,
                "scratch": str(environments.root / "settings"),
            }
            return [str(environments.python(peer)), str(WORKERS / peer.worker), json.dumps(settings)]

        measure.cold(peers, measured, start, one, rounds=args.starts, progress=stage)
        measure.latency(
            peers,
            measured,
            start,
            all_,
            rounds=args.rounds,
            seconds=args.seconds,
            rows=None if rows is None else faces,
            progress=stage,
        )
    sizes = {peer.name: environments.installed_mb(peer) for peer in peers if peer.name not in failed}
    table_rows = table.summary(peers, measured, sizes, labels)
    reasons = table.reasons(table_rows)
    return {
        "schema": SCHEMA,
        "verdict": "INVALID" if reasons else "VALID",
        "reasons": reasons,
        "started": started,
        "ended": environment.now(),
        "rounds": args.rounds,
        "seconds": args.seconds,
        "starts": args.starts,
        "frames": {"origin": frames.origin, "distinct": len(frames.images), "sha256": frames.sha256},
        "faces": None if labels is None else {"set": "FER2013 PrivateTest", "rows": len(labels)},
        "machine": to_plain(
            environment.describe(
                modules=(), device_used="CPU", threads=thread_count(LoadOptions()), before=before
            )
        ),
        "peers": table_rows,
        "goals": table.goals(table_rows),
    }


def _network(peer: Peer, data: Path, environments: Environments) -> Path:
    """Path of a peer's network; a zoo name or an empty one is returned as it is."""
    roots = {"@made": environments.made, "@repository": REPOSITORY, "@data": data.resolve()}
    first, _, rest = peer.network.partition("/")
    return roots[first] / rest if first in roots else Path(peer.network)


def _faces(data: Path) -> fer2013.Fer2013 | None:
    """FER2013, where it lies."""
    folder = data / "fer2013"
    return fer2013.read(folder) if folder.is_dir() else None


def _rows(faces: fer2013.Fer2013 | None, count: int) -> tuple[Any, npt.NDArray[np.int64] | None]:
    """Faces of PrivateTest, evenly spaced if not all are asked for, and their labels."""
    if faces is None:
        return None, None
    test = faces.private_test
    chosen = np.linspace(0, len(test) - 1, min(count, len(test))).astype(int)
    return test.images[chosen], test.labels[chosen]


def _canvas(face: npt.NDArray[np.uint8]) -> Image:
    """A face as the network sees it: on its own canvas, at twice its size."""
    from edge_sdk import zoo
    from edge_sdk.tasks import task_of

    inputs, _ = task_of(zoo.spec("fer-yolo11n")).preprocess(face[:, :, None].repeat(3, 2))
    canvas: Image = inputs["pixels"][0].copy()
    return canvas


if __name__ == "__main__":
    sys.exit(main())
