"""Networks of several inputs, a crop beside a vector and a clip with a state, from a float graph to a proven bundle."""

import importlib.util

import numpy as np
import pytest

pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("onnxruntime", reason="engine not installed")

import added_task
import toys

import edge_sdk as edge
from edge_quantize import calibration, golden
from edge_quantize.workbench import Workbench, float_session, source_model
from edge_sdk import zoo
from edge_sdk.image import write_image
from edge_sdk.state import State
from edge_sdk.target import find_target, infer, is_installed
from edge_targets.conformance.several_inputs import CLIP, PAIR

TASK = '''
"""Numbers about a face, from its crop and where it is, or from a clip of it."""

from dataclasses import dataclass

import cv2
import numpy as np

from edge_sdk.results import NO_TIMES
from edge_sdk.target import infer
from edge_targets.conformance.several_inputs import CROP, FRAMES, NumbersHead


@dataclass(frozen=True)
class Numbers:
    values: np.ndarray
    times: object = NO_TIMES
    target: str = ""
    device: str = ""

    def __len__(self):
        return 1


class NumbersTask:
    faces = "given"

    def __init__(self, spec, *, confidence=None):
        self.spec = spec

    def preprocess(self, image, color="rgb", box=None):
        height, width = image.shape[:2]
        x1, y1, x2, y2 = (0, 0, width, height) if box is None else (int(v) for v in box)
        face = cv2.resize(np.ascontiguousarray(image[y1:y2, x1:x2]), (CROP, CROP), interpolation=cv2.INTER_AREA)
        place = ((x1 + x2) / width - 1, (y1 + y2) / height - 1, (x2 - x1) / width, (y2 - y1) / height)
        made = {
            "crop": face[None],
            "clip": np.stack([np.roll(face, step, 1) for step in range(FRAMES)])[None],
            "vector": np.array([place], np.float32),
        }
        return {t.name: made[t.name] for t in self.spec.given}, None

    def run(self, session, image, *, boxes=None, color="rgb", state=None, target=""):
        inputs, _ = self.preprocess(image, color, None if boxes is None else boxes[0])
        values = infer(session, inputs, state)["answer"][0].copy()
        return Numbers(values, target=target, device=session.device)


HEAD, TASK = NumbersHead, NumbersTask
'''
EVALUATOR = '''
"""How far the numbers are from what numpy computes, over several steps of a network with state."""

import numpy as np

from edge_quantize.data import LabelledPicture, check_folder, pictures_in, read_pictures
from edge_quantize.metrics.base import box_of, face_inputs
from edge_quantize.report import Report, Sample, with_intervals
from edge_sdk.state import State
from edge_sdk.target import infer
from edge_targets.conformance.several_inputs import CLIP, PAIR

STEPS = 3


class NumbersEvaluator:
    metrics = gated = ("numbers_error",)
    class_means = frozenset()

    def is_labelled(self, folder, labels):
        return True

    def read_labelled(self, folder, labels):
        check_folder(folder)
        items = []
        for index, path in enumerate(pictures_in(folder)):
            left, size = index % 5 / 10, 0.4 + index % 3 / 10
            box = np.array([[0, 0, 1, 1] if index % 4 == 0 else [left, 0.1, left + size, 0.1 + size]])
            items.append(LabelledPicture(path, box, np.array([index // 3 % len(labels)])))
        return items

    def examine(self, session, task, items, progress=lambda done, total: None):
        spec, errors = task.spec, []
        compute = CLIP.compute if spec.state else PAIR.compute
        for done, (item, image) in enumerate(read_pictures(items)):
            inputs, _ = task.preprocess(image, "rgb", box_of(item, image))
            ours, theirs = State(spec), State(spec)
            for _ in range(STEPS):
                answer = infer(session, inputs, ours)["answer"].copy()
                wanted = compute({**inputs, **theirs.tensors})
                theirs.update(wanted)
            errors.append(float(np.abs(answer - wanted["answer"]).mean()))
            progress(done + 1, len(items))
        errors = np.array(errors)

        def figures(weights, names=self.metrics):
            return {"numbers_error": float(np.average(errors, weights=weights))}

        whole = figures(np.ones(len(errors)))
        per_class = {"first": {"error": whole["numbers_error"], "faces": float(len(errors))}}
        sample = Sample(figures, {"numbers_error": len(errors)}, ("",) * len(errors))
        return Report(with_intervals(whole, figures, len(errors), 0), per_class, [], sample=sample)

    def calibration_inputs(self, task, item, image, reference):
        return face_inputs(task, item, image)

    def answered(self, task, outputs):
        return {"numbers": outputs["answer"]}


EVALUATOR = NumbersEvaluator()
'''
RECIPE = 'name = "{0}"\nprecision = "{0}"\ncalibration_items = {1}\n[gate.max_drop]\nnumbers_error = 0.1\n'
ENGINES = ("onnxruntime", "openvino", "tflite", "tensorrt")
NETWORKS = {"pair": PAIR, "clip": CLIP}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, count in (("calibration", 48), ("evaluation", 40)):
        (folder / name).mkdir()
        for index in range(count):
            image = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
            write_image(folder / name / f"{index:02d}.png", image)
    return folder


