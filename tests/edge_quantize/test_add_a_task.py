"""A task is one runtime file and one evaluator file; nothing else of the project is touched."""

import csv

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("onnxruntime", reason="engine not installed")

import added_task  # noqa: E402

import edge_sdk as edge  # noqa: E402
from edge_quantize.metrics import evaluator_of  # noqa: E402
from edge_sdk import zoo  # noqa: E402
from edge_sdk.cli import main  # noqa: E402
from edge_sdk.errors import GateFailed  # noqa: E402
from edge_sdk.image import write_image  # noqa: E402
from edge_sdk.schema import from_plain  # noqa: E402
from edge_sdk.spec import Head, ModelSpec  # noqa: E402

TASK = '''
"""How bright a face is, 0..1."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from edge_sdk.image import FaceCrop, check_frame
from edge_sdk.per_face import CropInput
from edge_sdk.results import NO_TIMES
from edge_sdk.spec import Head, expect_outputs, only_picture
from edge_sdk.target import infer
from edge_sdk.tasks.base import refuse_confidence
from edge_sdk.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class BrightnessHead(Head):
    error_rates: ClassVar = frozenset(("mae",))

    kind: Literal["brightness"]
    crop: FaceCrop

    def check(self, spec):
        _, height, width, _ = only_picture(spec).shape
        expect_outputs(spec, self.tensors(height, width)[1])

    def tensors(self, height, width):
        pixels = TensorSpec("pixels", (1, height, width, 3), "uint8", "NHWC")
        return (pixels,), (TensorSpec("value", (1, 1), "float32", "NC"),)


@dataclass(frozen=True)
class Brightness:
    value: float
    times: object = NO_TIMES
    target: str = ""
    device: str = ""

    def __len__(self):
        return 1

    def to_dict(self):
        return {"value": self.value}

    def describe(self):
        return f"{self.value:.2f}"

    def marks(self, boxes, size):
        return []


class BrightnessTask:
    faces = "given"

    def __init__(self, spec, *, confidence=None):
        refuse_confidence(spec, confidence)
        self.spec = spec
        self._crop = CropInput(spec, spec.head.crop)

    def preprocess(self, image, color="rgb", box=None):
        return self._crop(image, box, color), None

    def run(self, session, image, *, boxes=None, color="rgb", state=None, target=""):
        check_frame(image, color)
        inputs, _ = self.preprocess(image, color, None if boxes is None else np.asarray(boxes, np.float32)[0])
        value = float(infer(session, inputs, state)["value"][0, 0])
        return Brightness(value, target=target, device=session.device)


HEAD, TASK = BrightnessHead, BrightnessTask
'''
EVALUATOR = '''
"""Mean absolute error of a value that ``values.csv`` (file,value) says of each picture."""

import csv
from dataclasses import dataclass

import numpy as np

from edge_quantize.data import LabelledPicture, check_folder, check_labelled, pictures_in, read_pictures
from edge_quantize.metrics.base import face_inputs, first_answer
from edge_quantize.report import Report, Sample, with_intervals


@dataclass(frozen=True, slots=True)
class Valued(LabelledPicture):
    value: float = 0.0


class BrightnessEvaluator:
    metrics = gated = ("mae",)
    class_means = frozenset()

    def is_labelled(self, folder, labels):
        return (folder / "values.csv").is_file()

    def read_labelled(self, folder, labels):
        check_folder(folder)
        values = dict(csv.reader((folder / "values.csv").read_text().splitlines()))
        whole = np.array([[0.0, 0, 1, 1]])
        paths = pictures_in(folder)
        return check_labelled([Valued(p, whole, np.array([0]), "", float(values[p.name])) for p in paths], folder)

    def examine(self, session, task, items, progress=lambda done, total: None):
        errors = []
        for done, (item, image) in enumerate(read_pictures(items)):
            inputs, _ = task.preprocess(image)
            errors.append(abs(first_answer(session, task.spec, inputs)["value"][0, 0] - item.value))
            progress(done + 1, len(items))
        errors = np.array(errors, float)

        def figures(weights, names=("mae",)):
            return {"mae": float(np.average(errors, weights=weights))}

        ones = np.ones(len(errors))
        return Report(
            with_intervals(figures(ones), figures, len(errors), 0),
            {"brightness": {"mae": figures(ones)["mae"], "faces": float(len(errors))}},
            [],
            sample=Sample(figures, {"mae": len(errors)}, ("",) * len(errors)),
        )

    def calibration_inputs(self, task, item, image, reference):
        return face_inputs(task, item, image)

    def answered(self, task, outputs):
        return {"value": outputs["value"]}


EVALUATOR = BrightnessEvaluator()
'''
SIDE = 16
RECIPE = 'name = "{0}"\nprecision = "{0}"\ncalibration_items = {1}\n[gate.max_drop]\nmae = 0.1\n'


