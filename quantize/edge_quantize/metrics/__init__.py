"""How good a network is, one evaluator per task, found by the task's name.

An evaluator is a module with ``EVALUATOR``, an object as :class:`edge_quantize.metrics.base.Evaluator` describes it.
Ours are the modules of this package; others come by an entry point of the group ``edge_sdk.evaluators``, so that a
task's name in a file that somebody else made imports nothing that is not installed as an evaluator.
"""

from __future__ import annotations

import importlib
import pkgutil

from edge_quantize.metrics.base import Evaluator
from edge_sdk.errors import InputError
from edge_sdk.tasks import head_of

ENTRY_POINTS = "edge_sdk.evaluators"
_NO_EVALUATOR = ("base",)


def evaluator_of(task: str) -> Evaluator:
    """The evaluator of a task.

    Args:
        task: name of the task: the kind of a spec's head.

    Raises:
        InputError: no evaluator of this name is installed.
    """
    if task in _ours():
        ours: Evaluator = importlib.import_module(f"{__name__}.{task}").EVALUATOR
        return ours
    from importlib.metadata import entry_points  # slow to import, and only a foreign task needs it

    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == task:
            others: Evaluator = entry.load().EVALUATOR
            return others
    raise InputError(
        f"no evaluator of task {task!r} is installed: nothing can measure its networks",
        remedy=f"install one (entry point group {ENTRY_POINTS}); here are {', '.join(evaluator_names())}",
    )


def evaluator_names() -> tuple[str, ...]:
    """Names of all tasks that have an evaluator: ours, then those of other packages."""
    from importlib.metadata import entry_points

    others = (entry.name for entry in entry_points(group=ENTRY_POINTS))
    return tuple(dict.fromkeys((*_ours(), *sorted(others))))


def gated() -> frozenset[str]:
    """Every metric that a gate can limit, whatever the task."""
    return frozenset(name for task in evaluator_names() for name in evaluator_of(task).gated)


def error_rates() -> frozenset[str]:
    """Every metric of which less is better, whatever the task: the heads say so, for whoever reads a manifest."""
    heads = (head_of(task) for task in evaluator_names())
    return frozenset(name for head in heads if head is not None for name in head.error_rates)


def _ours() -> tuple[str, ...]:
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _NO_EVALUATOR))


__all__ = ["Evaluator", "error_rates", "evaluator_names", "evaluator_of", "gated"]
