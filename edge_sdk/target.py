"""Engines as the runtime sees them: compile on a host, load on a device, infer.

The implementations live one floor up, one file an engine, and are imported by name when they are asked for: a name may
come from a bundle that somebody else made, so only the names listed here, or installed by an entry point of the group
``edge_sdk.targets``, are ever imported.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from edge_sdk.engine_cache import EngineCache
from edge_sdk.errors import InputError, LoadFailed, UnknownTarget, UnsupportedRecipe
from edge_sdk.profile import is_profile, profile_names, read_profile
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.tensors import Array, Tensors, TensorSpec

TARGETS = ("onnxruntime", "openvino", "tflite", "tensorrt")
ENTRY_POINTS = "edge_sdk.targets"
CPU = "CPU"
INFER_REMEDY = "load the model again; report it if it repeats"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled network, in memory.

    Attributes:
        files: file name to content; nothing is ever extracted to a path named in a bundle.
        outputs: names of the spec's outputs in the order in which the engine gives them.
        fingerprint: what it was compiled with (``{"openvino": "2026.4.1"}``); for people and for bug reports.
    """

    files: Mapping[str, bytes]
    outputs: tuple[str, ...]
    fingerprint: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FloatModel:
    """The float network that bundles are built from.

    Attributes:
        spec: what it is.
        onnx: opset-17 graph with the spec's input and outputs.
        tflite: the same network as a float TFLite file; only the tflite target needs it.
        quantized: the network fine-tuned for int8, an opset-17 graph with explicit QDQ and the same tensors; only
            recipes with trained ranges need it.
    """

    spec: ModelSpec
    onnx: Path
    tflite: Path | None = None
    quantized: Path | None = None


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What a device may decide. An engine refuses what it has no such thing for: nothing is left out silently.

    Attributes:
        threads: of the engine for one frame; None takes the cores that this process may use, at most 4.
        cache: where an engine that compiles at load keeps what it compiled; None compiles anew.
        devices: where the engine shall run, such as ``("GPU",)``: one is required; several are tried in this order,
            and the session says which it became and why not those before. Empty: ``("CPU",)``; TensorRT: ``("GPU",)``.
        hint: what OpenVINO tunes for.
        streams: frames that OpenVINO computes side by side; None leaves that to the hint.
        spinning: onnxruntime's idle threads wait in a loop: a little faster, and a core less for camera and others.
        small_memory: onnxruntime gives memory back after each frame instead of keeping its peak: smaller, slower.
        progress: called with (phase, done, of) while TensorRT builds an engine.
        workspace_bytes: scratch memory of such a build; None follows from the memory that is free.
        cuda_graph: TensorRT launches a frame's work as one graph.
    """

    threads: int | None = None
    cache: EngineCache | None = None
    devices: tuple[str, ...] = ()
    hint: Literal["latency", "throughput"] = "latency"
    streams: int | None = None
    spinning: bool = False
    small_memory: bool = False
    progress: Callable[[str, int, int], None] | None = None
    workspace_bytes: int | None = None
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        """Refuse what no engine can do (InputError)."""
        for name, value in (("threads", self.threads), ("streams", self.streams)):
            if value is not None and value < 1:
                raise InputError(
                    f"{name} must be at least 1, got {value}", remedy="leave it out for automatic"
                )
        if self.hint not in ("latency", "throughput"):
            raise InputError(
                f"hint must be 'latency' or 'throughput', got {self.hint!r}", remedy="name one of them"
            )


class Session(Protocol):
    """A loaded network.

    The arrays that ``infer`` returns belong to the session: they hold until its next ``infer`` or ``close``.
    """

    outputs: tuple[TensorSpec, ...]
    input: TensorSpec
    device: str
    """That really runs the network, such as ``"CPU"``, ``"GPU.0"`` or, where they share it, ``"CUDA+CPU"``."""
    notes: tuple[str, ...]
    """What its user should know: devices that were not used and why, operators that no accelerator took."""

    def infer(self, pixels: Array) -> Tensors:
        """Run one frame.

        Args:
            pixels: exactly as ``input`` says, C-contiguous; not checked again.

        Raises:
            InferFailed: the engine failed.
        """
        ...

    def close(self) -> None:
        """Free the engine; a second call does nothing."""
        ...


class Target(Protocol):
    """An engine: one object a module, ``TARGET``."""

    name: str
    distribution: str
    """Extra of face-edge-sdk that installs the engine, for messages."""
    modules: tuple[str, ...]
    """Import names, any one of which provides the engine."""

    def compile(self, model: FloatModel, *, recipe: Recipe, calibration: Sequence[Array]) -> Artifact:
        """Make the artifact of one precision.

        Args:
            model: the float network.
            recipe: precision and calibration.
            calibration: input tensors in the order in which calibration shall see them; empty for float.

        Raises:
            UnsupportedRecipe: the engine's tools cannot do what the recipe asks for; see :func:`check_recipe`.
            CompileFailed: the engine's tools refused the network.
            MissingDependency: a tool is not installed.
        """
        ...

    def load(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> Session:
        """Make a session.

        Raises:
            LoadFailed: the engine refused the artifact, or its tensors are not what the spec says.
            MissingDependency: the engine is not installed.
        """
        ...


class SessionBase:
    """Context management for sessions, and what most of them say of themselves."""

    device: str = CPU
    notes: tuple[str, ...] = ()

    def __enter__(self) -> SessionBase:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()

    def close(self) -> None:
        """Free the engine."""
        raise NotImplementedError


def find_target(name: str) -> Target:
    """The target of this name.

    Raises:
        UnknownTarget: the name is neither ours nor an installed entry point's.
    """
    if name in TARGETS:
        # The one sanctioned look upwards: the runtime states the protocol, the floor above fills it.
        target: Target = importlib.import_module(f"edge_targets.{name}").TARGET
        return target
    from importlib.metadata import entry_points  # slow to import, and only a foreign target needs it

    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            outside: Target = entry.load()
            return outside
    raise UnknownTarget(f"unknown target {name!r}", remedy=f"use one of {', '.join(TARGETS)}")


def engine_of(name: str) -> str:
    """The engine that a target name stands for: the engine itself, or what a board's profile names.

    Args:
        name: of an engine or of a shipped profile, or the path of a user's own profile (``.toml``).

    Raises:
        UnknownTarget: neither an engine nor a profile, or the profile's engine is not installed.
        InputError: the profile breaks its schema.
    """
    if name in TARGETS:
        return name
    if is_profile(name):
        return find_target(read_profile(name).engine).name
    try:
        return find_target(name).name
    except UnknownTarget as error:
        error.remedy = f"use one of {', '.join((*TARGETS, *profile_names()))}, or a profile's .toml file"
        raise


def available_targets() -> tuple[str, ...]:
    """Names of our targets whose engine is installed; found without importing any engine."""
    return tuple(name for name in TARGETS if is_installed(find_target(name)))


def check_options(engine: str, options: LoadOptions, *, known: Collection[str]) -> None:
    """Refuse options that an engine has no such thing for.

    Args:
        engine: name of the target.
        options: that were asked for.
        known: names of the fields that it honours, besides ``threads`` and ``cache``.

    Raises:
        InputError: naming the option.
    """
    for option in fields(LoadOptions):
        value = getattr(options, option.name)
        if option.name not in ("threads", "cache", *known) and value != option.default:
            raise InputError(
                f"target {engine} has no {option.name}, {value!r} was asked for",
                remedy=f"leave {option.name} out, or take another target",
            )


def check_recipe(
    engine: str,
    recipe: Recipe,
    *,
    precisions: Collection[str],
    granularities: Collection[str] = ("channel",),
    methods: Collection[str] = ("minmax",),
    symmetric: Collection[bool | None] = (None,),
    keep_float: bool = False,
) -> None:
    """Refuse a recipe that an engine's tools cannot follow: nothing of it is replaced by what they can.

    Granularity matters where weights become int8, method and symmetry where activations do.

    Args:
        engine: name of the target.
        recipe: that was asked for.
        precisions: that the target can make, and so on for the recipe's other fields.
        granularities: of weights.
        methods: of finding ranges.
        symmetric: kinds of activation ranges.
        keep_float: whether parts can stay in float.

    Raises:
        UnsupportedRecipe: naming the recipe, the target and what does not fit.
    """
    asked: list[tuple[str, object, Collection[object]]] = [("precision", recipe.precision, precisions)]
    if recipe.precision.startswith("int8"):
        asked.append(("granularity", recipe.granularity, granularities))
    if recipe.calibrated or recipe.trained:
        asked += [("method", recipe.method, methods), ("symmetric", recipe.symmetric, symmetric)]
    for name, value, known in asked:
        if value not in known:
            shown = ", ".join(str(k).lower() for k in known if k is not None)
            raise UnsupportedRecipe(
                f"target {engine} cannot follow recipe {recipe.name}: {name} is {str(value).lower()}",
                remedy=f"it can do {shown}" if shown else f"leave {name} out",
            )
    if recipe.keep_float and not keep_float:
        raise UnsupportedRecipe(
            f"target {engine} cannot follow recipe {recipe.name}: it keeps {', '.join(recipe.keep_float)} in float",
            remedy="use a recipe without keep_float, or another target",
        )


def stand_in(target: Target) -> Target | None:
    """The target that runs the same artifact where this one's engine is absent, if there is one.

    A target names it in an attribute ``stand_in``. It never serves unasked: a gate that it ran for says so, and a device
    names it in ``load(prefer=...)``.
    """
    name: str | None = getattr(target, "stand_in", None)
    return None if name is None else find_target(name)


def is_installed(target: Target) -> bool:
    """Whether a target's engine is here; found without importing it."""
    return any(importlib.util.find_spec(module) is not None for module in target.modules)


def check_session_tensors(
    spec: ModelSpec, engine: str, found: Mapping[str, tuple[tuple[int, ...], str]]
) -> None:
    """Raise LoadFailed unless an engine's tensors (name to shape and numpy dtype name) are the spec's."""
    expected = {t.name: (t.shape, t.dtype) for t in (spec.input, *spec.outputs)}
    for name, want in expected.items():
        if found.get(name) != want:
            raise LoadFailed(
                f"{engine}: tensor {name!r} should be {want}, the artifact has {found.get(name)}",
                remedy="the artifact does not belong to this manifest: build the bundle again",
            )
