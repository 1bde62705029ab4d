"""TensorRT: NVIDIA's Jetson boards, and other machines with its GPUs.

A bundle holds ONNX and never a plan, which is native code tied to a GPU and a version: the plan is built on the device,
once, and kept in the engine cache. ``docs/jetson.md`` is the user's text.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_sdk.adapter import TargetBase, engine_options
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import Artifact, LoadOptions, Ranges, Session, SourceModel, Target
from edge_sdk.tensors import Tensors
from edge_targets.tensorrt.options import Options


class TensorRt(TargetBase):
    """Target ``tensorrt``."""

    name = "tensorrt"
    distribution = "tensorrt"
    modules: tuple[str, ...] = ("tensorrt",)
    options = Options
    # On a build host, and while a device builds its plan.
    stand_in: str | None = "onnxruntime"

    def calibrate(self, model: SourceModel, *, recipe: Recipe, frames: Sequence[Tensors]) -> Ranges:
        """Name of each activation to its largest magnitude; see :class:`edge_sdk.target.Target`."""
        from edge_targets.tensorrt import compile as host

        return host.calibrate(self, model, recipe, frames)

    def compile(self, model: SourceModel, *, recipe: Recipe, ranges: Ranges | None = None) -> Artifact:
        """Make the ONNX from which a device builds; see :func:`edge_targets.tensorrt.compile.compile_network`."""
        from edge_targets.tensorrt import compile as host

        return host.compile_network(self, model, recipe, ranges)

    def load(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> Session:
        """Make a session; see :class:`edge_sdk.target.Target`."""
        own = engine_options(self, options)
        from edge_targets.tensorrt.session import TensorRtSession

        return TensorRtSession(artifact, spec, options, own)

    def starts_at_once(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> bool:
        """Whether a load finds its plan in the cache and builds nothing; False too where the load would fail."""
        from edge_targets.tensorrt.session import is_built

        return is_built(artifact, spec, options, engine_options(self, options))


TARGET: Target = TensorRt()
