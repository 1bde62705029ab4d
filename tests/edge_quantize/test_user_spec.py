"""A user's own network: other tools' exports are cut to our form, and what does not fit is named."""

import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("onnxslim", reason="host tool not installed")
ort = pytest.importorskip("onnxruntime", reason="engine not installed")

import toys  # noqa: E402

import edge_sdk as edge  # noqa: E402
from edge_quantize.graph.check_graph import check_graph  # noqa: E402
from edge_quantize.user_spec import SpecFile, adapted, read_spec  # noqa: E402
from edge_sdk.errors import InputError  # noqa: E402
from edge_sdk.target import SourceModel  # noqa: E402
from edge_sdk.tasks import task_of  # noqa: E402

DETECTOR = """
name = "mine"
size = [{side}, {side}]
licence = "Apache-2.0"
{first}
[head]
kind = "detection"
labels = {labels}
strides = [8, 16, 32]
bins = {bins}
confidence = 0.25
iou = 0.5
max_faces = 100

[head.letterbox]
pad = 114
max_scale = 2.0
"""
CLASSIFIER = """
name = "mine"
size = [16, 16]
licence = "Apache-2.0"
{first}
[head]
kind = "{task}"
labels = {labels}
{decision}
[head.crop]
margin = 1.0
outside = "repeat"
"""
SIDE = 64


def spec_file(folder, text=DETECTOR, more="", **values):
    defaults = {"labels": '["a", "b", "c"]', "side": SIDE, "bins": 16, "task": "classification"}
    values = {**defaults, "first": "", "decision": "", **values}
    path = folder / "mine.toml"
    path.write_text(text.format(**values) + more)
    return path


@pytest.fixture(scope="module")
def concatenated(tmp_path_factory):
    """A YOLO11n with random weights as other tools export it: (1, 3, H, W) floats in, (1, 4 + classes, cells) out."""
    torch = pytest.importorskip("torch", reason="the export is made with torch")
    from torch import nn

    from edge_training.networks.yolo import REG_MAX, STRIDES, YOLO11n

    class Concatenated(nn.Module):
        def __init__(self, network, classes):
            super().__init__()
            self.network, self.classes = network, classes
            self.dfl = nn.Conv2d(REG_MAX, 1, 1, bias=False)
            self.dfl.weight.data[:] = torch.arange(REG_MAX).float().view(1, REG_MAX, 1, 1)
            centres, steps = [], []
            for stride in STRIDES:
                cells = SIDE // stride
                y, x = torch.meshgrid(torch.arange(cells) + 0.5, torch.arange(cells) + 0.5, indexing="ij")
                centres.append(torch.stack((x, y)).reshape(2, -1))
                steps.append(torch.full((1, cells * cells), float(stride)))
            self.register_buffer("centres", torch.cat(centres, 1))
            self.register_buffer("steps", torch.cat(steps, 1))

        def forward(self, images):
            maps = [torch.cat(pair, 1) for pair in zip(*self.network(images), strict=True)]
            flat = torch.cat([m.reshape(1, 4 * REG_MAX + self.classes, -1) for m in maps], 2)
            sides, scores = flat.split((4 * REG_MAX, self.classes), 1)
            weights = sides.view(1, 4, REG_MAX, -1).transpose(2, 1).softmax(1)
            first, last = self.dfl(weights).view(1, 4, -1).chunk(2, 1)
            low, high = self.centres - first, self.centres + last
            boxes = torch.cat(((low + high) / 2, high - low), 1) * self.steps
            return torch.cat((boxes, scores.sigmoid()), 1)

    torch.manual_seed(0)
    network = YOLO11n(3)
    for module in network.modules():  # norms that fit the activations, so that fresh heads say something
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.weight, std=0.08)
            nn.init.normal_(module.bias)
    network.train()(torch.rand(8, 3, SIDE, SIDE))
    path = tmp_path_factory.mktemp("export") / "concatenated.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own age
        torch.onnx.export(
            Concatenated(network, 3).eval(),
            (torch.zeros(1, 3, SIDE, SIDE),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            output_names=["output0"],
        )
    return path


def run(path, feed, outputs=None):
    return ort.InferenceSession(str(path)).run(outputs, feed)


def test_a_concatenated_detector_becomes_maps_that_decode_to_the_same_boxes(concatenated, tmp_path):
    picture = np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, 3)).astype(np.uint8)
    (whole,) = run(concatenated, {"images": picture.transpose(0, 3, 1, 2).astype(np.float32) / 255})
    with adapted(concatenated, spec_file(tmp_path)) as (path, spec):
        check_graph(SourceModel(spec, path))
        names = [t.name for t in spec.outputs]
        maps = dict(zip(names, run(path, {"pixels": picture}, names), strict=True))
        graph = onnx.load(str(path)).graph
    # Boxes and scores meet nowhere: nothing that decodes is left.
    kinds = {node.op_type for node in graph.node}
    assert [node.op_type for node in graph.node][:3] == ["Transpose", "Cast", "Mul"]
    assert len([n for n in graph.node if n.op_type == "Softmax"]) == 1, kinds  # the attention's own
    # The device's own decoder, at a confidence that every cell has.
    boxes, logits, _ = task_of(spec).candidates(maps, 1e-9)
    x, y, w, h = whole[0, :4]
    expected = np.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), 1)
    assert len(boxes) == whole.shape[2] == 84
    np.testing.assert_allclose(boxes, expected, atol=0.01)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), whole[0, 4:].T, atol=1e-4)
    assert np.ptp(boxes[:, 0]) > 10
    assert np.ptp(whole[0, 4:]) > 0.1  # the comparison had something to compare


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"labels": '["a", "b"]'}, r"'cls8'.*\(1, 2, 8, 8\).*last convolutions.*\(1, 3, 8, 8\)"),
        ({"bins": 8}, r"'box8'.*\(1, 32, 8, 8\)"),
        ({"side": 96}, r"input 'images'.*\(1, 3, 64, 64\)"),
    ],
)
def test_a_spec_that_is_not_the_graphs_is_named_by_tensor(concatenated, tmp_path, values, match):
    with pytest.raises(InputError, match=match), adapted(concatenated, spec_file(tmp_path, **values)):
        pass


