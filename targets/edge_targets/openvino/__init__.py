"""OpenVINO: Intel processors, graphics and NPUs, and a fast choice on other x86 and ARM processors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edge_sdk.adapter import TargetBase, engine_options
from edge_sdk.errors import InputError
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import Artifact, LoadOptions, Ranges, Session, SourceModel, Target
from edge_sdk.tensors import Tensors


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


class OpenVino(TargetBase):
    """Target ``openvino``."""

    name = "openvino"
    distribution = "openvino"
    modules: tuple[str, ...] = ("openvino",)
    options = Options

    def calibrate(self, model: SourceModel, *, recipe: Recipe, frames: Sequence[Tensors]) -> Ranges:
        """The frames themselves, since NNCF calibrates while it quantizes; see :class:`edge_sdk.target.Target`."""
        from edge_targets.openvino import compile as host

        host.check(recipe)
        return super().calibrate(model, recipe=recipe, frames=frames)

    def compile(self, model: SourceModel, *, recipe: Recipe, ranges: Ranges | None = None) -> Artifact:
        """Make IR; see :func:`edge_targets.openvino.compile.compile_network`."""
        from edge_targets.openvino import compile as host

        return host.compile_network(model, recipe, ranges)

    def load(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> Session:
        """Make a session; see :class:`edge_sdk.target.Target`."""
        own = engine_options(self, options)
        from edge_targets.openvino.session import OpenVinoSession

        return OpenVinoSession(artifact, spec, options, own)


TARGET: Target = OpenVino()
