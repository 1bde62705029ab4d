"""Engines as the runtime sees them: calibrate and compile on a host, load on a device, infer.

The implementations live one floor up, one folder per engine, and are imported by name when they are asked for: a name
may come from a bundle that somebody else made, so only the engines that are folders there, or that an installed package
brings by an entry point of the group ``edge_sdk.targets``, are ever imported. What an implementation is built from is in
:mod:`edge_sdk.adapter`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edge_sdk.engine_cache import EngineCache
from edge_sdk.errors import InputError, UnknownTarget
from edge_sdk.profile import is_profile, profile_names, read_profile
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.state import State
from edge_sdk.tensors import Tensors, TensorSpec

PACKAGE = "edge_targets"
ENTRY_POINTS = "edge_sdk.targets"
CPU = "CPU"
Progress = Callable[[str, int, int], None]
"""Called with a phase's name, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled network, in memory.

    Attributes:
        files: file name to content; nothing is ever extracted to a path named in a bundle.
        inputs: names of the spec's inputs in the order in which the engine takes them.
        outputs: names of the spec's outputs in the order in which the engine gives them.
        fingerprint: what it was compiled with (``{"openvino": "2026.4.1"}``), for bug reports.
    """

    files: Mapping[str, bytes]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fingerprint: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceModel:
    """The float network that bundles are built from.

    Attributes:
        spec: what it is.
        onnx: opset-17 graph with the spec's inputs and outputs by name.
        tflite: the same network as a float TFLite file; only the tflite target needs it.
        quantized: the network fine-tuned for int8, an opset-17 graph with explicit QDQ and the same tensors; only
            recipes with trained ranges need it.
    """

    spec: ModelSpec
    onnx: Path
    tflite: Path | None = None
    quantized: Path | None = None


@dataclass(frozen=True, slots=True)
class Ranges:
    """What calibration found: the ranges of activations, for any number of compilations.

    Attributes:
        target: name of the target that calibrated; no other can read the content.
        content: the target's own form of it.
    """

    target: str
    content: Any


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What a device may decide. What an engine does not have it refuses: nothing is left out silently.

    Attributes:
        threads: of the engine for one frame; None takes the cores that this process may use, at most 4.
        cache: where an engine that compiles at load keeps what it compiled; None compiles anew.
        devices: where the engine shall run, such as ``("GPU",)``: one is required; several are tried in this order,
            and the session says which it became and why not those before. Empty: the engine's first choice.
        engine: the engine's own options by name, such as ``{"hint": "throughput"}`` for OpenVINO: the fields of its
            dataclass ``Target.options``, which ``edge-sdk doctor`` lists.
        progress: called as an engine that compiles at load goes on; others never call it.
    """

    threads: int | None = None
    cache: EngineCache | None = None
    devices: tuple[str, ...] = ()
    engine: Mapping[str, object] = field(default_factory=dict)
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """Refuse what no engine can do (InputError)."""
        if self.threads is not None and self.threads < 1:
            raise InputError(
                f"threads must be at least 1, got {self.threads}", remedy="leave it out for automatic"
            )


class Session(Protocol):
    """A loaded network.

    The arrays that ``infer`` returns belong to the session: they hold until its next ``infer`` or ``close``.
    :class:`edge_sdk.adapter.SessionBase` has everything but ``infer`` and ``close``.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    device: str
    """That really runs the network, such as ``"CPU"``, ``"GPU.0"`` or, where they share it, ``"CUDA+CPU"``."""
    notes: tuple[str, ...]
    """What its user should know: devices that were not used and why, operators that no accelerator took."""
    built: bool | None
    """Whether this load compiled the engine; False where it came from the cache, None where nothing is compiled."""
    cached: bool | None
    """Whether the next load finds it in the cache; None where nothing is compiled."""

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one frame.

        Args:
            inputs: every input by name, exactly as ``inputs`` says, C-contiguous; not checked again.

        Raises:
            InferFailed: the engine failed.
        """
        ...

    def vendor_call(self, inputs: Tensors) -> Callable[[], object]:
        """The engine's own call as its manual does it, on this session's engine, ready to be timed beside ``infer``.

        Raises:
            InputError: the adapter offers none.
        """
        ...

    def close(self) -> None:
        """Free the engine; a second call does nothing."""
        ...


