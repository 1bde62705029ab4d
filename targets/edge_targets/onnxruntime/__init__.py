"""onnxruntime: the portable default, on every processor that has a wheel.

Other execution providers than the processor's run only when they are named, and never hand over to it unseen.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_sdk.adapter import TargetBase, engine_options
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import Artifact, LoadOptions, Ranges, Session, SourceModel, Target
from edge_sdk.tensors import Tensors
from edge_targets.onnxruntime.options import Options


class OnnxRuntime(TargetBase):
    """Target ``onnxruntime``."""

    name = "onnxruntime"
    distribution = "onnxruntime"
    modules: tuple[str, ...] = ("onnxruntime",)
    options = Options

    def calibrate(self, model: SourceModel, *, recipe: Recipe, frames: Sequence[Tensors]) -> Ranges:
        """The ranges of every tensor as onnxruntime's tool writes them; see :class:`edge_sdk.target.Target`."""
        from edge_targets.onnxruntime import compile as host

        return host.calibrate(self, model, recipe, frames)

    def compile(self, model: SourceModel, *, recipe: Recipe, ranges: Ranges | None = None) -> Artifact:
        """Make an ONNX file; see :func:`edge_targets.onnxruntime.compile.compile_network`."""
        from edge_targets.onnxruntime import compile as host

        return host.compile_network(self, model, recipe, ranges)

    def load(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> Session:
        """Make a session; see :class:`edge_sdk.target.Target`."""
        own = engine_options(self, options)
        from edge_targets.onnxruntime.session import OnnxRuntimeSession

        return OnnxRuntimeSession(artifact, spec, options, own)


TARGET: Target = OnnxRuntime()
