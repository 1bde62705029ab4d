"""Networks that were fine-tuned for int8: the toy with pairs where TensorRT wants them stands for one."""

import json

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="host tool not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="engine not installed")
pytest.importorskip("pycocotools", reason="host tool not installed")

import toys  # noqa: E402

import edge_sdk as edge  # noqa: E402
from edge_quantize.build import build  # noqa: E402
from edge_quantize.graph.qat_import import for_onnxruntime  # noqa: E402
from edge_quantize.recipe import read_recipe  # noqa: E402
from edge_quantize.search import auto  # noqa: E402
from edge_quantize.workbench import Workbench, source_model  # noqa: E402
from edge_sdk import zoo  # noqa: E402
from edge_sdk.cli import main  # noqa: E402
from edge_sdk.errors import CompileFailed, GateFailed, InputError, UnsupportedRecipe  # noqa: E402
from edge_sdk.host import BuildRequest  # noqa: E402
from edge_sdk.target import SourceModel, find_target  # noqa: E402
from edge_sdk.tasks import task_of  # noqa: E402
from edge_sdk.verify import snr_db  # noqa: E402
from edge_targets.tensorrt import qdq_placement as qdq  # noqa: E402


def frames(count=8):
    rng = np.random.default_rng(5)
    task = task_of(toys.SPEC)
    return [{"pixels": task.preprocess(toys.picture(rng)[0])[0]["pixels"].copy()} for _ in range(count)]


@pytest.fixture(scope="module")
def graph(toy_onnx):
    """Explicit QDQ, the operators in the order that the exporter gives them."""
    model = onnx.load(str(toy_onnx))
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    return qdq.quantize(model, qdq.ranges(model, frames()))


@pytest.fixture(scope="module")
def quantized(graph, tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "toy.qat.onnx"
    onnx.save(graph, str(path))
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    toys.write_pictures(folder / "calibration", 20, 1, labelled=False)
    toys.write_pictures(folder / "evaluation", 40, 2)
    return folder


@pytest.fixture
def built(pictures, toy_onnx, quantized, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "spec", lambda name: toys.SPEC)

    def run(**changes):
        settings = {
            "onnx": toy_onnx,
            "model": "toy",
            "target": "onnxruntime",
            "recipe": toys.write_recipe(pictures, "int8", name="toy-qat", method="trained", items=0),
            "calibration": None,
            "evaluation": pictures / "evaluation",
            "output": tmp_path / "toy.edge",
            "quantized": quantized,
        }
        settings = {**settings, **changes}
        return build(BuildRequest(**{**settings, "recipe": str(settings["recipe"])}))

    return run


def answers(model, frame):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [t.name for t in toys.SPEC.outputs]
    return dict(zip(names, session.run(names, frame), strict=True))


def changed(graph, edit, path):
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    edit(copy.graph)
    onnx.save(copy, str(path))
    return path


def widen(graph):
    """Activations' scales a thousand times too large, as after a fine-tuning that went wrong."""
    for tensor in graph.initializer:
        if tensor.name.endswith("_scale"):
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(values * 1000), tensor.name))


@pytest.mark.parametrize("engine", ["onnxruntime", "tensorrt"])
def test_a_fine_tuned_network_is_gated_against_the_float_one_and_answers(built, engine, tmp_path, pictures):
    bundle = built(target=engine)
    plain = built(recipe=toys.write_recipe(pictures, "fp32"), quantized=None, output=tmp_path / "plain.edge")
    assert (bundle.manifest.recipe.method, bundle.manifest.calibration) == ("trained", None)
    for name, metric in bundle.manifest.gate.metrics.items():
        assert metric.reference == plain.manifest.gate.metrics[name].reference
    if engine == "onnxruntime":
        with edge.load(tmp_path / "toy.edge") as model:  # runs its golden vectors
            assert model.info.precision == "int8"
            assert model(toys.frame()).labels == ("red",)


def test_what_fine_tuning_spoilt_fails_the_gate(built, graph, tmp_path):
    with pytest.raises(GateFailed):
        built(quantized=changed(graph, widen, tmp_path / "spoilt.onnx"))
    assert not (tmp_path / "toy.edge").exists()


def test_onnxruntime_gets_the_same_numbers_in_unsigned_8_bits(graph):
    made = for_onnxruntime(graph)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    readers = {name: node for node in made.graph.node for name in node.input}
    convolutions = [n for n in made.graph.node if n.op_type == "Conv"]
    makers = {n.output[0]: n for n in made.graph.node}
    assert convolutions
    for conv in convolutions:
        pixels, weight = (makers[name].input for name in conv.input[:2])
        assert constants[weight[0]].dtype == np.int8
        assert constants[pixels[2]].dtype == np.uint8
    # Pixels go in as they are, by their own scale.
    (first,) = {node.op_type for name, node in readers.items() if name == "pixels"}
    assert first == "Transpose"
    assert not [n for n in made.graph.node if n.op_type == "Cast"]
    assert len(made.SerializeToString()) < len(graph.SerializeToString())
    for frame in frames(3):
        expected = answers(graph, frame)
        for name, value in answers(made, frame).items():
            assert snr_db(expected[name], value) > 30, name


