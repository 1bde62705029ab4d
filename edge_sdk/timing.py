"""One clock, and the time that each stage of a frame took."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

now_ns = time.perf_counter_ns
"""Monotonic nanoseconds; the only clock that latencies here are taken with."""


Name = TypeVar("Name", bound=Hashable)
WARM_UP = 10


def take_turns(
    calls: Mapping[Name, Callable[[Any], object]],
    inputs: Sequence[Any],
    rounds: int,
    clock: Callable[[], int] = now_ns,
) -> dict[Name, npt.NDArray[np.int64]]:
    """Nanoseconds of each call, (rounds,), in turns: what disturbs the machine disturbs all of them alike.

    Args:
        calls: such as the ``infer`` of several sessions.
        inputs: given to the calls in turn; all calls of a round get the same.
        rounds: each call runs once in each, after ``WARM_UP`` rounds; the first of a round changes.
        clock: nanoseconds.
    """
    order = list(calls)
    taken = {name: np.empty(rounds, np.int64) for name in order}
    for turn in range(-WARM_UP, rounds):
        value = inputs[turn % len(inputs)]
        first = turn % len(order)
        for name in order[first:] + order[:first]:
            before = clock()
            calls[name](value)
            if turn >= 0:
                taken[name][turn] = clock() - before
    return taken


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Wall-clock nanoseconds that one frame spent in each stage."""

    preprocess_ns: int = 0
    infer_ns: int = 0
    postprocess_ns: int = 0

    @property
    def total_ns(self) -> int:
        """All three stages."""
        return self.preprocess_ns + self.infer_ns + self.postprocess_ns

    @property
    def preprocess_ms(self) -> float:
        """Picture to tensor, milliseconds."""
        return self.preprocess_ns / 1e6

    @property
    def infer_ms(self) -> float:
        """Engine, milliseconds."""
        return self.infer_ns / 1e6

    @property
    def postprocess_ms(self) -> float:
        """Tensors to result, milliseconds."""
        return self.postprocess_ns / 1e6

    @property
    def total_ms(self) -> float:
        """All three stages, milliseconds."""
        return self.total_ns / 1e6
