"""A bundle loaded and proven in a process of its own first: an engine that crashes on it becomes an error.

Engines are native code that was not written for hostile files. ``python -m edge_sdk.isolation`` is the child.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from edge_sdk import errors
from edge_sdk.bundle import SUFFIX, Bundle
from edge_sdk.child import Ended, run_python
from edge_sdk.engine_cache import EngineCache
from edge_sdk.errors import ChecksumMismatch, EdgeError, InputError, LoadFailed
from edge_sdk.target import LoadOptions, find_target
from edge_sdk.verify import load_proven

TIMEOUT_S = 600.0
"""A child that takes longer is killed. An engine that compiles when it loads may take minutes."""


def prove_in_child(
    path: Path | None,
    bundle: Bundle,
    target: str,
    options: LoadOptions,
    *,
    verify: bool = True,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Load a bundle, and run its golden vectors, in a process that may die of it.

    Args:
        path: of the bundle; the child reads it itself. None for one that has no file: it is written to one for so long.
        bundle: as read here; the child must find the same.
        target: name of the engine.
        options: what the engine shall be loaded with; ``progress`` is not reported.
        verify: run the golden vectors.
        timeout_s: seconds after which the child is killed.

    Raises:
        LoadFailed: the engine died, naming the signal, or gave no answer in time.
        EdgeError: what loading it here would have raised.
        InputError: an engine option that JSON cannot hold.
    """
    if path is None:
        with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
            written = Path(folder) / f"{bundle.manifest.spec.name}{SUFFIX}"
            bundle.write(written)
            return prove_in_child(written, bundle, target, options, verify=verify, timeout_s=timeout_s)
    cache = options.cache
    try:
        request = json.dumps(
            {
                "bundle": os.fspath(path),
                "sha256": bundle.sha256,
                "target": target,
                "threads": options.threads,
                "devices": list(options.devices),
                "engine": dict(options.engine),
                "cache": None if cache is None else [os.fspath(cache.folder), cache.limit_bytes],
                "verify": verify,
            }
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"engine options {dict(options.engine)!r} cannot be handed to another process: {error}",
            remedy="give numbers, texts and booleans, or load without isolated",
        ) from error
    ended = run_python(("-m", "edge_sdk.isolation", request), timeout_s=timeout_s)
    if ended.problem is not None:
        raise LoadFailed(
            f"{target} {ended.problem} in a process of its own when it loaded {path}"
            + (f": {ended.said}" if ended.said and ended.code else ""),
            remedy="allow it more time if this engine compiles when it loads; do not use the bundle otherwise"
            if ended.timed_out
            else "do not use this bundle here, unless 'edge-sdk doctor' finds that the engine itself cannot start",
        )
    if (refused := _told(ended)) is not None:
        raise refused


def _told(ended: Ended) -> EdgeError | None:
    """The error that a child reports in its last line; None where it found none."""
    try:
        answer = json.loads(ended.lines[-1])
        kind, message, remedy = answer["error"], answer["message"], answer["remedy"]
    except (IndexError, KeyError, TypeError, ValueError):
        return LoadFailed("the process that should try the bundle gave no answer", remedy="report it")
    if kind is None:
        return None
    cls = getattr(errors, kind, LoadFailed)
    return cls(message, remedy=remedy) if issubclass(cls, EdgeError) else LoadFailed(message, remedy=remedy)


def _prove(request: dict[str, Any]) -> None:
    bundle = Bundle.open(request["bundle"])
    if bundle.sha256 != request["sha256"]:
        raise ChecksumMismatch(
            f"{request['bundle']} changed while it was examined",
            remedy="let nobody write to the folder of a bundle that is loaded",
        )
    cache = None
    if request["cache"] is not None:
        folder, limit_bytes = request["cache"]
        cache = EngineCache(Path(folder), limit_bytes=limit_bytes)
    options = LoadOptions(request["threads"], cache, tuple(request["devices"]), request["engine"])
    session, _ = load_proven(bundle, find_target(request["target"]), options, verify=request["verify"])
    session.close()


def _leave_no_core() -> None:
    """A crash is expected here: its memory is not worth a file."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> int:
    """Answer a request with one line of JSON."""
    _leave_no_core()
    answer: dict[str, str | None] = {"error": None, "message": "", "remedy": ""}
    try:
        _prove(json.loads(sys.argv[1]))
    except EdgeError as error:
        answer = {"error": type(error).__name__, "message": error.message, "remedy": error.remedy}
    # Engines may have written to stdout, and not ended their line.
    sys.stdout.write(f"\n{json.dumps(answer)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
