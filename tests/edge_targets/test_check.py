"""The static gate for Jetson bundles: what it finds, by rule and node, and that every bundle of the zoo passes."""

import json
import sys

import numpy as np
import pytest

pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("onnxruntime", reason="calibration runs by it")

import onnx
import toys
from onnx import helper, numpy_helper

from edge_sdk import zoo
from edge_sdk.bundle import GoldenCase
from edge_sdk.cli import main
from edge_sdk.errors import InputError, LoadFailed
from edge_sdk.profile import read_profile
from edge_sdk.spec import Gate, Recipe
from edge_sdk.target import Artifact, SourceModel
from edge_sdk.tasks import task_of
from edge_targets.tensorrt import TARGET
from edge_targets.tensorrt import check as checking
from edge_targets.tensorrt.check import check
from edge_targets.tensorrt.session import BUILD, MODEL

FP16 = Recipe(name="fp16", precision="fp16", calibration_items=0, gate=Gate({"map50": 0.01}))
ORIN = "jetson-orin-nano"


def compiled(recipe, onnx_file, spec=toys.SPEC, frames=None):
    return toys.compile_by(TARGET, SourceModel(spec, onnx_file), recipe, frames or toys.frames(8))


def bundle_of(artifact, recipe, **changes):
    return toys.bundle(target="tensorrt", artifact=artifact, recipe=recipe, **changes)


@pytest.fixture(scope="module")
def fp16(toy_onnx):
    return bundle_of(compiled(FP16, toy_onnx), FP16)


@pytest.fixture(scope="module")
def int8(toy_onnx):
    return bundle_of(compiled(toys.INT8, toy_onnx), toys.INT8)


@pytest.fixture
def only_rules(monkeypatch):
    """Leave the slow tools out, as where they are not installed."""
    for name in ("_polygraphy", "_ahead_of_time"):
        monkeypatch.setattr(checking, name, lambda *_, name=name: checking.Step(name, "skipped", "in a test"))


def findings(report):
    return {(f.rule, f.node) for step in report.steps for f in step.findings}


def edited(bundle, edit, **changes):
    model = onnx.load_from_string(bundle.artifact.files[MODEL])
    edit(model)
    files = {**bundle.artifact.files, MODEL: model.SerializeToString()}
    artifact = Artifact(files, bundle.artifact.inputs, bundle.artifact.outputs, bundle.artifact.fingerprint)
    return bundle_of(artifact, bundle.manifest.recipe, **changes)


def node(model, name):
    return next(n for n in model.graph.node if n.name == name)


def test_what_the_target_compiles_passes(fp16, int8, only_rules):
    for bundle, precision in ((fp16, "fp16"), (int8, "int8")):
        seen = []
        report = check(bundle, read_profile(ORIN), progress=lambda *step: seen.append(step))  # noqa: B023
        assert report.passed, findings(report)
        assert report.precision == precision
        assert [s.name for s in report.steps[:3]] == ["onnx.checker", "rules", "qdq"]
        assert len(seen) == len(report.steps)


def rename(kind, new):
    def edit(model):
        node(model, "m_cls8").op_type = new

    return edit


def spoil(**changes):
    """Change a field of the node that makes m_cls8."""

    def edit(model):
        target = node(model, "m_cls8")
        for name, value in changes.items():
            if name == "op_type":
                target.op_type = value
            else:
                target.attribute.append(helper.make_attribute(name, value))

    return edit


def opset(version):
    return lambda model: setattr(model.opset_import[0], "version", version)


def pool(**attributes):
    """Put a MaxPool before the last Transpose."""

    def edit(model):
        last = model.graph.node[-1]
        outputs = ["pooled", "indices"] if attributes.pop("indices", False) else ["pooled"]
        made = helper.make_node(
            "MaxPool", [last.input[0]], outputs, name="pool", kernel_shape=[1, 1], **attributes
        )
        last.input[0] = "pooled"
        model.graph.node.insert(len(model.graph.node) - 1, made)

    return edit