@pytest.fixture(params=NETWORKS)
def network(request, tmp_path, monkeypatch):
    added_task.add(monkeypatch, tmp_path / "added", "numbers", TASK, EVALUATOR)
    found = NETWORKS[request.param]
    monkeypatch.setattr(zoo, "spec", lambda name: found.spec)
    found.write_onnx(tmp_path / "toy.onnx")
    return found


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_of_several_inputs_becomes_a_bundle_that_proves_itself(
    network, engine, precision, pictures, tmp_path
):
    target = find_target(engine)
    if target.stand_in is None and not is_installed(target):
        pytest.skip(f"{engine} is not installed")
    if engine == "tflite":
        if importlib.util.find_spec("ai_edge_litert") is None:
            pytest.skip("the package whose schema writes TFLite is not installed")
        network.write_tflite(tmp_path / "toy.tflite")
    recipe = tmp_path / f"{precision}.toml"
    recipe.write_text(RECIPE.format(precision, 32 if precision == "int8" else 0))
    bundle = edge.build(
        tmp_path / "toy.onnx",
        model="toy",
        target=engine,
        recipe=recipe,
        calibration=pictures / "calibration",
        evaluation=pictures / "evaluation",
        output=tmp_path / "toy.edge",
    )
    spec = network.spec
    assert bundle.manifest.spec == spec
    assert bundle.manifest.golden.cases == (golden.STEPS if spec.state else 1)
    first, *later = edge.Bundle.open(tmp_path / "toy.edge").golden()
    assert set(first.inputs) == {pair.input for pair in spec.state}
    assert not any(array.any() for array in first.inputs.values())
    for case in later:  # what was remembered by then
        assert all(array.any() for array in case.inputs.values())
    prefer = () if is_installed(target) else (engine, target.stand_in)
    with edge.load(tmp_path / "toy.edge", prefer=prefer) as model:  # runs its golden vectors
        kept = {} if not spec.state else {"state": model.new_state()}
        image = toys.frame()
        answers = [model(image, boxes=[[8, 16, 40, 48]], **kept).values for _ in range(3)]
        inputs, _ = model.task.preprocess(image, "rgb", (8, 16, 40, 48))
    wanted, state = [], State(spec)
    for _ in range(3):
        outputs = network.compute({**inputs, **state.tensors})
        state.update(outputs)
        wanted.append(outputs["answer"][0])
    np.testing.assert_allclose(answers, wanted, atol=0.2 if precision == "int8" else 1e-3)
    moved = np.abs(np.diff(wanted, axis=0)).max()
    assert moved > 0.01 if spec.state else moved == 0


def test_calibration_sees_the_state_that_the_float_network_reaches(network, pictures, tmp_path):
    model = source_model(network.spec, tmp_path / "toy.onnx")
    bench = Workbench(model, calibration=pictures / "calibration", evaluation=pictures / "evaluation")
    recipe = toys.INT8
    frames, spec = bench.frames(recipe), network.spec
    assert len(frames) == recipe.calibration_items * (calibration.STEPS if spec.state else 1)
    assert all(set(frame) == {t.name for t in spec.inputs} for frame in frames)
    if not spec.state:
        return
    assert not frames[0]["state"].any()
    with float_session(model) as session:
        state = State(spec)
        for frame in frames[: calibration.STEPS]:
            np.testing.assert_array_equal(frame["state"], state.tensors["state"])
            infer(session, {"clip": frame["clip"]}, state)
    assert frames[1]["state"].any()
