"""Networks of several inputs, a crop beside a vector and a clip with a state, from a float graph to a proven bundle."""

import importlib.util

import numpy as np
import pytest

pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("onnxruntime", reason="engine not installed")

import added_task
import numbers_task
import toys

import edge_sdk as edge
from edge_quantize import calibration, golden
from edge_quantize.workbench import Workbench, float_session, source_model
from edge_sdk import zoo
from edge_sdk.image import write_image
from edge_sdk.state import State
from edge_sdk.target import find_target, infer, is_installed
from edge_targets.conformance.several_inputs import CLIP, PAIR

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
    added_task.add(monkeypatch, tmp_path / "added", "numbers", numbers_task.TASK, numbers_task.EVALUATOR)
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
