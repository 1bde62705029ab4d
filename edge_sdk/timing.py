"""One clock, and the time that each stage of a frame took."""

from __future__ import annotations

import time
from dataclasses import dataclass

now_ns = time.perf_counter_ns
"""Monotonic nanoseconds; the only clock that latencies here are taken with."""


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
