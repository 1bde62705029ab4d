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
from edge_sdk.errors import InputError, MissingDependency, UnsupportedRecipe
from edge_sdk.target import Artifact, LoadOptions, Ranges, SourceModel, find_target, target_names
from edge_sdk.verify import snr_db
from edge_targets import conformance

NEEDS = {
    ("openvino", "int8"): "nncf",
    ("tflite", "int8"): "ai_edge_quantizer",
    ("onnxruntime", "int8"): "onnx",
}


TARGETS = target_names()


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
def test_an_option_that_an_engine_does_not_have_lists_those_that_it_has(name):
    target = find_target(name)
    with pytest.raises(InputError, match=f"target {name} has no option 'speed', 11 was asked for") as caught:
        target.load(Artifact({}, (), ()), toys.SPEC, options=LoadOptions(engine={"speed": 11}))
    have = [f.name for f in dataclasses.fields(target.options)]
    assert all(option in caught.value.remedy for option in have or ["it has no options of its own"])


def test_nothing_depends_on_the_order_in_which_engines_calibrate(target, toy_onnx, toy_tflite):
    """What one model's calibration found is no other's."""
    if needed := NEEDS.get((target.name, "int8")):
        pytest.importorskip(needed, reason="host tool not installed")
    model = SourceModel(toys.SPEC, toy_onnx, toy_tflite)
    first, second = toys.frames(), [toys.inputs(seed) for seed in range(100, 116)]
    alone = toys.compile_by(target, model, toys.INT8, second)
    ranges = [target.calibrate(model, recipe=toys.INT8, frames=f) for f in (first, second)]
    assert target.compile(model, recipe=toys.INT8, ranges=ranges[1]) == alone
    assert target.compile(model, recipe=toys.INT8, ranges=ranges[0]) != alone


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
        target.load(Artifact({}, (), ()), toys.SPEC, options=LoadOptions())
    assert f"face-edge-sdk[{target.distribution}]" in caught.value.remedy


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
    model = SourceModel(toys.SPEC, request.getfixturevalue("toy_onnx"))
    if name == "tflite":
        model = SourceModel(toys.SPEC, model.onnx, request.getfixturevalue("toy_tflite"))
    asked = read_recipe(recipe)
    made, plain = (toys.compile_by(target, model, r, toys.frames()) for r in (asked, toys.FP32))
    assert made.files != plain.files
    if not asked.calibrated:
        assert sum(map(len, made.files.values())) < 0.8 * sum(map(len, plain.files.values()))
    with target.load(made, toys.SPEC, options=LoadOptions(threads=1)) as session:
        found = session.infer(toys.inputs(3))
        for output, expected in toys.answers(3).items():
            assert snr_db(expected, found[output]) > (45 if recipe == "fp16" else 15), output


def one_bright_picture():
    """A network, and calibration pictures of which number 5 makes it compute far more than the others."""
    weights = Path(__file__).parents[2] / "training/weights"
    model = SourceModel(zoo.spec("fer-gmenet"), weights / "fer-gmenet.onnx", weights / "fer-gmenet.tflite")
    rng = np.random.default_rng(0)
    noise = rng.integers(-8, 8, (16, 1, 6, 6, 1)).astype(float)
    noise[5] *= 15
    pictures = (128 + np.tile(noise.repeat(8, 2).repeat(8, 3), (1, 1, 1, 1, 3))).astype(np.uint8)
    return model, [{"pixels": picture} for picture in pictures]


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
    made, plain = (toys.compile_by(target, model, r, pictures) for r in (asked, whole))
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
        made = toys.compile_by(target, model, recipe, pictures)
        with target.load(made, model.spec, options=LoadOptions(threads=1)) as session:
            answers.append(session.infer(pictures[5])["logits"].copy())
    assert snr_db(*answers) > 20


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(
    "changes", [{"granularity": "cell"}, {"method": "guess"}, {"precision": "int4"}, {"symmetric": "maybe"}]
)
def test_a_recipe_that_it_cannot_follow_is_refused_by_name(name, changes, tmp_path):
    recipe = dataclasses.replace(toys.INT8, name="odd", **changes)
    target, model = find_target(name), SourceModel(toys.SPEC, tmp_path / "never read.onnx")
    refused = rf"{name} .* recipe odd: {next(iter(changes))} is"
    with pytest.raises(UnsupportedRecipe, match=refused):
        target.compile(model, recipe=recipe)
    with pytest.raises(UnsupportedRecipe, match=refused):
        target.calibrate(model, recipe=recipe, frames=())


@pytest.mark.parametrize("ranges", [None, Ranges("another", {})])
def test_ranges_that_it_did_not_make_are_refused(target, ranges, toy_onnx, toy_tflite):
    model = SourceModel(toys.SPEC, toy_onnx, toy_tflite)
    with pytest.raises(InputError, match=f"target {target.name} needs the ranges that it calibrated"):
        target.compile(model, recipe=toys.INT8, ranges=ranges)


def test_one_calibration_serves_every_choice_of_what_stays_in_float(target, toy_onnx, toy_tflite):
    if needed := NEEDS.get((target.name, "int8")):
        pytest.importorskip(needed, reason="host tool not installed")
    model = SourceModel(toys.SPEC, toy_onnx, toy_tflite)
    mixed = dataclasses.replace(toys.INT8, name="int8-mixed", precision="int8-mixed", keep_float=("m_box8",))
    ranges = target.calibrate(model, recipe=toys.INT8, frames=toys.frames())
    for recipe in (mixed, toys.INT8, mixed):
        assert target.compile(model, recipe=recipe, ranges=ranges) == toys.compile_by(
            target, model, recipe, toys.frames()
        )


def compiled(target, request, **changes):
    """The toy in mixed precision."""
    if needed := NEEDS.get((target.name, "int8")):
        pytest.importorskip(needed, reason="host tool not installed")
    model = SourceModel(toys.SPEC, request.getfixturevalue("toy_onnx"))
    if target.name == "tflite":
        model = SourceModel(toys.SPEC, model.onnx, request.getfixturevalue("toy_tflite"))
    recipe = dataclasses.replace(toys.INT8, name="int8-mixed", precision="int8-mixed", **changes)
    return toys.compile_by(target, model, recipe)


def test_what_a_recipe_keeps_in_float_is_computed_in_float(target, request):
    some, everything = ("m_box8", "m_cls16"), ("Mul", *(f"m_{t.name}" for t in toys.SPEC.outputs))
    size, quality = {}, {}
    for keep in ((), some, everything):
        artifact = compiled(target, request, keep_float=keep)
        size[keep] = sum(map(len, artifact.files.values()))
        with target.load(artifact, toys.SPEC, options=LoadOptions(threads=1)) as session:
            found = session.infer(toys.inputs(3))
            quality[keep] = {n: snr_db(v, found[n]) for n, v in toys.answers(3).items()}
    assert min(quality[everything].values()) > 90
    # The pixels go in as they are, so that nothing is lost where the weights stay.
    assert all(quality[some][name] > 100 > quality[()][name] for name in ("box8", "cls16"))
    assert all(abs(quality[some][name] - quality[()][name]) < 3 for name in ("box16", "cls32"))
    if target.name != "tensorrt":  # its weights stay in float before their pairs
        assert size[()] < size[some] < size[everything]


def test_a_part_that_the_network_does_not_have_is_named(target, request):
    with pytest.raises(InputError, match="'m_box9'"):
        compiled(target, request, keep_float=("m_box9",))