class Target(Protocol):
    """An engine: one object per package, ``TARGET``; :class:`edge_sdk.adapter.TargetBase` has the defaults."""

    name: str
    distribution: str
    """Extra of face-edge-sdk that installs the engine, for messages."""
    modules: tuple[str, ...]
    """Import names, any one of which provides the engine."""
    options: type[Any]
    """Dataclass of the engine's own load options; its ``__post_init__`` refuses bad values by InputError."""
    stand_in: str | None
    """Target that runs the same artifact where this engine is absent. It never serves unasked: a gate that it ran for
    says so, and a device names it in ``load(prefer=...)``."""

    def calibrate(self, model: SourceModel, *, recipe: Recipe, frames: Sequence[Tensors]) -> Ranges:
        """Find the ranges of activations, whatever the recipe keeps in float.

        Args:
            model: the float network.
            recipe: says by which method; its ``keep_float`` plays no part.
            frames: inputs in the order in which calibration shall see them.

        Raises:
            UnsupportedRecipe: the engine's tools cannot do what the recipe asks for.
            CompileFailed: the engine's tools refused the network.
            MissingDependency: a tool is not installed.
        """
        ...

    def compile(self, model: SourceModel, *, recipe: Recipe, ranges: Ranges | None = None) -> Artifact:
        """Make the artifact of one precision.

        Args:
            model: the float network.
            recipe: precision, and what stays in float.
            ranges: from this target's ``calibrate`` by the same method, for a recipe that quantizes activations.

        Raises:
            UnsupportedRecipe: the engine's tools cannot do what the recipe asks for; see ``check_recipe``.
            CompileFailed: the engine's tools refused the network.
            MissingDependency: a tool is not installed.
        """
        ...

    def load(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> Session:
        """Make a session.

        Raises:
            InputError: an option that the engine does not have, or a value that it cannot take.
            LoadFailed: the engine refused the artifact, or its tensors are not what the spec says.
            MissingDependency: the engine is not installed.
        """
        ...

    def starts_at_once(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> bool:
        """Whether a load takes no longer than any; False for one that would compile for minutes, or would fail."""
        ...


def infer(session: Session, inputs: Tensors, state: State | None = None) -> Tensors:
    """One step of a network: with what it remembers among the inputs, and remembered anew afterwards.

    Args:
        session: the loaded network.
        inputs: those that are not state.
        state: what a recurrent network remembers, updated; None for a network without state.
    """
    if state is None:
        return session.infer(inputs)
    outputs = session.infer({**inputs, **state.tensors})
    state.update(outputs)
    return outputs


def target_names() -> tuple[str, ...]:
    """Our engines: the folders of the floor above that have a ``session.py``, in the order of names.

    Found without importing any of them.
    """
    found = importlib.util.find_spec(PACKAGE)
    folders = () if found is None else found.submodule_search_locations or ()
    return tuple(sorted(p.parent.name for folder in folders for p in Path(folder).glob("*/session.py")))


def find_target(name: str) -> Target:
    """The target of this name.

    Raises:
        UnknownTarget: the name is neither ours nor an installed entry point's.
    """
    if name in target_names():
        # The one sanctioned look upwards: the runtime states the protocol, the floor above fills it.
        target: Target = importlib.import_module(f"{PACKAGE}.{name}").TARGET
        return target
    from importlib.metadata import entry_points  # slow to import, and only a foreign target needs it

    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            outside: Target = entry.load()
            return outside
    raise UnknownTarget(f"unknown target {name!r}", remedy=f"use one of {', '.join(target_names())}")


def engine_of(name: str) -> str:
    """The engine that a target name stands for: the engine itself, or what a board's profile names.

    Args:
        name: of an engine or of a shipped profile, or the path of a user's own profile (``.toml``).

    Raises:
        UnknownTarget: neither an engine nor a profile, or the profile's engine is not installed.
        InputError: the profile breaks its schema.
    """
    if name in target_names():
        return name
    if is_profile(name):
        return find_target(read_profile(name).engine).name
    try:
        return find_target(name).name
    except UnknownTarget as error:
        error.remedy = (
            f"use one of {', '.join((*target_names(), *profile_names()))}, or a profile's .toml file"
        )
        raise


def available_targets() -> tuple[str, ...]:
    """Names of our targets whose engine is installed; found without importing any engine."""
    return tuple(name for name in target_names() if is_installed(find_target(name)))


def stand_in_of(target: Target) -> Target | None:
    """The target that runs the same artifact where this one's engine is absent, if there is one."""
    return None if target.stand_in is None else find_target(target.stand_in)


def is_installed(target: Target) -> bool:
    """Whether a target's engine is here; found without importing it."""
    return any(importlib.util.find_spec(module) is not None for module in target.modules)
