"""All peers in turns, so that what disturbs the machine disturbs them alike.

cold        fresh processes: from starting Python to the first frame's answer, page cache kept, the first round not
            counted; then 50 frames of one picture, and the peak of the resident set.
latency     all processes live, one works at a time: closed loop over the frames, the order changing with every round.
expressions the same labelled faces through every peer that names expressions; a face not found is a wrong answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_benchmarks.environment import core_seconds
from edge_sdk.errors import InferFailed
from edge_sdk.timing import now_ns
from peers.catalogue import Peer
from peers.processes import PeerProcess

MEMORY_FRAMES = 50
DISCARD = 8
"""Frames at the start of a turn that do not count: the caches still belong to the peer before."""

Command = Callable[[Peer, Path], list[str]]
"""Arguments that start a peer's process on a file of frames."""
Progress = Callable[[str, int, int], None]


@dataclass
class Measurements:
    """What was measured of one peer.

    Attributes:
        cold_ns: nanoseconds from process start to the first answer, one value per process.
        peak: bytes of the peak resident set after 50 frames, one value per process.
        end_to_end_ns: nanoseconds of every frame, one array per round.
        engine_ns: nanoseconds of the engine within them; None where they cannot be told apart.
        faces: number of faces reported in all rounds.
        background: share of all cores' time that other processes took during its turns, 0 to 1; None if unknown.
        answers: class index of each labelled face, -1 where none was found; None if it names no expressions.
        failure: why something is missing.
    """

    cold_ns: list[int] = field(default_factory=list)
    peak: list[int] = field(default_factory=list)
    end_to_end_ns: list[npt.NDArray[np.int64]] = field(default_factory=list)
    engine_ns: list[npt.NDArray[np.int64]] | None = field(default_factory=list)
    faces: int = 0
    background: float | None = None
    answers: npt.NDArray[np.int64] | None = None
    failure: str | None = None

    @property
    def frames(self) -> int:
        """Number of frames measured in all rounds."""
        return sum(len(ns) for ns in self.end_to_end_ns)


def cold(
    peers: Sequence[Peer],
    measured: Mapping[str, Measurements],
    command: Command,
    frames: Path,
    *,
    rounds: int,
    progress: Progress,
) -> None:
    """Start every peer ``rounds`` times after one that does not count; a peer that fails is not started again."""
    for turn in range(-1, rounds):
        for index, peer in enumerate(_rotated(peers, turn)):
            progress("start", (turn + 1) * len(peers) + index, (rounds + 1) * len(peers))
            mine = measured[peer.name]
            if mine.failure is not None:
                continue
            try:
                with PeerProcess(command(peer, frames)) as process:
                    process.ask({"do": "run", "frames": MEMORY_FRAMES, "discard": 0})
                    peak = process.ask({"do": "memory"})["peak"]
            except InferFailed as error:
                mine.failure = error.message
                continue
            if turn >= 0:
                mine.cold_ns.append(process.started_ns)
                mine.peak.append(peak)


def latency(
    peers: Sequence[Peer],
    measured: Mapping[str, Measurements],
    command: Command,
    frames: Path,
    *,
    rounds: int,
    seconds: float,
    rows: Path | None,
    progress: Progress,
) -> None:
    """Closed loops in turns, then the labelled faces of ``rows``; a peer that fails keeps what it has."""
    alive: dict[str, PeerProcess] = {}
    others: dict[str, _BackgroundLoad] = {}
    with ExitStack() as stack:
        for index, peer in enumerate(peers):
            progress("load", index, len(peers))
            if measured[peer.name].failure is None:
                try:
                    alive[peer.name] = stack.enter_context(PeerProcess(command(peer, frames)))
                    others[peer.name] = _BackgroundLoad()
                except InferFailed as error:
                    measured[peer.name].failure = error.message

        def ask(name: str, request: Mapping[str, Any]) -> dict[str, Any] | None:
            try:
                return alive[name].ask(request)
            except InferFailed as error:
                measured[name].failure = error.message
                del alive[name]
                return None

        # The first round warms up: it is not counted.
        for turn in range(-1, rounds):
            for index, peer in enumerate(_rotated(peers, turn)):
                progress("latency", (turn + 1) * len(peers) + index, (rounds + 1) * len(peers))
                if peer.name not in alive:
                    continue
                request = {
                    "do": "run",
                    "seconds": seconds if turn >= 0 else min(1.0, seconds),
                    "discard": DISCARD,
                }
                others[peer.name].begin()
                answer = ask(peer.name, request)
                if answer is None or turn < 0:
                    continue
                others[peer.name].end(answer["cpu_ns"])
                _note(measured[peer.name], answer)
        for index, peer in enumerate(peers):
            progress("expressions", index, len(peers))
            if rows is not None and peer.name in alive:
                answer = ask(peer.name, {"do": "expressions", "rows": str(rows)})
                if answer is not None and answer["answers"] is not None:
                    measured[peer.name].answers = np.array(answer["answers"], np.int64)
        for name, seen in others.items():
            measured[name].background = seen.share


def _note(mine: Measurements, answer: Mapping[str, Any]) -> None:
    mine.end_to_end_ns.append(np.array(answer["end_to_end_ns"], np.int64))
    mine.faces += answer["faces"]
    if answer["engine_ns"] is None:
        mine.engine_ns = None
    elif mine.engine_ns is not None:
        mine.engine_ns.append(np.array(answer["engine_ns"], np.int64))


def _rotated(peers: Sequence[Peer], turn: int) -> list[Peer]:
    """The peers, beginning with another one in every round."""
    first = turn % len(peers) if peers else 0
    return [*peers[first:], *peers[:first]]


class _BackgroundLoad:
    """Share of all cores' time that other processes took during one peer's turns."""

    def __init__(self) -> None:
        self._total = self._rest = 0.0
        self._start: tuple[int, float] | None = None

    def begin(self) -> None:
        """A turn starts."""
        cores = core_seconds()
        self._start = None if cores is None else (now_ns(), cores.busy)

    def end(self, own_ns: int) -> None:
        """It is over, and the peer itself took so much processor time."""
        cores = core_seconds()
        if self._start is None or cores is None:
            return
        self._total += (now_ns() - self._start[0]) / 1e9 * (os.cpu_count() or 1)
        self._rest += cores.busy - self._start[1] - own_ns / 1e9

    @property
    def share(self) -> float | None:
        """0..1, or None where the machine does not say."""
        return min(1.0, max(0.0, self._rest / self._total)) if self._total else None
