"""One suite over every target and precision: what the runtime may rely on."""

import builtins
import dataclasses
import importlib.util

import numpy as np
import pytest
import toys

from edge_sdk.engine_cache import EngineCache
from edge_sdk.errors import (
    CompileFailed,
    InferFailed,
    InputError,
    LoadFailed,
    MissingDependency,
    UnsupportedRecipe,
)
from edge_sdk.model import snr_db
from edge_sdk.target import TARGETS, Artifact, FloatModel, LoadOptions, find_target
from edge_sdk.tasks import DetectionTask
from edge_sdk.tensors import TensorSpec

RECIPES = {"fp32": toys.FP32, "int8": toys.INT8}
NEEDS = {
    ("openvino", "int8"): "nncf",
    ("tflite", "int8"): "ai_edge_quantizer",
    ("onnxruntime", "int8"): "onnx",
}


def pixels(seed=0):
    return toys.picture(np.random.default_rng(seed))[0][None]


@pytest.fixture(scope="module", params=TARGETS)
def target(request):
    found = find_target(request.param)
    if request.param == "tensorrt" and not importlib.util.find_spec("tensorrt"):
        request.getfixturevalue("tensorrt_on_the_processor")
    if not any(importlib.util.find_spec(module) for module in found.modules):
        pytest.skip(f"engine of {request.param} is not installed")
    return found


@pytest.fixture(scope="module", params=["fp32", "int8"])
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def artifact(target, precision, request):
    if needed := NEEDS.get((target.name, precision)):
        pytest.importorskip(needed, reason="host tool not installed")
    model = FloatModel(toys.SPEC, request.getfixturevalue("toy_onnx"))
    if target.name == "tflite":
        model = FloatModel(toys.SPEC, model.onnx, request.getfixturevalue("toy_tflite"))
    calibration = [pixels(seed) for seed in range(16)] if precision == "int8" else []
    return target.compile(model, recipe=RECIPES[precision], calibration=calibration)


@pytest.fixture
def session(target, artifact):
    with target.load(artifact, toys.SPEC, options=LoadOptions(threads=1)) as session:
        yield session


def test_outputs_have_the_specs_names_shapes_and_types(session):
    outputs = session.infer(pixels())
    assert set(outputs) == {t.name for t in toys.SPEC.outputs}
    for t in toys.SPEC.outputs:
        t.check(outputs[t.name])


def test_it_computes_what_the_network_says(session, precision):
    for seed in range(3):
        outputs = session.infer(pixels(seed))
        for name, expected in toys.engine(pixels(seed)).items():
            assert snr_db(expected, outputs[name]) > (90 if precision == "fp32" else 20), name


def test_it_finds_the_square(session):
    image, boxes, classes = toys.picture(np.random.default_rng(4))
    task = DetectionTask(toys.SPEC)
    canvas, transform = task.preprocess(image)
    found = task.postprocess(session.infer(canvas), transform)
    assert len(found) >= 1
    assert found.class_ids[0] == classes[0]
    x1, y1, x2, y2 = boxes[0]
    cx, cy = (found.boxes[0, :2] + found.boxes[0, 2:]) / 2
    assert x1 <= cx <= x2
    assert y1 <= cy <= y2


def test_the_same_frame_gives_the_same_answer(session):
    first = {name: value.copy() for name, value in session.infer(pixels()).items()}
    for _ in range(4):
        for name, value in session.infer(pixels()).items():
            assert np.array_equal(first[name], value)


def test_answers_hold_until_the_next_frame_and_holding_them_hinders_nothing(session):
    held = session.infer(pixels(0))
    before = {name: value.copy() for name, value in held.items()}
    for name, value in held.items():
        assert np.array_equal(before[name], value)
    session.infer(pixels(1))


def test_a_reused_canvas_is_read_anew(session):
    canvas = pixels(0).copy()
    first = {name: value.copy() for name, value in session.infer(canvas).items()}
    canvas[...] = pixels(1)
    second = session.infer(canvas)
    assert any(not np.array_equal(first[name], second[name]) for name in first)
    for name, expected in toys.engine(pixels(1)).items():
        assert snr_db(expected, second[name]) > 20


def test_a_read_only_frame_is_no_problem(session):
    frozen = pixels(2).copy()
    frozen.setflags(write=False)
    for name, expected in toys.engine(frozen).items():
        assert snr_db(expected, session.infer(frozen)[name]) > 20


