"""A peer's process as its parent sees it: each request gets an answer within a time limit, or the process is ended."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any

from edge_sdk.errors import InferFailed
from edge_sdk.reporting import SWITCHES
from edge_sdk.timing import now_ns

START_S = 180.0
ANSWER_S = 300.0


def clean_environment() -> dict[str, str]:
    """This process's environment variables without those that would show a peer our own packages.

    The peers' engines report to nobody either, nor do they look for what they could fetch.
    """
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, **SWITCHES, "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}


class PeerProcess:
    """A started peer that has answered its first frame.

    Args:
        arguments: interpreter, worker and settings.
        limit_s: seconds that its first answer may take.

    Attributes:
        ready: what the worker said of its start.
        started_ns: from before the process existed to the arrival of that line.

    Raises:
        InferFailed: it ended, printed something else, or took too long.
    """

    def __init__(self, arguments: Sequence[str], *, limit_s: float = START_S) -> None:
        # A file takes what libraries print: a pipe that nobody reads would stop them. Closed with the process.
        self._chatter: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        before = now_ns()
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._chatter,
            env=clean_environment(),
        )
        self._rest = b""
        try:
            self.ready: dict[str, Any] = self._answer(limit_s)
        except BaseException:
            self.close()
            raise
        self.started_ns = now_ns() - before

    def ask(self, request: Mapping[str, Any], *, limit_s: float = ANSWER_S) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            InferFailed: the process ended, or took too long and was stopped.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is gone: reading says why
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        return self._answer(limit_s)

    def _answer(self, limit_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        source, end = self._process.stdout.fileno(), time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(source, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(0.0, end - time.monotonic())):
                    self._process.kill()
                    raise self._failure(f"gave no answer within {limit_s:g} s")
                piece = os.read(source, 1 << 20)
                if not piece:
                    raise self._failure("ended")
                self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            answer: dict[str, Any] = json.loads(line)
            return answer
        except ValueError:
            raise self._failure(f"said {line[:80]!r}") from None

    def _failure(self, what: str) -> InferFailed:
        self._chatter.seek(0)
        said = self._chatter.read().decode(errors="replace").strip().splitlines()
        return InferFailed(
            f"the process {what}: {said[-1] if said else 'it printed nothing'}",
            remedy="run its worker by hand in its environment to see more",
        )

    def close(self) -> None:
        """End the process; one that does not end by itself is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._chatter.close()

    def __enter__(self) -> PeerProcess:
        """Return the process."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()
