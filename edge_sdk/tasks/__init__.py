"""What surrounds a network: frame to tensors and tensors to result, without any engine. One file per task.

A task is a module with ``HEAD``, the dataclass of its part of a spec, and ``TASK``, the class that reads and prepares.
It is found by name: ours are the modules of this package, others come by an entry point of the group
``edge_sdk.tasks``, so that a name in a bundle that somebody else made imports nothing that is not installed as a task.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from edge_sdk.errors import InputError
from edge_sdk.spec import Head, ModelSpec
from edge_sdk.tasks.base import Faces, Task

ENTRY_POINTS = "edge_sdk.tasks"
_NO_TASK = ("base",)


def task_of(spec: ModelSpec, *, confidence: float | None = None) -> Task:
    """What belongs around a network of this spec.

    Args:
        spec: of the network.
        confidence: report faces from this score on, 0..1, for a task that finds faces; None takes the spec's.

    Raises:
        InputError: a confidence outside 0..1, or for a network that answers for every face it is given.
    """
    module = _module(spec.head.kind)
    assert module is not None, "a spec's head comes from its task"
    made: Task = module.TASK(spec, confidence=confidence)
    return made


def head_of(kind: str) -> type[Head] | None:
    """The head that a task of this name brings; None if no such task is installed."""
    module = _module(kind)
    return None if module is None else module.HEAD


def faces_of(kind: str) -> Faces:
    """Whether a task finds faces, takes them, or needs them; see :class:`edge_sdk.tasks.base.Task`.

    Raises:
        InputError: no task of this name is installed.
    """
    module = _module(kind)
    if module is None:
        raise InputError(f"no task {kind!r} is installed", remedy=f"use one of {', '.join(task_names())}")
    faces: Faces = module.TASK.faces
    return faces


def task_names() -> tuple[str, ...]:
    """All tasks that are installed: ours, then those of other packages."""
    from importlib.metadata import entry_points  # slow to import, and only a list or a foreign task needs it

    others = (entry.name for entry in entry_points(group=ENTRY_POINTS))
    return tuple(dict.fromkeys((*_ours(), *sorted(others))))


def _ours() -> tuple[str, ...]:
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _NO_TASK))


def _module(kind: str) -> Any:
    if kind in _LOADED:
        return _LOADED[kind]
    found: Any = None
    if kind in _ours():
        found = importlib.import_module(f"{__name__}.{kind}")
    else:
        from importlib.metadata import entry_points

        for entry in entry_points(group=ENTRY_POINTS):
            if entry.name == kind:
                found = entry.load()
    if found is not None:
        _LOADED[kind] = found
    return found


_LOADED: dict[str, Any] = {}
"""Modules of tasks by name: specs are made again and again, and the folder need not be read each time."""

__all__ = ["Task", "faces_of", "head_of", "task_names", "task_of"]
