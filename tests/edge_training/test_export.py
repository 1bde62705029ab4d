"""Where a model's float files come from."""

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from edge_sdk import zoo  # noqa: E402
from edge_sdk.errors import InputError  # noqa: E402
from edge_training import checkpoint, export  # noqa: E402
from edge_training.networks import of_model  # noqa: E402


@pytest.fixture
def sources(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr(zoo, "SOURCES", folder)
    return folder


def test_the_repositorys_file_is_taken_where_it_is(sources, tmp_path):
    (sources / "pad-minifasnet.onnx").write_bytes(b"graph")
    assert export.float_source("pad-minifasnet", tmp_path / "work") == sources / "pad-minifasnet.onnx"


def test_weights_alone_are_exported_once_and_again_when_they_change(sources, tmp_path, monkeypatch):
    torch.manual_seed(3)
    network = of_model("pad-minifasnet")
    half = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    checkpoint.save(sources / "pad-minifasnet.safetensors", half, {})
    seen = []

    def write(network, spec, output):
        seen.append(network.linear.weight.detach().clone())
        output.mkdir(parents=True, exist_ok=True)
        (output / f"{spec.name}.onnx").write_bytes(b"made")

    monkeypatch.setattr(export, "export", write)
    made = export.float_source("pad-minifasnet", tmp_path / "work")
    assert made.read_bytes() == b"made"
    assert export.float_source("pad-minifasnet", tmp_path / "work") == made
    (weight,) = seen
    assert (weight == network.linear.weight.half().float()).all()
    checkpoint.save(sources / "pad-minifasnet.safetensors", half, {"new": True})
    export.float_source("pad-minifasnet", tmp_path / "work")
    assert len(seen) == 2


def test_a_model_without_weights_is_named(sources, tmp_path):
    with pytest.raises(InputError, match="pad-minifasnet"):
        export.float_source("pad-minifasnet", tmp_path)
