"""Two more networks on which targets are examined: a crop beside a vector, and a clip with a state.

Both end in a few numbers, which is all that their head knows of them: no task surrounds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from edge_sdk.spec import Head, ModelSpec, StatePair
from edge_sdk.tensors import Array, Tensors, TensorSpec
from edge_targets.conformance.network import Network
from edge_targets.conformance.tflite_file import TfliteFile

CROP, FRAMES, VECTOR, STATE, ANSWERS = 16, 4, 4, 8, 3
"""Sides of a crop in pixels, frames of a clip, and lengths of vectors."""
STEPS = 8
"""Of a clip's network: enough for a state that drifts to show it."""
_LABELS = ("first", "second", "third")


@dataclass(frozen=True, slots=True)
class NumbersHead(Head):
    """An output ``answer`` (1, labels) float32, whatever the inputs are.

    Attributes:
        kind: ``numbers``; no task of this name is installed.
        labels: of the numbers.
    """

    error_rates: ClassVar[frozenset[str]] = frozenset(("numbers_error",))

    kind: Literal["numbers"]

    def check(self, spec: ModelSpec) -> None:
        """Accept any inputs."""


def _vector(name: str, length: int) -> TensorSpec:
    return TensorSpec(name, (1, length), "float32", "NC")


_HEAD = NumbersHead(kind="numbers", labels=_LABELS)
PAIR_SPEC = ModelSpec(
    "pair",
    (TensorSpec("crop", (1, CROP, CROP, 3), "uint8", "NHWC"), _vector("vector", VECTOR)),
    (_vector("answer", ANSWERS),),
    _HEAD,
    licence="Apache-2.0",
)
CLIP_SPEC = ModelSpec(
    "clip",
    (TensorSpec("clip", (1, FRAMES, CROP, CROP, 3), "uint8", "NTHWC"), _vector("state", STATE)),
    (_vector("answer", ANSWERS), _vector("next_state", STATE)),
    _HEAD,
    licence="Apache-2.0",
    state=(StatePair("state", "next_state"),),
)


def _normal(seed: int, *shape: int, spread: float) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, spread, shape).astype(np.float32)


# Kernels (out, CROP, CROP, 3) of crops scaled to 0..1, and weights (out, in).
_SPREAD = 2 / np.sqrt(CROP * CROP * 3)
_CROP_KERNEL, _CROP_BIAS = _normal(1, 4, CROP, CROP, 3, spread=_SPREAD), _normal(2, 4, spread=0.1)
_PAIR_WEIGHT, _PAIR_BIAS = _normal(3, ANSWERS, 4 + VECTOR, spread=0.5), _normal(4, ANSWERS, spread=0.1)
_FRAME_KERNEL, _FRAME_BIAS = _normal(5, 2, CROP, CROP, 3, spread=_SPREAD), _normal(6, 2, spread=0.1)
_STATE_WEIGHT = _normal(7, STATE, 2 * FRAMES + STATE, spread=0.25)
_STATE_BIAS = _normal(8, STATE, spread=0.1)
_ANSWER_WEIGHT, _ANSWER_BIAS = _normal(9, ANSWERS, STATE, spread=0.5), _normal(10, ANSWERS, spread=0.1)


