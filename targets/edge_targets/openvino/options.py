"""The load options that OpenVINO alone has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_sdk.errors import InputError


@dataclass(frozen=True, slots=True)
class Options:
    """What OpenVINO alone has.

    Attributes:
        hint: what it tunes for: the time of one frame, or frames per second.
        streams: frames that it computes side by side, at least 1; None leaves that to the hint.
    """

    hint: Literal["latency", "throughput"] = "latency"
    streams: int | None = None

    def __post_init__(self) -> None:
        """Refuse what OpenVINO cannot do (InputError)."""
        if self.hint not in ("latency", "throughput"):
            raise InputError(
                f"hint must be 'latency' or 'throughput', got {self.hint!r}", remedy="name one of them"
            )
        if self.streams is not None and self.streams < 1:
            raise InputError(
                f"streams must be at least 1, got {self.streams}", remedy="leave it out for automatic"
            )