def write_network(path, factor=1.0):
    """Answers with the mean of all pixels, 0..1, times a factor."""
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.full((1, 3, SIDE, SIDE), factor / (3 * SIDE**2), np.float32)
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["nchw"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["unit"]),
        helper.make_node("Conv", ["unit", "kernel"], ["map"]),
        helper.make_node("Flatten", ["map"], ["value"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(1 / 255, np.float32), "scale"),
        numpy_helper.from_array(kernel, "kernel"),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, (1, SIDE, SIDE, 3))],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, (1, 1))],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def write_valued(folder, count, seed):
    """Noisy pictures of different brightness, and how bright each is."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    with (folder / "values.csv").open("w", newline="") as file:
        for index in range(count):
            image = rng.integers(0, 80, (SIDE, SIDE, 3)) + rng.integers(0, 175)
            write_image(folder / f"{index:03d}.png", image.astype(np.uint8))
            csv.writer(file).writerow([f"{index:03d}.png", image.mean() / 255])
    return folder


@pytest.fixture
def spec(tmp_path, monkeypatch):
    added_task.add(monkeypatch, tmp_path / "added", "brightness", TASK, EVALUATOR)
    plain = {"kind": "brightness", "labels": ["brightness"], "crop": {"margin": 1.0, "outside": "repeat"}}
    head = from_plain(Head, plain, "head")
    made = ModelSpec("bright", *head.tensors(SIDE, SIDE), head, licence="Apache-2.0")
    monkeypatch.setattr(zoo, "spec", lambda name: made)
    return made


def built(folder, precision, **changes):
    recipe = folder / f"{precision}.toml"
    recipe.write_text(RECIPE.format(precision, 16 if precision == "int8" else 0))
    settings = {
        "model": "bright",
        "target": "onnxruntime",
        "recipe": recipe,
        "calibration": folder / "calibration",
        "evaluation": folder / "evaluation",
        "output": folder / "bright.edge",
    }
    return edge.build(folder / "bright.onnx", **{**settings, **changes})


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_task_of_two_files_is_built_gated_loaded_and_evaluated(spec, tmp_path, precision, capsys):
    write_network(tmp_path / "bright.onnx")
    write_valued(tmp_path / "calibration", 20, 1)
    write_valued(tmp_path / "evaluation", 40, 2)
    bundle = built(tmp_path, precision)
    assert set(bundle.manifest.gate.metrics) == {"mae"}
    assert bundle.manifest.gate.metrics["mae"].compiled < 0.05
    opened = edge.Bundle.open(tmp_path / "bright.edge")
    assert opened == bundle
    assert opened.manifest.spec == spec
    with edge.load(tmp_path / "bright.edge") as model:  # runs its golden vectors
        assert model.info.task == "brightness"
        grey = np.full((40, 40, 3), 102, np.uint8)
        assert model(grey).value == pytest.approx(0.4, abs=0.05)
    arguments = ["evaluate", str(tmp_path / "bright.edge"), "--data", str(tmp_path / "evaluation")]
    assert main(arguments) == 0
    assert "mae" in capsys.readouterr().out


def test_its_metric_is_one_of_which_less_is_better(spec, tmp_path):
    """An error that rises fails the gate: the evaluator says which way is worse."""
    from edge_quantize.gate import compare
    from edge_quantize.workbench import Workbench, source_model
    from edge_sdk.spec import Gate

    write_valued(tmp_path / "evaluation", 40, 2)
    reports = []
    for factor in (1.0, 0.4):
        graph = write_network(tmp_path / f"{factor}.onnx", factor)
        bench = Workbench(source_model(spec, graph), calibration=None, evaluation=tmp_path / "evaluation")
        reports.append(bench.reference.report)
    gate = Gate({"mae": 0.1})
    with pytest.raises(GateFailed, match="mae"):
        compare(*reports, gate, bench.evaluation)
    assert compare(*reversed(reports), gate, bench.evaluation)


def test_it_is_gone_when_its_files_are():
    with pytest.raises(edge.InputError, match="no evaluator of task 'brightness'"):
        evaluator_of("brightness")