def test_a_read_only_view_of_a_reused_canvas_is_read_anew(session):
    canvas = pixels(0).copy()
    view = canvas.view()
    view.setflags(write=False)  # what a camera's mapped buffer looks like
    session.infer(view)
    canvas[...] = pixels(1)
    for name, value in session.infer(view).items():
        assert snr_db(toys.engine(pixels(1))[name], value) > 20, name


@pytest.mark.parametrize("wrong", [np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 64, 64, 3), np.float32)])
def test_pixels_of_another_shape_or_type_are_an_error_and_the_session_goes_on(session, wrong):
    with pytest.raises(InferFailed) as caught:
        session.infer(wrong)
    assert caught.value.remedy
    for name, expected in toys.engine(pixels()).items():
        assert snr_db(expected, session.infer(pixels())[name]) > 20


def test_two_sessions_do_not_share_their_answers(target, artifact, session):
    held = session.infer(pixels(0))
    before = {name: value.copy() for name, value in held.items()}
    with target.load(artifact, toys.SPEC, options=LoadOptions(threads=1)) as other:
        other.infer(pixels(1))
        for name, value in held.items():
            assert np.array_equal(before[name], value)


def test_more_threads_give_the_same_faces(target, artifact, session):
    with target.load(artifact, toys.SPEC, options=LoadOptions(threads=2)) as two:
        one = {name: value.copy() for name, value in session.infer(pixels()).items()}
        for name, value in two.infer(pixels()).items():
            np.testing.assert_allclose(one[name], value, atol=1e-3)


