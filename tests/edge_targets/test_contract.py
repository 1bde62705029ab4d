"""One suite over every target and precision: what the runtime may rely on."""

import builtins
import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import toys

from edge_quantize.recipe import read_recipe
from edge_sdk import zoo
from edge_sdk.engine_cache import EngineCache
from edge_sdk.errors import (
    CompileFailed,
    InputError,
    LoadFailed,
    MissingDependency,
    UnsupportedRecipe,
)
from edge_sdk.model import snr_db
from edge_sdk.target import TARGETS, Artifact, FloatModel, LoadOptions, find_target
from edge_targets import conformance

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


@pytest.fixture(scope="module", params=["fp32", "fp16", "int8"])
def kit(target, request, tmp_path_factory):
    if needed := NEEDS.get((target.name, request.param)):
        pytest.importorskip(needed, reason="host tool not installed")
    pytest.importorskip("onnx", reason="host tool not installed")
    try:
        return conformance.Kit.build(target, request.param, tmp_path_factory.mktemp("conformance"))
    except UnsupportedRecipe:
        pytest.skip(f"{target.name} makes no {request.param}")


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_it_conforms(check, kit):
    check(kit)


@pytest.mark.parametrize("name", TARGETS)
def test_a_missing_engine_is_named_with_our_own_extra(name, monkeypatch):
    target = find_target(name)
    real = builtins.__import__

    def without(module, *args, **kwargs):
        if module.split(".")[0] in target.modules:
            raise ImportError(f"No module named {module!r}")
        return real(module, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency) as caught:
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


FITTING = {
    "onnxruntime": ("fp16", "int8-tensor", "int8-mse", "int8-mse-sym", "int8-percentile", "int8-sym"),
    "openvino": ("fp16", "int8-wonly", "int8-mse", "int8-percentile", "int8-sym"),
    "tflite": ("fp16", "int8-wonly", "int8-tensor", "int8-mse"),
}


@pytest.mark.parametrize(("name", "recipe"), [(t, r) for t, names in FITTING.items() for r in names])
def test_a_recipe_that_fits_is_followed_and_the_network_still_computes_what_it_says(name, recipe, request):
    pytest.importorskip("onnx", reason="host tool not installed")
    target = find_target(name)
    for module in (*target.modules[:1], *([needed] if (needed := NEEDS.get((name, "int8"))) else [])):
        pytest.importorskip(module, reason="host tool not installed")
    model = FloatModel(toys.SPEC, request.getfixturevalue("toy_onnx"))
    if name == "tflite":
        model = FloatModel(toys.SPEC, model.onnx, request.getfixturevalue("toy_tflite"))
    asked = read_recipe(recipe)
    calibration = [pixels(seed) for seed in range(16)] if asked.calibrated else []
    made = target.compile(model, recipe=asked, calibration=calibration)
    plain = target.compile(model, recipe=toys.FP32, calibration=())
    assert made.files != plain.files
    if not asked.calibrated:
        assert sum(map(len, made.files.values())) < 0.8 * sum(map(len, plain.files.values()))
    with target.load(made, toys.SPEC, options=LoadOptions(threads=1)) as session:
        for output, expected in toys.engine(pixels(3)).items():
            assert snr_db(expected, session.infer(pixels(3))[output]) > (45 if recipe == "fp16" else 15), (
                output
            )


def one_bright_picture():
    """A network, and calibration pictures of which number 5 makes it compute far more than the others."""
    weights = Path(__file__).parents[2] / "training/weights"
    model = FloatModel(zoo.spec("fer-gmenet"), weights / "fer-gmenet.onnx", weights / "fer-gmenet.tflite")
    rng = np.random.default_rng(0)
    noise = rng.integers(-8, 8, (16, 1, 6, 6, 1)).astype(float)
    noise[5] *= 15
    return model, list((128 + np.tile(noise.repeat(8, 2).repeat(8, 3), (1, 1, 1, 1, 3))).astype(np.uint8))


@pytest.mark.parametrize(
    ("name", "recipe"),
    [(t, r) for t, names in FITTING.items() for r in names if "mse" in r or "percent" in r],
)
def test_another_method_finds_other_ranges(name, recipe):
    """A tool's method may do nothing at all, under another name."""
    target = find_target(name)
    for module in (*target.modules[:1], NEEDS[name, "int8"]):
        pytest.importorskip(module, reason="host tool not installed")
    model, pictures = one_bright_picture()
    asked = read_recipe(recipe)
    whole = dataclasses.replace(asked, method="minmax")
    made, plain = (target.compile(model, recipe=r, calibration=pictures) for r in (asked, whole))
    assert made.files != plain.files


@pytest.mark.filterwarnings("ignore:.*XNNPACK")
@pytest.mark.parametrize("name", FITTING)
def test_ranges_hold_what_one_calibration_picture_alone_reaches(name):
    """Tools that average the pictures' extremes cut off half of what the brightest one makes the network compute."""
    target = find_target(name)
    for module in (*target.modules[:1], NEEDS[name, "int8"]):
        pytest.importorskip(module, reason="host tool not installed")
    model, pictures = one_bright_picture()
    answers = []
    for recipe in (toys.FP32, read_recipe("int8")):
        calibration = pictures if recipe.calibrated else []
        made = target.compile(model, recipe=recipe, calibration=calibration)
        with target.load(made, model.spec, options=LoadOptions(threads=1)) as session:
            answers.append(session.infer(pictures[5])["logits"].copy())
    assert snr_db(*answers) > 20


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
