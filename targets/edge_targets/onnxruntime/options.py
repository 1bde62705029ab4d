"""The load options that onnxruntime alone has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """What onnxruntime alone has.

    Attributes:
        spinning: idle threads wait in a loop: a little faster, and a core less for the camera and other programs.
        small_memory: memory is given back after each frame instead of kept at its peak: smaller, slower.
    """

    spinning: bool = False
    small_memory: bool = False