def test_closing_twice_is_fine_and_inferring_afterwards_is_an_error(target, artifact):
    session = target.load(artifact, toys.SPEC, options=LoadOptions())
    session.close()
    session.close()
    with pytest.raises(InferFailed) as caught:
        session.infer(pixels())
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: b"no model", lambda d: d[: len(d) // 2]])
def test_a_damaged_artifact_is_refused(target, artifact, damage):
    broken = Artifact({n: damage(d) for n, d in artifact.files.items()}, artifact.outputs)
    with pytest.raises(LoadFailed, match=target.name):
        target.load(broken, toys.SPEC, options=LoadOptions())


def test_an_artifact_without_its_file_is_refused(target, artifact):
    with pytest.raises(LoadFailed, match=target.name):
        target.load(Artifact({"other": b""}, artifact.outputs), toys.SPEC, options=LoadOptions())


def test_an_artifact_of_another_network_is_refused_by_tensor(target, artifact):
    renamed = tuple(
        TensorSpec(t.name, (1, 9, 9, 2), t.dtype, t.layout) if t.name == "cls8" else t
        for t in toys.SPEC.outputs
    )
    spec = dataclasses.replace(toys.SPEC)
    object.__setattr__(spec, "outputs", renamed)  # a spec that its own checks would refuse
    with pytest.raises(LoadFailed, match="cls8"):
        target.load(artifact, spec, options=LoadOptions())


def test_compiling_twice_gives_the_same_bytes(target, precision, artifact, request):
    model = FloatModel(toys.SPEC, request.getfixturevalue("toy_onnx"))
    if target.name == "tflite":
        model = FloatModel(toys.SPEC, model.onnx, request.getfixturevalue("toy_tflite"))
    calibration = [pixels(seed) for seed in range(16)] if precision == "int8" else []
    again = target.compile(model, recipe=RECIPES[precision], calibration=calibration)
    assert again == artifact


@pytest.mark.parametrize("name", TARGETS)
def test_a_missing_engine_is_named_with_the_command_that_installs_it(name, monkeypatch):
    target = find_target(name)
    real = builtins.__import__

    def without(module, *args, **kwargs):
        if module.split(".")[0] in target.modules:
            raise ImportError(f"No module named {module!r}")
        return real(module, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency, match="pip install") as caught:
        target.load(Artifact({}, ()), toys.SPEC, options=LoadOptions())
    assert f"face-edge-sdk[{target.distribution}]" in caught.value.remedy


@pytest.fixture
def openvino_artifact(toy_onnx, tmp_path):
    openvino = pytest.importorskip("openvino", reason="engine of openvino is not installed")
    openvino.save_model(openvino.Core().read_model(toy_onnx), tmp_path / "model.xml", compress_to_fp16=False)
    files = {name: (tmp_path / name).read_bytes() for name in ("model.bin", "model.xml")}
    return Artifact(files=files, outputs=tuple(t.name for t in toys.SPEC.outputs))


def test_openvino_starts_again_from_what_it_compiled(openvino_artifact, tmp_path, monkeypatch):
    import openvino

    options = LoadOptions(threads=1, cache=EngineCache(tmp_path / "engines"))
    with find_target("openvino").load(openvino_artifact, toys.SPEC, options=options) as session:
        first = {name: value.copy() for name, value in session.infer(pixels()).items()}
    # A second compilation would be an error now.
    monkeypatch.setattr(openvino.Core, "compile_model", None)
    with find_target("openvino").load(openvino_artifact, toys.SPEC, options=options) as session:
        again = session.infer(pixels())
        assert all((again[name] == first[name]).all() for name in first)
    with pytest.raises(LoadFailed):
        find_target("openvino").load(
            openvino_artifact, toys.SPEC, options=LoadOptions(threads=2, cache=options.cache)
        )


def test_what_openvino_refuses_from_the_cache_is_compiled_again(openvino_artifact, tmp_path, monkeypatch):
    cache = EngineCache(tmp_path / "engines")
    monkeypatch.setattr(cache, "get", lambda facts: b"not an engine at all")
    with find_target("openvino").load(
        openvino_artifact, toys.SPEC, options=LoadOptions(threads=1, cache=cache)
    ) as session:
        assert set(session.infer(pixels())) == {t.name for t in toys.SPEC.outputs}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(
    "changes", [{"granularity": "cell"}, {"method": "guess"}, {"precision": "int4"}, {"symmetric": "maybe"}]
)
def test_a_recipe_that_it_cannot_follow_is_refused_by_name(name, changes, tmp_path):
    recipe = dataclasses.replace(toys.INT8, name="odd", **changes)
    with pytest.raises(UnsupportedRecipe, match=rf"{name} .* recipe odd: {next(iter(changes))} is"):
        find_target(name).compile(
            FloatModel(toys.SPEC, tmp_path / "never read.onnx"), recipe=recipe, calibration=()
        )


def test_a_float_tflite_of_another_network_is_refused_by_output(toy_tflite, toy_onnx):
    pytest.importorskip("ai_edge_litert", reason="engine of tflite is not installed")
    model = FloatModel(toys.CLASSIFIER, toy_onnx, toy_tflite)
    with pytest.raises(CompileFailed, match=r"6 outputs, output_0.*wants 1, there 'logits'"):
        find_target("tflite").compile(model, recipe=toys.FP32, calibration=())


def compiled(target, request, **changes):
    """The toy in mixed precision."""
    if needed := NEEDS.get((target.name, "int8")):
        pytest.importorskip(needed, reason="host tool not installed")
    model = FloatModel(toys.SPEC, request.getfixturevalue("toy_onnx"))
    if target.name == "tflite":
        model = FloatModel(toys.SPEC, model.onnx, request.getfixturevalue("toy_tflite"))
    recipe = dataclasses.replace(toys.INT8, name="int8-mixed", precision="int8-mixed", **changes)
    return target.compile(model, recipe=recipe, calibration=[pixels(seed) for seed in range(16)])


def test_what_a_recipe_keeps_in_float_is_computed_in_float(target, request):
    some, everything = ("m_box8", "m_cls16"), ("Mul", *(f"m_{t.name}" for t in toys.SPEC.outputs))
    size, quality = {}, {}
    for keep in ((), some, everything):
        artifact = compiled(target, request, keep_float=keep)
        size[keep] = sum(map(len, artifact.files.values()))
        with target.load(artifact, toys.SPEC, options=LoadOptions(threads=1)) as session:
            found = session.infer(pixels(3))
            quality[keep] = {n: snr_db(v, found[n]) for n, v in toys.engine(pixels(3)).items()}
    assert min(quality[everything].values()) > 90
    # The pixels go in as they are, so that nothing is lost where the weights stay.
    assert all(quality[some][name] > 100 > quality[()][name] for name in ("box8", "cls16"))
    assert all(abs(quality[some][name] - quality[()][name]) < 3 for name in ("box16", "cls32"))
    if target.name != "tensorrt":  # its weights stay in float before their pairs
        assert size[()] < size[some] < size[everything]


def test_a_part_that_the_network_does_not_have_is_named(target, request):
    with pytest.raises(InputError, match="'m_box9'"):
        compiled(target, request, keep_float=("m_box9",))
