"""LiteRT (TensorFlow Lite): Raspberry Pi and other small ARM boards.

The device runs ``ai-edge-litert``, or the older ``tflite-runtime`` where only that is installed.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_sdk.adapter import TargetBase, engine_options
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import Artifact, LoadOptions, Ranges, Session, SourceModel, Target
from edge_sdk.tensors import Tensors


class Tflite(TargetBase):
    """Target ``tflite``; it has no load options of its own."""

    name = "tflite"
    distribution = "tflite"
    modules: tuple[str, ...] = ("ai_edge_litert", "tflite_runtime")

    def calibrate(self, model: SourceModel, *, recipe: Recipe, frames: Sequence[Tensors]) -> Ranges:
        """The ranges of every tensor as ai-edge-quantizer keeps them; see :class:`edge_sdk.target.Target`."""
        from edge_targets.tflite import compile as host

        return host.calibrate(self, model, recipe, frames)

    def compile(self, model: SourceModel, *, recipe: Recipe, ranges: Ranges | None = None) -> Artifact:
        """Make a TFLite file; see :func:`edge_targets.tflite.compile.compile_network`."""
        from edge_targets.tflite import compile as host

        return host.compile_network(self, model, recipe, ranges)

    def load(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> Session:
        """Make a session; see :class:`edge_sdk.target.Target`."""
        engine_options(self, options)
        from edge_targets.tflite.session import TfliteSession

        return TfliteSession(artifact, spec, options)


TARGET: Target = Tflite()
