"""OpenVINO: Intel processors, graphics and NPUs, and a fast choice on other x86 and ARM processors."""

from __future__ import annotations

from collections.abc import Sequence

from edge_sdk.adapter import TargetBase, engine_options
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import Artifact, LoadOptions, Ranges, Session, SourceModel, Target
from edge_sdk.tensors import Tensors
from edge_targets.openvino.options import Options


class OpenVino(TargetBase):
    """Target ``openvino``."""

    name = "openvino"
    distribution = "openvino"
    modules: tuple[str, ...] = ("openvino",)
    options = Options

    def calibrate(self, model: SourceModel, *, recipe: Recipe, frames: Sequence[Tensors]) -> Ranges:
        """The frames themselves, since NNCF calibrates while it quantizes; see :class:`edge_sdk.target.Target`."""
        from edge_targets.openvino import compile as host

        host.check(self, recipe)
        return super().calibrate(model, recipe=recipe, frames=frames)

    def compile(self, model: SourceModel, *, recipe: Recipe, ranges: Ranges | None = None) -> Artifact:
        """Make IR; see :func:`edge_targets.openvino.compile.compile_network`."""
        from edge_targets.openvino import compile as host

        return host.compile_network(self, model, recipe, ranges)

    def load(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> Session:
        """Make a session; see :class:`edge_sdk.target.Target`."""
        own = engine_options(self, options)
        from edge_targets.openvino.session import OpenVinoSession

        return OpenVinoSession(artifact, spec, options, own)


TARGET: Target = OpenVino()
