"""What an engine's adapter is built from, ours and those of other packages: base classes, checks, translated errors.

``docs/add-a-target.md`` is the guide; everything in ``__all__`` is public and stable like the rest of the surface.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_sdk.errors import EdgeError, InputError, LoadFailed, ManifestInvalid, UnsupportedRecipe
from edge_sdk.ownership import Ownership
from edge_sdk.schema import from_plain
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import CPU, Artifact, LoadOptions, Ranges, SourceModel, Target
from edge_sdk.tensors import Tensors, TensorSpec

__all__ = [
    "INFER_REMEDY",
    "NoOptions",
    "Ownership",
    "SessionBase",
    "TargetBase",
    "check_recipe",
    "check_session_tensors",
    "content_of",
    "engine_options",
    "refuse_devices",
    "thread_count",
    "vendor_errors",
]

INFER_REMEDY = "load the model again; report it if it repeats"
BUDGET_VARIABLE = "EDGE_SDK_THREADS"
"""Environment variable: no engine of the process may take more threads than this."""
MAX_AUTOMATIC = 4
"""More threads than this make a small network slower on boards with unequal cores."""
_CGROUP = Path("/sys/fs/cgroup")


class SessionBase:
    """A context manager, and what most sessions say of themselves.

    A subclass sets ``inputs`` and ``outputs`` and has ``infer`` and ``close``, which ask an
    :class:`edge_sdk.ownership.Ownership` whether it is their turn.
    """

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    device: str = CPU
    notes: tuple[str, ...] = ()
    built: bool | None = None
    cached: bool | None = None

    def __enter__(self) -> SessionBase:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()

    def vendor_call(self, inputs: Tensors) -> Callable[[], object]:
        """See :class:`edge_sdk.target.Session`; by default there is none."""
        raise InputError(
            f"{type(self).__name__} offers no call of its engine's own to compare with",
            remedy="give the session a vendor_call, or compare another target",
        )

    def close(self) -> None:
        """Free the engine."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, slots=True)
class NoOptions:
    """The options of an engine that has none of its own."""


class TargetBase:
    """A target's defaults; a subclass sets the names and has ``compile`` and ``load``."""

    name: str
    distribution: str
    modules: tuple[str, ...]
    options: type[Any] = NoOptions
    stand_in: str | None = None

    def calibrate(self, model: SourceModel, *, recipe: Recipe, frames: Sequence[Tensors]) -> Ranges:
        """The frames themselves: for an engine whose tool calibrates while it quantizes."""
        return Ranges(self.name, tuple(frames))

    def starts_at_once(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> bool:
        """True: an engine that compiles for minutes when it loads says otherwise."""
        return True


def content_of(target: Target, ranges: Ranges | None) -> Any:
    """The content of ranges that this target made.

    Raises:
        InputError: there are none, or another target made them.
    """
    if ranges is None or ranges.target != target.name:
        found = "none" if ranges is None else f"those of {ranges.target}"
        raise InputError(
            f"target {target.name} needs the ranges that it calibrated, {found} came",
            remedy="call its calibrate first",
        )
    return ranges.content


def engine_options(target: Target, options: LoadOptions) -> Any:
    """The engine's own options as an instance of its dataclass.

    Args:
        target: whose ``options`` is the dataclass.
        options: with ``engine``, names to values.

    Raises:
        InputError: the engine has no such option, or not this value; lists those that it has.
    """
    known = [f.name for f in dataclasses.fields(target.options)]
    have = f"its options: {', '.join(known)}" if known else "it has no options of its own"
    if unknown := sorted(set(options.engine) - set(known)):
        raise InputError(
            f"target {target.name} has no option {unknown[0]!r}, {options.engine[unknown[0]]!r} was asked for",
            remedy=f"leave it out, or take another target; {have}",
        )
    try:
        return from_plain(target.options, dict(options.engine), f"options of {target.name}")
    except ManifestInvalid as error:
        raise InputError(error.message, remedy=f"correct the value; {have}") from error


def refuse_devices(engine: str, devices: Sequence[str], *, only: str = CPU) -> None:
    """Raise LoadFailed unless every device asked for is the only one that an engine has."""
    for device in devices:
        if device != only:
            raise LoadFailed(
                f"the {engine} target runs on {only} alone, {device} was required", remedy=f"ask for {only}"
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
        precisions: that the target can make.
        granularities: of weights that it can make.
        methods: of finding ranges that it has.
        symmetric: kinds of activation ranges that it can make.
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


def check_session_tensors(
    spec: ModelSpec, engine: str, found: Mapping[str, tuple[tuple[int, ...], str]]
) -> None:
    """Raise LoadFailed unless an engine's tensors are the spec's.

    Args:
        spec: of the network.
        engine: name of the target.
        found: name of each tensor that the engine has to its shape and numpy dtype name.
    """
    expected = {t.name: (t.shape, t.dtype) for t in (*spec.inputs, *spec.outputs)}
    for name in (*expected, *(n for n in found if n not in expected)):
        if found.get(name) != expected.get(name):
            raise LoadFailed(
                f"{engine}: tensor {name!r} should be {expected.get(name)}, the artifact has {found.get(name)}",
                remedy="the artifact does not belong to this manifest: build the bundle again",
            )


@contextmanager
def vendor_errors(engine: str, cls: type[EdgeError], what: str, remedy: str) -> Iterator[None]:
    """Raise ``cls``, chained, for any exception of an engine; our own pass.

    For compiling and loading: on a frame's path a context manager costs 35 us when caches are cold.

    Args:
        engine: name of the target.
        cls: class of the error to raise, such as LoadFailed.
        what: went wrong, in a few words.
        remedy: what to do about it.
    """
    try:
        yield
    except EdgeError:
        raise
    except Exception as error:  # vendor exceptions share no base class
        raise cls(f"{engine}: {what}: {error}", remedy=remedy) from error


def thread_count(options: LoadOptions) -> int:
    """What the caller asked for, else the cores this process may use, at most ``MAX_AUTOMATIC``; never over budget.

    Raises:
        InputError: more threads were asked for than the budget allows, or the variable holds no number.
    """
    budget = _budget()
    if options.threads is None:
        return min(MAX_AUTOMATIC, cores(), budget or MAX_AUTOMATIC)
    if budget is not None and options.threads > budget:
        raise InputError(
            f"threads={options.threads} was asked for, {BUDGET_VARIABLE}={budget} allows less",
            remedy=f"ask for fewer threads, or raise {BUDGET_VARIABLE}",
        )
    return options.threads


def cores(cgroup: Path = _CGROUP) -> int:
    """Cores this process may use: its affinity, and its container's share of processor time, rounded up.

    Args:
        cgroup: folder of the process's control group.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        count = os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        pass
    return max(1, count)


def _budget() -> int | None:
    text = os.environ.get(BUDGET_VARIABLE, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(
            f"{BUDGET_VARIABLE} is {text!r}, expected a number of threads", remedy="set it to 1 or more"
        )
    return int(text)
