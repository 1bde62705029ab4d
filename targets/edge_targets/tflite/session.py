"""What a device runs of the tflite target."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_sdk.adapter import (
    INFER_REMEDY,
    Ownership,
    SessionBase,
    check_session_tensors,
    refuse_devices,
    thread_count,
    vendor_errors,
)
from edge_sdk.errors import CompileFailed, InferFailed, LoadFailed, MissingDependency
from edge_sdk.spec import ModelSpec
from edge_sdk.target import Artifact, LoadOptions
from edge_sdk.tensors import Tensors
from edge_targets.device_fallback import first_that_loads
from edge_targets.tflite import tflite_file

MODEL = "model.tflite"
"""File of the artifact."""
MAX_PARTITIONS = 8
"""More partitions than this are a warning: at each border tensors change hands and threads meet."""


def import_tflite() -> Any:
    """The interpreter's module: the living package first, the old one second.

    Raises:
        MissingDependency: neither is installed, or neither can be imported.
    """
    failures = []
    for name in ("ai_edge_litert", "tflite_runtime"):
        try:
            return __import__(f"{name}.interpreter", fromlist=["Interpreter"])
        except (ImportError, AttributeError) as error:  # AttributeError: tflite_runtime under numpy 2
            failures.append(f"{name}: {error}")
    raise MissingDependency(
        f"no TFLite engine can be imported ({'; '.join(failures)})",
        remedy="pip install 'face-edge-sdk[tflite]', or 'face-edge-sdk[tflite-runtime]' for the old engine",
    )


@dataclass(frozen=True)
class Partitions:
    """How a network is shared between XNNPACK and the interpreter's own, slower operators.

    Attributes:
        count: runs of operators that XNNPACK took over; between them the interpreter computes.
        operators: of the whole network.
        outside: kinds of operators that XNNPACK did not take, and how many of each.
    """

    count: int
    operators: int
    outside: Mapping[str, int]

    def __str__(self) -> str:
        """One line, as a session's notes show it."""
        left = sum(self.outside.values())
        kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(self.outside.items()))
        taken = (
            f"XNNPACK runs {self.operators - left} of {self.operators} operators in {self.count} partition(s)"
        )
        return f"{taken}; outside: {kinds}" if left else taken


def partitions(interpreter: Any) -> Partitions | None:
    """What a loaded interpreter's delegate took; None where the interpreter does not tell.

    A delegate's node replaces the operators between the tensors that it reads and those that it writes; these are found
    by walking back from the latter to the former.
    """
    try:
        nodes = interpreter._get_ops_details()
    except AttributeError:
        return None
    delegates = [n for n in nodes if n["op_name"] == "DELEGATE"]
    operators = [n for n in nodes if n["op_name"] != "DELEGATE"]
    maker = {int(tensor): i for i, n in enumerate(operators) for tensor in n["outputs"]}
    taken: set[int] = set()
    for node in delegates:
        reads = {int(t) for t in node["inputs"]}
        ahead = [int(t) for t in node["outputs"]]
        while ahead:
            index = maker.get(ahead.pop())
            if index is not None and index not in taken:
                taken.add(index)
                ahead += [int(t) for t in operators[index]["inputs"] if int(t) not in reads]
    outside = Counter(str(n["op_name"]) for i, n in enumerate(operators) if i not in taken)
    return Partitions(len(delegates), len(operators), outside)


def check_file(artifact: Artifact, error: type[LoadFailed | CompileFailed] = LoadFailed) -> None:
    """Refuse a file with weights elsewhere or operators of other libraries, by this error."""
    if problem := tflite_file.problem(artifact.files.get(MODEL, b"")):
        raise error(
            f"tflite: {MODEL}: {problem}",
            remedy="build the bundle from a float .tflite of built-in operators with its weights inside",
        )


class TfliteSession(SessionBase):
    """One frame after another through an interpreter with XNNPACK.

    Args:
        artifact: with a ``model.tflite``.
        spec: of the network.
        options: of every engine.

    Attributes:
        handle: an ``Interpreter``, for what is not wrapped here; None once closed.
    """

    def __init__(self, artifact: Artifact, spec: ModelSpec, options: LoadOptions) -> None:
        module = import_tflite()
        self._ownership = Ownership(self)
        check_file(artifact)
        self.inputs, self.outputs = spec.inputs, spec.outputs
        _, refused = first_that_loads(options.devices, lambda device: refuse_devices("tflite", (device,)))
        with vendor_errors(
            "tflite", LoadFailed, "the artifact was refused", "build the bundle again for this version"
        ):
            interpreter = module.Interpreter(
                model_content=artifact.files[MODEL], num_threads=thread_count(options)
            )
            interpreter.allocate_tensors()
            # Names do not survive conversion; their order does, and the bundle records it.
            entries = dict(zip(artifact.inputs, interpreter.get_input_details(), strict=True))
            exits = dict(zip(artifact.outputs, interpreter.get_output_details(), strict=True))
        found = {
            name: (tuple(int(n) for n in d["shape"]), np.dtype(d["dtype"]).name)
            for name, d in {**entries, **exits}.items()
        }
        check_session_tensors(spec, "tflite", found)
        found_partitions = partitions(interpreter)
        self.notes = refused + (() if found_partitions is None else (str(found_partitions),))
        if found_partitions is not None and found_partitions.count > MAX_PARTITIONS:
            warnings.warn(f"{spec.name}: {found_partitions}", RuntimeWarning, stacklevel=2)
        self.handle: Any = interpreter
        self._entries = tuple((name, int(d["index"])) for name, d in entries.items())
        self._exits = tuple((name, int(d["index"])) for name, d in exits.items())

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one frame; see :class:`edge_sdk.target.Session`."""
        handle, ownership = self.handle, self._ownership
        try:
            mine = ownership.take()
        except IndexError:
            raise ownership.refusal() from None
        # A plain try: a context manager costs 35 us per frame when caches are cold.
        try:
            for name, index in self._entries:
                handle.set_tensor(index, inputs[name])
            handle.invoke()
            # Copies: a view that a caller still holds would make the next invoke fail.
            return {name: handle.get_tensor(index) for name, index in self._exits}
        except Exception as error:  # vendor exceptions share no base class
            raise InferFailed(f"tflite: inference failed: {error}", remedy=INFER_REMEDY) from error
        finally:
            ownership.give(mine)

    def vendor_call(self, inputs: Tensors) -> Callable[[], object]:
        """``set_tensor``, ``invoke`` and ``get_tensor``; see :class:`edge_sdk.target.Session`."""
        handle, fed = self.handle, [(index, inputs[name]) for name, index in self._entries]
        exits = [index for _, index in self._exits]

        def call() -> object:
            for index, array in fed:
                handle.set_tensor(index, array)
            handle.invoke()
            return [handle.get_tensor(index) for index in exits]

        return call

    def close(self) -> None:
        """Free the engine."""
        if not self._ownership.end():
            return
        self.handle = None
