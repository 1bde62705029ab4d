"""Fake quantization, on a toy whose channels differ in size so much that one scale does badly for all of them."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("torchao", reason="quantization-aware training needs torchao")
onnx = pytest.importorskip("onnx", reason="host tool not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="engine not installed")

import toys  # noqa: E402

from edge_quantize.graph.qat_import import check_quantized, for_onnxruntime  # noqa: E402
from edge_sdk.errors import InputError  # noqa: E402
from edge_targets.tensorrt.linter import lint  # noqa: E402
from edge_targets.tensorrt.prepare import prepare  # noqa: E402
from edge_training import checkpoint  # noqa: E402
from edge_training.data import fer2013  # noqa: E402
from edge_training.export import DeployedGraph, fuse  # noqa: E402
from edge_training.qat import FakeQuantized, export  # noqa: E402
from edge_training.stages import stages_of  # noqa: E402
from edge_training.stages.qat import QatOptions, QatStage  # noqa: E402
from edge_training.train import fit  # noqa: E402

SPEC = toys.CLASSIFIER
# Copying a captured graph makes torch warn of itself, in the name of Python's copy module.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*legacy TorchScript:DeprecationWarning"),
]


class Toy(torch.nn.Module):
    """All that a placement has to deal with: norms, activations, a residual, a gate, a pool, a shared weight."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.stem = self._conv(3, 8)
        self.body = self._conv(8, 8)
        self.mlp = torch.nn.Conv2d(8, 8, 1, bias=False)
        self.head = torch.nn.Linear(16, len(SPEC.labels))
        self.dropout = torch.nn.Dropout(0.5)
        # The small ones count as much as the large: what comes after makes up for their sizes.
        sizes = torch.logspace(-1.5, 0.5, 8)
        with torch.no_grad():
            self.stem[1].weight.copy_(sizes)
            self.body[0].weight.div_(sizes.reshape(1, 8, 1, 1))

    @staticmethod
    def _conv(c_in, c_out):
        return torch.nn.Sequential(
            torch.nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), torch.nn.BatchNorm2d(c_out)
        )

    def forward(self, x):
        x = self.stem(x).relu()
        y = x + self.body(x).relu()
        gate = (self.mlp(y.mean((2, 3), keepdim=True)) + self.mlp(y.amax((2, 3), keepdim=True))).sigmoid()
        y = torch.cat((y * gate, torch.nn.functional.silu(self.body(y))), 1)
        logits = self.head(self.dropout(y.mean((2, 3))))
        return logits, logits * 0


class Pictures(torch.utils.data.Dataset):
    def __init__(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 12

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(1000 * self.epoch + index)
        coarse = torch.randint(0, 256, (16, 4, 4, 3), dtype=torch.uint8, generator=generator)
        pixels = coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)
        return pixels, torch.zeros(16)  # and a label, which nobody asks for


class Interrupted(Pictures):
    def __getitem__(self, index):
        if self.epoch == 1:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def trained():
    return Toy().state_dict()


def stage(pictures=Pictures, **options):
    return QatStage(QatOptions(**{"epochs": 3, "lr": 1e-3, "workers": 0, **options}), Toy, SPEC, pictures)


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qat")
    best = fit(stage(), folder, trained(), "cpu")
    network = FakeQuantized(Toy(), SPEC)
    network.load_state_dict(checkpoint.load(best)[0])
    return network


@pytest.fixture(scope="module")
def graph(fine_tuned, tmp_path_factory):
    return onnx.load(str(export(fine_tuned, SPEC, tmp_path_factory.mktemp("export"))))


def run(model, pixels):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"pixels": p[None]})[0] for p in pixels.numpy()])


def snr_db(expected, actual):
    expected, actual = np.asarray(expected), np.asarray(actual)
    return 10 * np.log10((expected**2).mean() / ((expected - actual) ** 2).mean())


def test_fine_tuning_brings_int8_nearer_to_float(fine_tuned):
    task = stage()
    naive = task.network(trained())  # the same ranges without training
    assert task.validate(fine_tuned)["snr_db"] > task.validate(naive)["snr_db"] + 4


