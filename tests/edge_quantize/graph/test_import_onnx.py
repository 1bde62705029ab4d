"""Other tools' exports are cut to our form, and what does not fit is named."""

import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("onnxslim", reason="host tool not installed")
ort = pytest.importorskip("onnxruntime", reason="engine not installed")

import toys  # noqa: E402
from own_specs import CLASSIFIER, DETECTOR, SIDE, spec_file, write_exported_classifier  # noqa: E402

from edge_quantize.graph.check_graph import check_graph  # noqa: E402
from edge_quantize.user_spec import adapted  # noqa: E402
from edge_sdk.errors import InputError  # noqa: E402
from edge_sdk.target import SourceModel  # noqa: E402
from edge_sdk.tasks import task_of  # noqa: E402


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


def test_a_detectors_classes_are_put_in_the_heads_order(concatenated, tmp_path):
    picture = np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, 3)).astype(np.uint8)
    maps = []
    for first in ("", 'exported_labels = ["c", "a", "b"]'):
        with adapted(concatenated, spec_file(tmp_path, first=first)) as (path, spec):
            maps.append(run(path, {"pixels": picture}, ["box8", "cls8"]))
    assert spec.labels == ("a", "b", "c")
    np.testing.assert_array_equal(maps[0][0], maps[1][0])
    np.testing.assert_array_equal(maps[0][1][..., [1, 2, 0]], maps[1][1])