def _pictures(rng: np.random.Generator, *before: int) -> Array:
    """(*before, CROP, CROP, 3) uint8: coarse squares."""
    coarse = rng.integers(0, 256, (*before, 2, 2, 3)).astype(np.uint8)
    return np.ascontiguousarray(coarse.repeat(CROP // 2, -3).repeat(CROP // 2, -2))


def _pair_inputs(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {"crop": _pictures(rng, 1), "vector": rng.uniform(-1, 1, (1, VECTOR)).astype(np.float32)}


def _clip_inputs(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    state = rng.uniform(-1, 1, (1, STATE)).astype(np.float32)
    return {"clip": _pictures(rng, 1, FRAMES), "state": state}


def _seen(crops: Array, kernel: Array, bias: Array) -> Array:
    """(crops, out) what a convolution over whole crops makes of (crops, CROP, CROP, 3) uint8."""
    seen: Array = np.einsum("nhwc,ohwc->no", crops.astype(np.float32) / 255, kernel) + bias
    return seen


def _compute_pair(inputs: Tensors) -> dict[str, Array]:
    seen = _seen(inputs["crop"], _CROP_KERNEL, _CROP_BIAS)
    both = np.concatenate((seen, inputs["vector"]), axis=1)
    return {"answer": both @ _PAIR_WEIGHT.T + _PAIR_BIAS}


def _compute_clip(inputs: Tensors) -> dict[str, Array]:
    seen = _seen(inputs["clip"][0], _FRAME_KERNEL, _FRAME_BIAS).reshape(1, -1)
    both = np.concatenate((seen, inputs["state"]), axis=1)
    state = np.tanh(both @ _STATE_WEIGHT.T + _STATE_BIAS)
    return {"answer": state @ _ANSWER_WEIGHT.T + _ANSWER_BIAS, "next_state": state}


class _OnnxFile:
    """Nodes and constants of an ONNX graph to be."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, name: str, values: Array) -> str:
        from onnx import numpy_helper

        self._constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def crops(self, pixels: str, kernel: Array, bias: Array) -> str:
        """(1, out * crops) from crops that stand one above another in (1, crops * CROP, CROP, 3) uint8, crop by crop."""
        from onnx import TensorProto

        planes = self.node("Transpose", [pixels], "planes", perm=[0, 3, 1, 2])
        floats = self.node("Cast", [planes], "floats", to=TensorProto.FLOAT)
        unit = self.node("Mul", [floats, self.constant("scale", np.array(1 / 255, np.float32))], "unit")
        weights = [self.constant("kernel", kernel.transpose(0, 3, 1, 2)), self.constant("bias", bias)]
        maps = self.node("Conv", [unit, *weights], "maps", strides=[CROP, CROP])
        rows = self.node("Transpose", [maps], "rows", perm=[0, 2, 3, 1])
        return self.node("Reshape", [rows, self.constant("flat", np.array([1, -1]))], "seen")

    def dense(self, source: str, output: str, weight: Array, bias: Array) -> str:
        names = [self.constant(f"w_{output}", weight), self.constant(f"b_{output}", bias)]
        return self.node("Gemm", [source, *names], output, transB=1)

    def write(self, path: Path, spec: ModelSpec) -> Path:
        import onnx
        from onnx import TensorProto, helper

        kinds = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}
        inputs, outputs = (
            [helper.make_tensor_value_info(t.name, kinds[t.dtype], t.shape) for t in tensors]
            for tensors in (spec.inputs, spec.outputs)
        )
        graph = helper.make_graph(self._nodes, spec.name, inputs, outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
        return path


def _write_pair_onnx(path: Path) -> Path:
    file = _OnnxFile()
    both = file.node("Concat", [file.crops("crop", _CROP_KERNEL, _CROP_BIAS), "vector"], "both", axis=1)
    file.dense(both, "answer", _PAIR_WEIGHT, _PAIR_BIAS)
    return file.write(path, PAIR_SPEC)


def _write_clip_onnx(path: Path) -> Path:
    file = _OnnxFile()
    shape = file.constant("stacked_shape", np.array([1, FRAMES * CROP, CROP, 3]))
    stacked = file.node("Reshape", ["clip", shape], "stacked")
    seen = file.crops(stacked, _FRAME_KERNEL, _FRAME_BIAS)
    both = file.node("Concat", [seen, "state"], "both", axis=1)
    state = file.node("Tanh", [file.dense(both, "sums", _STATE_WEIGHT, _STATE_BIAS)], "next_state")
    file.dense(state, "answer", _ANSWER_WEIGHT, _ANSWER_BIAS)
    return file.write(path, CLIP_SPEC)


def _write_pair_tflite(path: Path) -> Path:
    file = TfliteFile()
    entry, floats = file.pixels("args_0", PAIR_SPEC.inputs[0].shape)
    vector = file.tensor("args_1", (1, VECTOR))
    maps = file.convolution(floats, "maps", _CROP_KERNEL / np.float32(255), _CROP_BIAS, (1, 1, 1, 4))
    both = file.concatenation([file.reshape(maps, "seen", (1, 4)), vector], "both", (1, 4 + VECTOR))
    return file.write(path, [entry, vector], [file.dense(both, "answer", _PAIR_WEIGHT, _PAIR_BIAS)])


def _write_clip_tflite(path: Path) -> Path:
    file = TfliteFile()
    entry, floats = file.pixels("args_0", CLIP_SPEC.inputs[0].shape)
    before = file.tensor("args_1", (1, STATE))
    stacked = file.reshape(floats, "stacked", (1, FRAMES * CROP, CROP, 3))
    kernel = _FRAME_KERNEL / np.float32(255)
    maps = file.convolution(stacked, "maps", kernel, _FRAME_BIAS, (1, FRAMES, 1, 2))
    seen = file.reshape(maps, "seen", (1, 2 * FRAMES))
    both = file.concatenation([seen, before], "both", (1, 2 * FRAMES + STATE))
    state = file.tensor("next_state", (1, STATE))
    file.operator("TANH", [file.dense(both, "sums", _STATE_WEIGHT, _STATE_BIAS)], state)
    answer = file.dense(state, "answer", _ANSWER_WEIGHT, _ANSWER_BIAS)
    return file.write(path, [entry, before], [answer, state])


PAIR = Network(PAIR_SPEC, _pair_inputs, _compute_pair, _write_pair_onnx, _write_pair_tflite)
"""A crop and a vector."""
CLIP = Network(CLIP_SPEC, _clip_inputs, _compute_clip, _write_clip_onnx, _write_clip_tflite)
"""A clip and a state, which the next step is given."""