def changed(source, target, change):
    model = onnx.load(str(source))
    change(model.graph)
    onnx.save(model, str(target))
    return target


def double_the_boxes(graph):
    """Another decode: what the output says is no longer what the maps say."""
    (last,) = [n for n in graph.node if "output0" in n.output]
    last.output[0] = "plain"
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32(2), "two"))
    graph.node.append(onnx.helper.make_node("Mul", ["plain", "two"], ["output0"]))


def test_a_head_that_decodes_otherwise_is_refused_with_the_difference(concatenated, tmp_path):
    other = changed(concatenated, tmp_path / "other.onnx", double_the_boxes)
    with pytest.raises(InputError, match=r"'output0'.*differ by up to"), adapted(other, spec_file(tmp_path)):
        pass


def test_a_dynamic_input_is_named(concatenated, tmp_path):
    def free(graph):
        graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"

    dynamic = changed(concatenated, tmp_path / "dynamic.onnx", free)
    with (
        pytest.raises(InputError, match=r"'images' has no fixed shape \(\?, 3, 64, 64\)"),
        adapted(dynamic, spec_file(tmp_path)),
    ):
        pass


def test_a_graph_without_a_head_is_refused(tmp_path):
    path = toys.write_classifier_onnx(tmp_path / "x.onnx")
    with (
        pytest.raises(InputError, match=r"'box8'|no convolution"),
        adapted(path, spec_file(tmp_path, side=16, text=DETECTOR.replace("8, 16, 32", "8, 16"))),
    ):
        pass


def test_a_graph_in_our_form_is_taken_as_it_is(toy_onnx, tmp_path):
    text = DETECTOR.replace("bins = {bins}", f"bins = {toys.BINS}")
    file = spec_file(tmp_path, text, labels='["red", "green"]')
    with adapted(toy_onnx, file) as (path, spec):
        assert path == toy_onnx
        assert spec.outputs == toys.SPEC.outputs