def test_the_export_is_explicit_qdq_that_tensorrt_and_onnxruntime_take_and_says_what_torch_does(
    fine_tuned, graph, tmp_path
):
    onnx.save(graph, str(tmp_path / "toy.onnx"))
    check_quantized(tmp_path / "toy.onnx")
    assert lint(prepare(graph)) == []
    kinds = [node.op_type for node in graph.graph.node]
    # Every weight, and more activations than there are weighted operators.
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") > 2 * kinds.count("Conv")
    assert "BatchNormalization" not in kinds
    pixels = Pictures(9)[0][0]
    with torch.no_grad():
        expected = fine_tuned(pixels)[0]
    assert snr_db(expected, run(graph, pixels)) > 35
    # Its pixels are finer than those that the network was trained with.
    assert snr_db(expected, run(for_onnxruntime(graph), pixels)) > 20


def test_onnxruntime_computes_convolutions_before_a_relu_in_8_bits(graph, tmp_path):
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    settings.log_severity_level = 3
    made = for_onnxruntime(graph).SerializeToString()
    onnxruntime.InferenceSession(made, settings, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(str(tmp_path / "optimized.onnx")).graph.node]
    # All but the one before the SiLU, with which it fuses elsewhere.
    assert kinds.count("QLinearConv") == 4
    assert "Relu" not in kinds


def test_fake_quantization_leaves_the_float_network_as_it_was_but_for_noise():
    network, pixels = Toy(), Pictures(0)[0][0]
    plain = DeployedGraph(fuse(copy.deepcopy(network).eval())).eval()
    quantized = FakeQuantized(network, SPEC)
    quantized(pixels)
    quantized.observe(False)
    assert 10 < snr_db(plain(pixels)[0].detach(), quantized(pixels)[0].detach()) < 60


def test_biases_that_folding_made_learn_and_the_dropout_is_gone(fine_tuned):
    names = [name for name, p in fine_tuned.named_parameters() if p.requires_grad]
    assert [name for name in names if "stem" in name and name.endswith("bias")]
    pixels = Pictures(0)[0][0]
    assert torch.equal(fine_tuned.train()(pixels)[0], fine_tuned(pixels)[0])


def test_an_interrupted_fine_tuning_resumes_to_the_same_weights(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    fit(stage(epochs=2, steps=2), whole, trained(), "cpu")
    with pytest.raises(KeyboardInterrupt):
        fit(stage(Interrupted, epochs=2, steps=2), parts, trained(), "cpu")
    fit(stage(epochs=2, steps=2), parts, trained(), "cpu")
    expected, resumed = (checkpoint.load(folder / "qat.last.safetensors")[0] for folder in (whole, parts))
    assert expected.keys() == resumed.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, resumed[name]), name


def test_ranges_come_from_the_first_pictures_and_stay(tmp_path):
    task = stage(epochs=1, steps=2)
    ranges = {k: v.clone() for k, v in task.network(trained()).state_dict().items() if k.endswith(".scale")}
    assert all(bool((scale > 0).all()) and bool((scale != 1).any()) for scale in ranges.values())
    last, _ = checkpoint.load(fit(task, tmp_path, trained(), "cpu"))
    assert all(torch.equal(last[name], scale) for name, scale in ranges.items())


def test_nothing_is_fine_tuned_from_nothing():
    with pytest.raises(InputError, match="trained") as caught:
        stage().network(None)
    assert "--start" in caught.value.remedy


def faces(count=16):
    images = np.random.default_rng(0).integers(0, 256, (count, 48, 48), dtype=np.uint8)
    labels = np.arange(count) % 7
    return fer2013.Faces(images, labels, np.eye(7, dtype=np.float32)[labels], np.zeros(count, bool))


def recipe(**changes):
    table = {"kind": "qat", "model": "fer-gmenet", "epochs": 1, "pictures": {"kind": "student", "epochs": 1}}
    table["pictures"]["batch"] = 4
    return {"network": "gmenet", "stage": [{**table, **changes}]}


def test_a_recipe_names_the_model_and_whose_pictures_it_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(fer2013, "read", lambda folder: fer2013.Fer2013(faces(), faces(), faces()))
    (task,) = stages_of(recipe(), tmp_path)
    (pixels,) = task.batches(0)[0]
    assert (task.spec.name, tuple(pixels.shape)) == ("fer-gmenet", (8, 48, 48, 3))
    for changes in ({"model": "nobody"}, {"pictures": None}, {"pictures": {"kind": "magic"}}, {"colour": 1}):
        with pytest.raises(InputError):
            stages_of(recipe(**changes), tmp_path)