def resize(model):
    last = model.graph.node[-1]
    model.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "factors"))
    made = helper.make_node("Resize", [last.input[0], "", "factors"], ["sized"], name="resize", mode="cubic")
    last.input[0] = "sized"
    model.graph.node.insert(len(model.graph.node) - 1, made)


def other_shape(model):
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3


def dynamic(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def wide_constant(model):
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "wide"))


def zero_point(model):
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_zero_point"):
            tensor.CopyFrom(numpy_helper.from_array(np.int8(5), tensor.name))
            return


@pytest.mark.parametrize(
    ("which", "edit", "rule", "at"),
    [
        ("fp16", spoil(op_type="LSTM"), "operator", "m_cls8"),
        ("fp16", spoil(op_type="Conv2"), "onnx", MODEL),
        ("fp16", opset(18), "opset", MODEL),
        ("fp16", pool(dilations=[2, 2]), "attribute", "pool"),
        ("fp16", pool(indices=True), "attribute", "pool"),
        ("fp16", resize, "attribute", "resize"),
        ("fp16", other_shape, "tensors", "box8"),
        ("fp16", dynamic, "tensors", "pixels"),
        ("fp16", wide_constant, "precision", "wide"),
        ("int8", zero_point, "qdq-symmetric", None),
    ],
)
def test_each_kind_of_problem_is_found_with_its_node(which, edit, rule, at, request, only_rules):
    report = check(edited(request.getfixturevalue(which), edit), read_profile(ORIN))
    assert not report.passed
    found = findings(report)
    assert any(r == rule and at in (None, n) for r, n in found), found
    assert {r for r, _ in found} <= set(checking.RULES)


def test_a_recipe_that_says_int8_of_a_float_graph_is_found(fp16, only_rules):
    files = {**fp16.artifact.files, BUILD: b'{"precision": "int8"}\n'}
    report = check(
        bundle_of(Artifact(files, fp16.artifact.inputs, fp16.artifact.outputs), toys.INT8), read_profile(ORIN)
    )
    assert ("precision", MODEL) in findings(report)


def test_an_operator_is_judged_by_version(fp16, only_rules, monkeypatch):
    monkeypatch.setitem(checking.OPERATORS, "Conv", (10, 0))
    report = check(fp16, read_profile(ORIN), versions=("10.3", "11"))
    assert report.passed
    (finding, *_) = check(fp16, read_profile(ORIN), versions=("8.6",)).steps[1].findings
    assert "TensorRT 8.6 is not known to have Conv" in finding.problem


def test_what_is_no_onnx_is_found_before_anything_else(fp16):
    report = check(
        bundle_of(
            Artifact(
                {MODEL: b"no", BUILD: b'{"precision": "fp16"}'}, fp16.artifact.inputs, fp16.artifact.outputs
            ),
            FP16,
        ),
        read_profile(ORIN),
    )
    assert findings(report) == {("onnx", MODEL)}


def test_other_engines_have_nothing_to_check(fp16):
    with pytest.raises(InputError, match="runs tflite"):
        check(fp16, read_profile("raspberry-pi-5"))
    with pytest.raises(InputError, match="bundle is for onnxruntime"):
        check(toys.bundle(), read_profile(ORIN))


# NVIDIA's tools.


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """A command in the place of polygraphy's."""

    def install(body):
        (tmp_path / "polygraphy").mkdir()
        (tmp_path / "polygraphy" / "__init__.py").write_text("")
        (tmp_path / "polygraphy" / "tools.py").write_text(f"import shutil, sys\ndef main():\n    {body}\n")
        (tmp_path / "onnx_graphsurgeon.py").write_text("")
        monkeypatch.syspath_prepend(str(tmp_path))
        for name in ("polygraphy", "onnx_graphsurgeon"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setattr("importlib.metadata.version", lambda name: "0")

    return install


COPY = "shutil.copy(sys.argv[-3], sys.argv[-1])"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (COPY, None),
        ("sys.exit('[!] cannot fold')", "cannot fold"),
        ("open(sys.argv[-1], 'wb').write(b'no')", "not valid"),
    ],
)
def test_what_the_sanitizer_says_counts(body, said, fp16, tool):
    tool(body)
    step = checking._polygraphy(fp16.artifact.files[MODEL])
    assert step.status == ("failed" if said else "passed")
    assert [said in f.problem for f in step.findings] == ([True] if said else [])