def test_what_a_relu_makes_keeps_its_step_and_starts_at_zero():
    helper, tensor = onnx.helper, onnx.TensorProto
    pair = ["s", "z"]
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", *pair], ["q"]),
        helper.make_node("DequantizeLinear", ["q", *pair], ["d"]),
        helper.make_node("Neg", ["d"], ["n"]),
        helper.make_node("QuantizeLinear", ["n", *pair], ["p"]),
        helper.make_node("DequantizeLinear", ["p", *pair], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, tensor.FLOAT, (5,)) for name in "xy"]
    constants = [
        onnx.numpy_helper.from_array(np.array(0.5, np.float32), "s"),
        onnx.numpy_helper.from_array(np.array(0, np.int8), "z"),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "relu", ends[:1], ends[1:], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    made = for_onnxruntime(model)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array([-3, 0, 0.7, 30, 63.5], np.float32)
    assert session.run(None, {"x": x})[0].tolist() == [0, 0, -0.5, -30, -63.5]
    zeros = [onnx.numpy_helper.to_array(t) for t in made.graph.initializer if "zero_point" in t.name]
    assert sorted(map(int, zeros)) == [0, 128]


def test_tensorrt_takes_it_as_it_is_and_the_linter_looks(graph, toy_onnx, tmp_path, quantized):
    target, recipe = find_target("tensorrt"), read_recipe("int8-qat")
    model = SourceModel(toys.SPEC, toy_onnx, quantized=quantized)
    made = onnx.load_from_string(target.compile(model, recipe=recipe).files["model.onnx"])
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") > 0
    weights = [onnx.numpy_helper.to_array(t) for t in made.graph.initializer]
    assert any(w.ndim == 4 and w.dtype == np.float32 for w in weights)

    def quantize_an_output(graph):
        name = graph.output[0].name
        (maker,) = (node for node in graph.node if name in node.output)
        maker.output[0] = "inner"
        scale = next(
            n.input[1:] for n in graph.node if n.op_type == "QuantizeLinear" and len(n.attribute) == 0
        )
        graph.node.append(onnx.helper.make_node("QuantizeLinear", ["inner", *scale], ["inner_q"], name="q"))
        graph.node.append(onnx.helper.make_node("DequantizeLinear", ["inner_q", *scale], [name], name="dq"))

    broken = changed(graph, quantize_an_output, tmp_path / "broken.onnx")
    with pytest.raises(CompileFailed, match="qdq-output"):
        target.compile(SourceModel(toys.SPEC, toy_onnx, quantized=broken), recipe=recipe)


@pytest.mark.parametrize("engine", ["openvino", "tflite"])
def test_an_engine_with_tools_of_its_own_refuses(built, engine, tmp_path):
    with pytest.raises(UnsupportedRecipe, match="method is trained"):
        built(target=engine)
    assert not (tmp_path / "toy.edge").exists()


def unsigned(graph):
    for tensor in graph.initializer:
        if tensor.name.endswith("_zero_point"):
            values = onnx.numpy_helper.to_array(tensor).astype(np.uint8)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    del graph.value_info[:]


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda graph, folder: {"quantized": None}, "fine-tuned for int8, and none"),
        (lambda graph, folder: {"recipe": "int8"}, "recipe int8 quantizes the float network"),
        (lambda graph, folder: {"recipe": "fp32"}, "recipe fp32"),
        (lambda graph, folder: {"quantized": folder / "none.onnx"}, r"none\.onnx"),
        (lambda graph, folder: {"quantized": toys.write_onnx(folder / "f.onnx")}, "float graph"),
        (
            lambda graph, folder: {"quantized": toys.write_classifier_onnx(folder / "c.onnx")},
            "c.onnx: the spec wants tensor 'pixels'",
        ),
        (
            lambda graph, folder: {"quantized": changed(graph, unsigned, folder / "u.onnx")},
            "not quantized to symmetric int8",
        ),
    ],
)
def test_what_does_not_go_together_is_named_with_what_to_do(built, graph, tmp_path, wrong, match):
    with pytest.raises(InputError, match=match) as caught:
        built(**wrong(graph, tmp_path))
    assert caught.value.remedy
    assert not (tmp_path / "toy.edge").exists()


def test_auto_tries_a_fine_tuned_network_where_there_is_one(pictures, toy_onnx, quantized, monkeypatch):
    recipes = {
        n: read_recipe(toys.write_recipe(pictures, n, name=n))
        for n in ("fp32", "int8-wonly", "fp16", "int8", "int8-mixed")
    }
    recipes["int8-qat"] = read_recipe(
        toys.write_recipe(pictures, "int8", name="int8-qat", method="trained", items=0)
    )
    monkeypatch.setattr(auto.mixed, "quicker", lambda bench, target, recipe: None)
    monkeypatch.setattr(auto, "read_recipe", lambda name: recipes[name])
    monkeypatch.setattr(
        auto, "relative_latency", lambda *_: {"int8-qat": 0.5, "int8": 0.6, "fp16": 1.0, "fp32": 1.0}
    )
    folders = {"calibration": pictures / "calibration", "evaluation": pictures / "evaluation"}
    bench = Workbench(source_model(toys.SPEC, toy_onnx, quantized=quantized), **folders)
    bundle, rows = auto.search(bench, find_target("onnxruntime"))
    assert bundle.manifest.recipe.name == "int8-qat"
    assert [row.recipe for row in rows] == ["int8-qat", "int8", "int8-wonly", "fp16", "fp32"]


def test_the_command_takes_a_quantized_graph(pictures, toy_onnx, quantized, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(zoo, "spec", lambda name: toys.SPEC)
    recipe = toys.write_recipe(tmp_path, "int8", name="toy-qat", method="trained", items=0)
    common = ["build", "toy", "--onnx", str(toy_onnx), "--target", "onnxruntime"]
    common += ["--evaluation", str(pictures / "evaluation"), "-o", str(tmp_path / "toy.edge"), "--json"]
    assert main([*common, "--recipe", str(recipe), "--quantized", str(quantized)]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["method"] == "trained"
    assert main([*common, "--recipe", "int8-qat"]) == 2
    assert "--quantized" in capsys.readouterr().err
    assert main([*common, "--recipe", "fp32", "--quantized", str(quantized)]) == 2
    assert "int8-qat" in capsys.readouterr().err
