"""The detector on which targets are examined: small enough to be written here, and computed in numpy.

It sees bright red squares as "red" and bright green ones as "green": a class logit is the mean of one channel over a
cell. Its boxes reach a stride and a half to every side of the cell's centre.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_sdk.image import LetterboxSpec
from edge_sdk.spec import Gate, ModelSpec, Precision, Recipe
from edge_sdk.tasks.detection import DetectionHead
from edge_sdk.tensors import Array, Tensors
from edge_targets.conformance.tflite_file import TfliteFile


@dataclass(frozen=True)
class Network:
    """A network of the kit, in the forms that targets take, and in numpy.

    Attributes:
        spec: what it is.
        inputs: a seed to every input by name.
        compute: every input by name to every output by name, in numpy.
        write_onnx: writes opset-17 ONNX to a path; needs the package ``onnx``.
        write_tflite: writes float TFLite to a path; needs the package ``ai-edge-litert``.
    """

    spec: ModelSpec
    inputs: Callable[[int], dict[str, Array]]
    compute: Callable[[Tensors], dict[str, Array]]
    write_onnx: Callable[[Path], Path]
    write_tflite: Callable[[Path], Path]


SIDE, STRIDES, BINS = 64, (8, 16, 32), 4
LABELS = ("red", "green")
HEAD = DetectionHead(
    kind="detection",
    labels=LABELS,
    letterbox=LetterboxSpec(pad=0, max_scale=2.0),
    strides=STRIDES,
    bins=BINS,
    confidence=0.5,
    iou=0.1,
    max_faces=10,
)
INPUTS, OUTPUTS = HEAD.tensors(SIDE, SIDE)
SPEC = ModelSpec("toy", INPUTS, OUTPUTS, HEAD, licence="Apache-2.0", provenance=("made in a test",))
CALIBRATION_ITEMS = 64


def recipe(precision: Precision) -> Recipe:
    """A recipe that asks for this precision, and for nothing that a target may not have."""
    items = CALIBRATION_ITEMS if precision in ("int8", "int8-mixed") else 0
    return Recipe(precision, precision, items, Gate({"map50": 0.05, "uar": 0.05}))


def picture(
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """A dark (64, 64, 3) picture with one bright square; its box (1, 4) in pixels and class (1,)."""
    image = rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
    label = int(rng.integers(2))
    x, y = (int(v) * 8 for v in rng.integers(0, 6, 2))
    image[y : y + 24, x : x + 24] = 20
    image[y : y + 24, x : x + 24, label] = rng.integers(200, 256)
    return image, np.array([[x, y, x + 24, y + 24]], np.float64), np.array([label])


def pixels(seed: int = 0) -> Array:
    """(1, 64, 64, 3) uint8, what a session takes."""
    return picture(np.random.default_rng(seed))[0][None]


def weights(stride: int) -> dict[str, tuple[Array, Array]]:
    """Kernels (out, 3, stride, stride) and biases of the two maps of one level."""
    rng = np.random.default_rng(stride)
    cls = np.zeros((len(LABELS), 3, stride, stride), np.float32)
    for label, (plus, minus) in enumerate(((0, 1), (1, 0))):
        cls[label, plus] = 14 / stride**2
        cls[label, minus] = -6 / stride**2
    box = rng.normal(0, 0.05 / stride**2, (4 * BINS, 3, stride, stride)).astype(np.float32)
    sides = np.tile(np.array([-2, 2, 2, -2], np.float32), 4)  # half on 1, half on 2: 1.5 strides
    return {"box": (box, sides), "cls": (cls, np.full(len(LABELS), -7, np.float32))}


def compute(image: Array) -> dict[str, Array]:
    """What the network answers to (1, 64, 64, 3) uint8 pixels, in numpy."""
    unit = image[0].astype(np.float32) / 255
    answer = {}
    for stride in STRIDES:
        cells = SIDE // stride
        patches = unit.reshape(cells, stride, cells, stride, 3).transpose(0, 2, 4, 1, 3)
        for kind, (kernel, bias) in weights(stride).items():
            answer[f"{kind}{stride}"] = (np.einsum("abcij,ocij->abo", patches, kernel) + bias)[None]
    return answer


def write_onnx(path: Path) -> Path:
    """The network as opset-17 ONNX; needs the package ``onnx``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Transpose", ["pixels"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["nchw"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["unit"]),
    ]
    constants = [numpy_helper.from_array(np.array(1 / 255, np.float32), "scale")]
    for stride in STRIDES:
        for kind, (kernel, bias) in weights(stride).items():
            name = f"{kind}{stride}"
            constants += [
                numpy_helper.from_array(kernel, f"w_{name}"),
                numpy_helper.from_array(bias, f"b_{name}"),
            ]
            nodes += [
                helper.make_node(
                    "Conv", ["unit", f"w_{name}", f"b_{name}"], [f"m_{name}"], strides=[stride] * 2
                ),
                helper.make_node("Transpose", [f"m_{name}"], [name], perm=[0, 2, 3, 1]),
            ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, INPUTS[0].shape)],
        [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.shape) for t in SPEC.outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def write_tflite(path: Path) -> Path:
    """The network as float TFLite; needs the package ``ai-edge-litert``."""
    file = TfliteFile()
    entry, floats = file.pixels("args_0", INPUTS[0].shape)
    exits = []
    for spec in OUTPUTS:
        kernel, bias = weights(int(spec.name[3:]))[spec.name[:3]]
        # OHWI; converters fold the scale of pixels into it too.
        kernel = kernel.transpose(0, 2, 3, 1) / np.float32(255)
        exits.append(file.convolution(floats, spec.name, kernel, bias, spec.shape))
    return file.write(path, [entry], exits)


DETECTOR = Network(
    SPEC,
    lambda seed: {"pixels": pixels(seed)},
    lambda inputs: compute(inputs["pixels"]),
    write_onnx,
    write_tflite,
)