def test_a_tool_that_is_not_installed_is_skipped_with_the_command(fp16, monkeypatch):
    monkeypatch.setattr(checking.importlib.util, "find_spec", lambda name: None)
    report = check(fp16, read_profile(ORIN))
    assert report.passed
    skipped = {s.name: s.detail for s in report.steps if s.status == "skipped"}
    assert set(skipped) == {"polygraphy", "tensorrt-rtx"}
    assert all("pip install" in detail for detail in skipped.values())


def test_the_compilers_refusal_fails_the_check(fp16, monkeypatch):
    monkeypatch.setattr(checking.importlib.util, "find_spec", lambda name: object())
    asked = []

    def refuse(data, options):
        asked.append(options)
        raise LoadFailed("tensorrt_rtx: the parser refused the network: Conv m_cls8", remedy="-")

    monkeypatch.setattr(checking.builder, "build", refuse)
    step = checking._ahead_of_time(fp16.artifact.files[MODEL], "fp16")
    assert step.status == "failed"
    assert "m_cls8" in step.findings[0].problem
    assert (asked[0].module, asked[0].compute_capability) == ("tensorrt_rtx", "SM86")


# The verb.


def test_the_verb_prints_rules_and_nodes_and_exits_by_them(fp16, int8, only_rules, tmp_path, capsys):
    good, bad = tmp_path / "good.edge", tmp_path / "bad.edge"
    fp16.write(good)
    edited(int8, zero_point).write(bad)
    assert main(["check", str(good), "--target", ORIN]) == 0
    assert "passed" in capsys.readouterr().out
    assert main(["check", str(good), str(bad), "--target", ORIN]) == 1
    assert "qdq-symmetric at " in capsys.readouterr().out
    assert main(["check", str(bad), "--target", ORIN, "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert report["passed"] is False
    assert report["steps"][2]["findings"][0]["rule"] == "qdq-symmetric"
    assert main(["check", str(good), "--target", "raspberry-pi-5"]) == 2
    bad.write_bytes(bad.read_bytes()[:-20])
    assert main(["check", str(bad), "--target", ORIN]) == 4


# The zoo.


def float_source(name):
    try:
        return zoo.float_source(name)
    except InputError:
        pytest.skip(f"the float network of {name} is not in this checkout")


@pytest.mark.parametrize("name", zoo.NAMES)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_every_jetson_bundle_of_the_zoo_passes(name, precision):
    """The networks are real, the calibration is drawn: what is checked is their form, not their accuracy."""
    spec, source = zoo.spec(name), float_source(name)
    task, rng = task_of(spec), np.random.default_rng(0)
    # Smooth, as faces are, with noise.
    base = np.add.outer(np.arange(96), np.arange(128)).astype(np.float64) / 220 * 255
    frames = []
    for _ in range(4):
        noise = rng.integers(-40, 41, (96, 128, 3))
        picture = np.clip(base[..., None] + noise, 0, 255).astype(np.uint8)
        frames.append({name: array.copy() for name, array in task.preprocess(picture)[0].items()})
    recipe = FP16 if precision == "fp16" else toys.INT8
    artifact = compiled(recipe, source, spec, frames)
    outputs = {t.name: np.zeros(t.shape, np.float16) for t in spec.outputs}
    bundle = bundle_of(artifact, recipe, spec=spec, golden=(GoldenCase(outputs, picture),))
    report = check(bundle, read_profile(ORIN))
    assert report.passed, findings(report)