def write_exported_classifier(path, *, softmax):
    """As other tools export one: normalised BGR floats in, ``probs`` out; answers with the mean of each channel."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("ReduceMean", ["image"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["means", "pick"], ["answer" if softmax else "probs"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["answer"], ["probs"], axis=1))
    pick = np.eye(3, 2, dtype=np.float32)
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 16, 16))],
        [helper.make_tensor_value_info("probs", TensorProto.FLOAT, (1, 2))],
        [numpy_helper.from_array(pick, "pick")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


PIXELS = """
[pixels]
order = "bgr"
mean = [10.0, 20.0, 30.0]
std = [50.0, 60.0, 70.0]
"""


@pytest.mark.parametrize("softmax", [False, True])
def test_a_classifiers_softmax_is_cut_off_and_its_pixels_are_normalised_in_the_graph(tmp_path, softmax):
    source = write_exported_classifier(tmp_path / "x.onnx", softmax=softmax)
    picture = np.random.default_rng(2).integers(0, 256, (1, 16, 16, 3)).astype(np.uint8)
    with adapted(source, spec_file(tmp_path, CLASSIFIER, PIXELS, labels='["a", "b"]')) as (path, spec):
        check_graph(SourceModel(spec, path))
        (logits,) = run(path, {"pixels": picture})
    blue, green = picture[0, ..., 2].mean(), picture[0, ..., 1].mean()
    np.testing.assert_allclose(logits[0], [(blue - 10) / 50, (green - 20) / 60], rtol=1e-4)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_liveness_networks_outputs_are_put_in_the_specs_order(tmp_path, reverse):
    first = 'exported_labels = ["attack", "bona fide"]' if reverse else ""
    decision = "threshold = 0.5\nmin_face = 40\nmax_outside = 0.2"
    source = write_exported_classifier(tmp_path / "x.onnx", softmax=True)
    labels = '["bona fide", "attack"]'
    file = spec_file(tmp_path, CLASSIFIER, task="liveness", labels=labels, first=first, decision=decision)
    picture = np.full((1, 16, 16, 3), (200, 100, 0), np.uint8)
    with adapted(source, file) as (path, spec):
        assert spec.labels == ("bona fide", "attack")
        (logits,) = run(path, {"pixels": picture})
    expected = np.array([200, 100]) / 255
    np.testing.assert_allclose(logits[0], expected[::-1] if reverse else expected, rtol=1e-4)


def test_a_classifier_of_other_labels_is_named(tmp_path):
    source = write_exported_classifier(tmp_path / "x.onnx", softmax=False)
    with (
        pytest.raises(InputError, match=r"3 labels.*'probs' float32 \(1, 2\)"),
        adapted(source, spec_file(tmp_path, CLASSIFIER)),
    ):
        pass


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("size", "sise"), r"mine\.toml has an unknown key 'sise'"),
        (("[64, 64]", "[64]"), r"mine\.toml.*size"),
        (("[64, 64]", "[0, 64]"), r"mine\.toml.*size"),
        (("bins = 16", "bins = 1"), r"mine\.toml.*bins is 1"),
        (('kind = "detection"', 'kind = "stretch"'), r"mine\.toml.*'stretch'"),
        (("[head]", "[pixels]\nstd = [0, 1, 1]\n[head]"), r"mine\.toml.*std"),
        (("[head]", 'exported_labels = ["a", "b"]\n[head]'), r"mine\.toml.*exported_labels"),
        (("licence =", "licence"), r"mine\.toml"),
    ],
)
def test_a_broken_spec_is_named_by_its_file(tmp_path, change, match):
    path = spec_file(tmp_path)
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(InputError, match=match):
        read_spec(path)


def test_the_command_builds_a_users_own_network_and_it_answers(tmp_path, capsys):
    pytest.importorskip("pycocotools", reason="host tool not installed")
    from edge_sdk.cli import main

    source = write_exported_classifier(tmp_path / "x.onnx", softmax=True)
    file = spec_file(tmp_path, CLASSIFIER, '[pixels]\norder = "rgb"\n', labels='["red", "green"]')
    toys.write_crops(tmp_path / "evaluation", 40, 1)
    common = ["--spec", str(file), "--target", "onnxruntime"]
    common += ["--recipe", str(toys.write_recipe(tmp_path, "fp32"))]
    common += ["--evaluation", str(tmp_path / "evaluation"), "-o", str(tmp_path / "mine.edge")]
    assert main(["build", *common]) == 2
    assert "--onnx" in capsys.readouterr().err
    assert main(["build", "fer-yolo11n", "--onnx", str(source), *common]) == 2
    assert main(["build", "--onnx", str(source), *common]) == 0
    with edge.load(tmp_path / "mine.edge") as model:
        assert model(toys.frame(), boxes=[[16, 24, 32, 40]]).labels == ("red",)


OLD_FORM = """
name = "mine"
task = "detection"
labels = ["a", "b", "c"]
size = [64, 64]
licence = "Apache-2.0"

[preprocessing]
kind = "letterbox"
pad = 114
max_scale = 2.0

[decode]
strides = [8, 16, 32]
bins = 16
confidence = 0.25
iou = 0.5
max_faces = 100
"""


def test_a_spec_of_the_form_before_heads_is_refused_and_shown_the_new_one(tmp_path):
    (tmp_path / "old.toml").write_text(OLD_FORM)
    with pytest.raises(InputError, match=r"old\.toml has the key 'task' of an older form") as caught:
        read_spec(tmp_path / "old.toml")
    for part in ("[head]", "kind", "labels", "[head.letterbox]", "[head.crop]"):
        assert part in caught.value.remedy


def test_the_example_is_a_spec():
    from pathlib import Path

    own = read_spec(Path(__file__).parents[2] / "examples/own_detector.toml")
    assert own.spec.task == "detection"


def test_the_form_of_a_spec_is_all_in_the_text_for_users():
    import dataclasses
    from pathlib import Path

    from edge_quantize.graph.import_onnx import PixelForm

    text = (Path(__file__).parents[2] / "docs/bring-your-own.md").read_text()
    for kind in (SpecFile, PixelForm):
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in text or f"{field.name} =" in text, field.name
