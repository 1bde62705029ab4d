"""A detector small enough to make in a test, and pictures that it understands.

It sees bright red squares as "red" and bright green ones as "green": a class logit is the mean of one channel over a
cell. Its boxes reach a stride and a half to every side of the cell's centre.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_sdk.adapter import TargetBase
from edge_sdk.bundle import Bundle, DataDigest, GateMetric, GateResult, GoldenCase
from edge_sdk.image import FaceCrop
from edge_sdk.spec import Gate, ModelSpec, Recipe
from edge_sdk.target import Artifact, LoadOptions, Ranges
from edge_sdk.tasks.classification import ClassificationHead
from edge_sdk.testing import FakeSession
from edge_targets.conformance.network import (
    BINS,
    LABELS,
    SIDE,
    SPEC,
    STRIDES,
    picture,
    weights,
    write_onnx,
    write_tflite,
)
from edge_targets.conformance.network import compute as engine

__all__ = [
    "BINS",
    "LABELS",
    "SIDE",
    "SPEC",
    "STRIDES",
    "engine",
    "picture",
    "weights",
    "write_onnx",
    "write_tflite",
]

CROP = 16
_CROP_HEAD = ClassificationHead(
    kind="classification", labels=LABELS, crop=FaceCrop(margin=1.0, outside="repeat")
)
CLASSIFIER = ModelSpec("toy-classifier", *_CROP_HEAD.tensors(CROP, CROP), _CROP_HEAD, licence="Apache-2.0")
FP32 = Recipe(name="fp32", precision="fp32", calibration_items=0, gate=Gate({"map50": 0.01, "uar": 0.01}))
INT8 = Recipe(name="int8", precision="int8", calibration_items=16, gate=Gate({"map50": 0.05, "uar": 0.05}))


def write_recipe(folder: Path, precision: str, *, items: int = 16, **changes) -> Path:
    """A recipe whose limits forty pictures can show."""
    keys = {"name": f"toy-{precision}", "precision": precision, "calibration_items": items, **changes}
    if not precision.startswith("int8") or precision == "int8-wonly":
        keys["calibration_items"] = 0
    limits = dict.fromkeys(("map50", "accuracy", "uar", "macro_f1", "apcer_worst", "bpcer"), 0.1)
    tables = (keys, limits)
    texts = [
        "\n".join(f"{k} = {v if isinstance(v, (int, float)) else repr(v)}" for k, v in t.items())
        for t in tables
    ]
    path = folder / f"{keys['name']}.toml"
    path.write_text("\n[gate.max_drop]\n".join(texts) + "\n")
    return path


def write_classifier_onnx(path: Path) -> Path:
    """A classifier that answers with the mean red less the mean green of a crop, and the reverse."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.zeros((len(LABELS), 3, CROP, CROP), np.float32)
    kernel[0, :2], kernel[1, :2] = np.array([[1, -1], [-1, 1]])[:, :, None, None] * 8 / CROP**2
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["nchw"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["unit"]),
        helper.make_node("Conv", ["unit", "kernel"], ["map"]),
        helper.make_node("Flatten", ["map"], ["logits"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(1 / 255, np.float32), "scale"),
        numpy_helper.from_array(kernel, "kernel"),
    ]
    graph = helper.make_graph(
        nodes,
        "toy-classifier",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, CLASSIFIER.inputs[0].shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, len(LABELS)))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def classify(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What the toy classifier computes, in numpy."""
    red, green = pixels[0, :, :, :2].astype(np.float32).mean((0, 1)) / 255 * 8
    return {"logits": np.array([[red - green, green - red]], np.float32)}


def write_crops(folder: Path, count: int, seed: int) -> Path:
    """Noisy reddish and greenish crops of 10 to 30 pixels in a folder a class."""
    from edge_sdk.image import write_image

    rng = np.random.default_rng(seed)
    for label in LABELS:
        (folder / label).mkdir(parents=True)
    for index in range(count):
        side, label = int(rng.integers(10, 31)), index % 2
        image = rng.integers(0, 120, (side, side, 3)).astype(np.uint8)
        image[:, :, label] += np.uint8(rng.integers(20, 100))
        write_image(folder / LABELS[label] / f"{index:03d}.png", image)
    return folder


def write_pictures(folder: Path, count: int, seed: int, *, labelled: bool = True) -> Path:
    """Pictures in YOLO layout, or a flat folder of them."""
    from edge_sdk.image import write_image

    rng = np.random.default_rng(seed)
    images = folder / "images" if labelled else folder
    images.mkdir(parents=True)
    if labelled:
        (folder / "labels").mkdir()
    for index in range(count):
        image, boxes, classes = picture(rng)
        write_image(images / f"{index:03d}.png", image)
        if labelled:
            (x1, y1, x2, y2), label = boxes[0] / SIDE, classes[0]
            line = f"{label} {(x1 + x2) / 2} {(y1 + y2) / 2} {x2 - x1} {y2 - y1}\n"
            (folder / "labels" / f"{index:03d}.txt").write_text(line)
    return folder


def frame() -> np.ndarray:
    """A fixed frame with a red square."""
    image = np.full((SIDE, SIDE, 3), 10, np.uint8)
    image[24:40, 16:32] = (240, 20, 20)
    return image


class FakeTarget(TargetBase):
    """An engine in numpy: its artifact is the word "toy".

    ``answer`` takes the pixels (1, height, width, 3) and gives the outputs by name.
    """

    name = "onnxruntime"
    distribution = "onnxruntime"
    modules: tuple[str, ...] = ("numpy",)

    def __init__(self, answer=engine) -> None:
        self.answer = answer
        self.loads = 0
        self.load_options = LoadOptions()
        self.sessions: list[FakeSession] = []

    def calibrate(self, model, *, recipe, frames):
        return Ranges(self.name, tuple(frames))

    def compile(self, model, *, recipe, ranges=None):
        return artifact(model.spec)

    def load(self, artifact, spec, *, options):
        self.loads += 1
        self.load_options = options
        session = FakeSession(spec, answer=lambda inputs: self.answer(inputs["pixels"]))
        self.sessions.append(session)
        return session


def inputs(seed: int = 0) -> dict[str, np.ndarray]:
    """The toy's inputs by name: a picture."""
    return {"pixels": picture(np.random.default_rng(seed))[0][None]}


def answers(seed: int = 0) -> dict[str, np.ndarray]:
    """What the toy answers to :func:`inputs`, in numpy."""
    return engine(inputs(seed)["pixels"])


def frames(count: int = 16) -> list[dict[str, np.ndarray]]:
    """Pictures to calibrate on."""
    return [inputs(seed) for seed in range(count)]


def compile_by(target, model, recipe, calibration=None) -> Artifact:
    """Calibrate if the recipe asks for it, on ``calibration`` or else on :func:`frames`, and compile."""
    ranges = None
    if recipe.calibrated:
        ranges = target.calibrate(
            model, recipe=recipe, frames=calibration or frames(recipe.calibration_items)
        )
    return target.compile(model, recipe=recipe, ranges=ranges)


def artifact(spec=SPEC) -> Artifact:
    """What :class:`FakeTarget` compiles."""
    names = (tuple(t.name for t in tensors) for tensors in (spec.inputs, spec.outputs))
    return Artifact({"model.onnx": b"toy"}, *names, {"numpy": "any"})


def gate(recipe: Recipe = FP32, *, reference=0.9, compiled=0.9, **changes) -> GateResult:
    """What a gate said of the toy by a recipe's limits."""
    metric = GateMetric(reference, compiled, recipe.gate.max_drop["map50"])
    return GateResult(DataDigest(3, "0" * 64), {"map50": metric}, **changes)


def bundle(**changes) -> Bundle:
    """A bundle of the toy whose golden case is true."""
    from edge_sdk.tasks import task_of

    inputs, _ = task_of(SPEC).preprocess(frame())
    outputs = {name: value.astype(np.float16) for name, value in engine(inputs["pixels"]).items()}
    parts = {
        "producer": "face-edge-sdk test",
        "spec": SPEC,
        "recipe": FP32,
        "target": "onnxruntime",
        "artifact": artifact(),
        "calibration": None,
        "gate": gate(changes.get("recipe", FP32)),
        "golden": (GoldenCase(outputs, frame()),),
        "min_snr_db": 20.0,
    }
    return Bundle.create(**{**parts, **changes})
