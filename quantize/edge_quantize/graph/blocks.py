"""Parts of a network by name: what a recipe's ``keep_float`` may say, the same for every engine.

A name is the path of a module (``network.backbone.p5.3``; it means everything below it too) or a kind of operator as
ONNX calls it (``Softmax``). Paths belong to operators with weights, whose ONNX names carry them. An operator without
weights belongs where the ones before it do; where these are apart, as for a concatenation, to the longest path that
those before it or those after it share. So the same rule finds an operator in the ONNX graph, in what OpenVINO makes of
it (which keeps the names), and in a TFLite file (where weights tell which operator is which, see ``fingerprint``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_quantize.graph.check_graph import read_model
from edge_quantize.graph.index import WEIGHTED, GraphIndex
from edge_sdk.errors import InputError

BLOCKS = 8
"""A block holds at most one in so many of the operators with weights: about twenty blocks for a YOLO."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A node of a graph.

    Attributes:
        name: in its own file.
        kind: as ONNX calls it.
        inputs: names of tensors that other operators make.
        outputs: names of tensors.
        path: of the module that it belongs to; None until ``located`` has found it.
        weights: ``fingerprint`` of its weights; None if it has none.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    path: str | None = None
    weights: tuple[float, ...] | None = None

    @property
    def weighted(self) -> bool:
        """Whether it multiplies by constants that were learned."""
        return self.weights is not None


def fingerprint(weights: npt.NDArray[Any]) -> tuple[float, ...]:
    """What tells a tensor of weights from others: its size, and its moments divided by its mean magnitude.

    Neither another layout changes these nor one factor over all values, as converters fold into a convolution.
    """
    flat = weights.astype(np.float64).ravel()
    size = np.abs(flat)
    mean = max(float(size.mean()), np.finfo(np.float64).tiny)
    flat, size = flat / mean, size / mean
    moments = flat.mean(), (size**2).mean(), (flat**3).mean(), (size**4).mean()
    return (float(flat.size), *(float(m) for m in moments))


def same_weights(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    """Whether two fingerprints are of the same weights, up to float32's rounding."""
    return first[0] == second[0] and bool(np.allclose(first, second, rtol=1e-4, atol=1e-4))


def of_onnx(model: Path | Any) -> list[Operator]:
    """Every operator of an ONNX graph, located.

    Args:
        model: a file, or a loaded ``onnx.ModelProto``.
    """
    loaded = read_model(model) if isinstance(model, Path) else model
    constants = GraphIndex(loaded).constants
    found = []
    for node in loaded.graph.node:
        kernels = [n for n in node.input[1:2] if n in constants and node.op_type in WEIGHTED]
        # A product of two tensors that are both computed has no weights.
        weights = fingerprint(constants[kernels[0]]) if kernels else None
        name = node.name or node.output[0]
        path = None if weights is None else _path(name, kernels[0])
        inputs = tuple(n for n in node.input if n and n not in constants)
        found.append(Operator(name, node.op_type, inputs, tuple(node.output), path, weights))
    return located(found)


def _path(node: str, weights: str) -> str:
    """Module path from a node's name as PyTorch's exporter writes it, else from its weights' name, else the node's."""
    scopes = node.strip("/").split("/")[:-1]
    if not scopes:
        stem, _, last = weights.rpartition(".")
        return stem if last == "weight" and stem else node
    parts: list[str] = []
    before = ""
    for scope in scopes:
        # The child of a Sequential is written "p3.2" below "p3".
        parts.append(scope.removeprefix(f"{before}.") if before else scope)
        before = scope
    return ".".join(parts)


def located(operators: Sequence[Operator]) -> list[Operator]:
    """The same operators, each with a path; those with weights must bring theirs."""
    makers = {name: op for op in operators for name in op.outputs}
    users: dict[str, list[Operator]] = {}
    for op in operators:
        for name in op.inputs:
            users.setdefault(name, []).append(op)
    before: dict[str, frozenset[str]] = {}
    after: dict[str, frozenset[str]] = {}
    # Graphs are stored in order, so one pass each way meets every operator after those that it depends on.
    for op in operators:
        paths = [_own_or(makers[n], before) for n in op.inputs if n in makers]
        before[op.name] = frozenset[str]().union(*paths)
    for op in reversed(operators):
        paths = [_own_or(user, after) for n in op.outputs for user in users.get(n, ())]
        after[op.name] = frozenset[str]().union(*paths)
    return [
        op if op.path else dataclasses.replace(op, path=_where(before[op.name], after[op.name]))
        for op in operators
    ]


def _own_or(op: Operator, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    return frozenset([op.path]) if op.path else known.get(op.name, frozenset())


def _where(before: frozenset[str], after: frozenset[str]) -> str:
    if len(before) == 1:
        return next(iter(before))
    return max(_common(before), _common(after), key=lambda path: len(path.split(".")) if path else 0)


def _common(paths: Collection[str]) -> str:
    """The longest path that all begin with."""
    shared: list[str] = []
    for parts in zip(*(path.split(".") for path in paths), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def names(operators: Sequence[Operator], share: int = BLOCKS) -> list[str]:
    """Paths that cut a network into blocks, in the graph's order.

    Args:
        operators: located.
        share: a block holds at most one in so many of the operators with weights, or a single one.
    """
    paths = list(dict.fromkeys(op.path for op in operators if op.weighted and op.path))
    limit = max(1, len(paths) // share)

    def split(prefix: str, below: list[str]) -> list[str]:
        if len(below) <= limit or below == [prefix]:
            return [prefix]
        depth = len(prefix.split(".")) if prefix else 0
        groups: dict[str, list[str]] = {}
        for path in below:
            groups.setdefault(".".join(path.split(".")[: depth + 1]), []).append(path)
        return [name for child, group in groups.items() for name in split(child, group)]

    return split("", paths)


def kinds(operators: Sequence[Operator]) -> list[str]:
    """Kinds of the operators without weights, each once, in the graph's order."""
    return list(dict.fromkeys(op.kind for op in operators if not op.weighted))


def neighbours(operators: Sequence[Operator]) -> list[tuple[str, str]]:
    """Pairs of different kinds without weights of which one feeds the other, in the graph's order."""
    makers = {name: op for op in operators for name in op.outputs}
    found: dict[tuple[str, str], None] = {}
    for op in operators:
        for name in op.inputs:
            maker = makers.get(name)
            if maker and not (op.weighted or maker.weighted) and maker.kind != op.kind:
                first, second = sorted((maker.kind, op.kind))
                found[first, second] = None
    return list(found)


def in_float(operators: Sequence[Operator], keep_float: Iterable[str]) -> list[Operator]:
    """The operators of the ONNX graph that stay in float.

    Raises:
        InputError: a name is neither a path nor a kind of this network.
    """
    asked = tuple(keep_float)
    for name in asked:
        if not any(named_by(op, (name,)) for op in operators):
            tops = sorted({op.path.split(".")[0] for op in operators if op.path})
            raise InputError(
                f"keep_float names {name!r}, which is neither a module path nor an operator kind of this network",
                remedy=f"use one of the kinds {', '.join(sorted(kinds(operators)))}, or a path below "
                f"{', '.join(tops)}; build --report lists the blocks",
            )
    return [op for op in operators if named_by(op, asked)]


def named_by(op: Operator, keep_float: Iterable[str]) -> bool:
    """Whether one of the names means this operator.

    A kind means the operators without weights: convolutions stay in float by their paths.
    """
    return any(
        (op.kind == name and not op.weighted) or op.path == name or (op.path or "").startswith(f"{name}.")
        for name in keep_float
    )
