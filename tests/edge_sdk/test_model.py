import sys

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys

import edge_sdk as edge
from edge_sdk.engine_cache import FOLDER_VARIABLE
from edge_sdk.errors import ChecksumMismatch, InputError, LoadFailed, MissingDependency
from edge_sdk.verify import snr_db


@pytest.fixture
def toy(toy_bundle, toy_engine):
    with edge.load(toy_bundle) as model:
        yield model


def test_a_loaded_model_finds_faces_and_says_who_did(toy):
    found = toy(toys.frame())
    assert found.labels == ("red",)
    assert (found.target, found.device) == ("onnxruntime-fp32", "CPU")
    assert found.to_dict()["device"] == "CPU"
    assert found.times.total_ns > 0
    assert (toy.info.name, toy.info.task, toy.info.input_size) == ("toy", "detection", (64, 64))
    assert toy.info.gate.metrics["map50"].compiled == 0.9
    assert "toy.edge" in toy.info.chosen


def test_an_open_bundle_is_loaded_as_it_was_read(toy_bundle, toy_engine):
    bundle = edge.Bundle.open(toy_bundle)
    toy_bundle.write_bytes(b"something else by now")
    with edge.load(bundle) as model:
        assert model.info.sha256 == bundle.sha256
        assert model(toys.frame()).labels == ("red",)
    with pytest.raises(InputError, match="toy has target 'onnxruntime', 'openvino' was asked for"):
        edge.load(bundle, target="openvino")


def test_a_cache_that_is_not_used_is_told_and_fails_no_load(toy_bundle, toy_engine, tmp_path, monkeypatch):
    """By an engine that compiles at load, as OpenVINO and TensorRT do."""
    folder = tmp_path / "engines"
    folder.mkdir()
    folder.chmod(0o777)
    load = toy_engine.load

    def compiling(artifact, spec, *, options):
        assert options.cache.get({"model": "toy"}) is None
        assert not options.cache.put({"model": "toy"}, b"engine")
        return load(artifact, spec, options=options)

    monkeypatch.setattr(toy_engine, "load", compiling)
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    with edge.load(toy_bundle) as model:
        (note,) = model.info.notes
        assert "engine cache not used" in note
        assert f"chmod 700 {folder}" in note
    assert list(folder.iterdir()) == []
    folder.chmod(0o700)
    monkeypatch.setattr(toy_engine, "load", load)
    with edge.load(toy_bundle) as model:
        assert model.info.notes == ()


def test_what_the_caller_asks_the_engine_for_wins_over_the_boards_profile(toy_bundle, toy_engine, tmp_path):
    board = tmp_path / "board.toml"
    board.write_text(
        'name = "board"\ntitle = "b"\nengine = "onnxruntime"\nrecipe = "fp32"\ninstall = "pip"\n'
        'threads = 3\ndevice = "XNNPACK"\n'
    )

    def asked(**arguments):
        edge.load(toy_bundle, **arguments).close()
        return (
            toy_engine.load_options.threads,
            toy_engine.load_options.devices,
            dict(toy_engine.load_options.engine),
        )

    assert asked() == (None, (), {})
    assert asked(profile=board) == (3, ("XNNPACK",), {})
    assert asked(profile=board, threads=1, device="CPU") == (1, ("CPU",), {})
    assert asked(device=["GPU", "CPU"], options=edge.LoadOptions(threads=2, engine={"spinning": True})) == (
        2,
        ("GPU", "CPU"),
        {"spinning": True},
    )
    assert asked(options=edge.LoadOptions(devices=("NPU",)), profile=board) == (3, ("NPU",), {})
    board.write_text(board.read_text().replace("onnxruntime", "tflite"))
    with pytest.raises(InputError, match="target 'onnxruntime', 'tflite' was asked for"):
        edge.load(toy_bundle, profile=board)


def test_bgr_frames_are_seen_as_such(toy):
    swapped = np.ascontiguousarray(toys.frame()[..., ::-1])
    assert toy(swapped, color="bgr").labels == ("red",)
    assert toy(swapped).labels == ()
    with pytest.raises(InputError, match="color"):
        toy(swapped, color="hsv")


def test_a_result_outlives_the_next_frame(toy):
    first = toy(toys.frame())
    boxes = first.boxes.copy()
    toy(np.zeros((480, 640, 3), np.uint8))
    assert (first.boxes == boxes).all()


def test_a_grey_frame_is_refused_and_the_model_goes_on(toy):
    with pytest.raises(InputError, match="grey"):
        toy(np.zeros((4, 4), np.uint8))
    assert len(toy(toys.frame())) == 1


def test_leaving_the_block_closes_the_engine(toy_bundle, toy_engine):
    with edge.load(toy_bundle) as model:
        pass
    assert toy_engine.sessions[0].closed
    with pytest.raises(InputError, match="closed"):
        model(toys.frame())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda pixels: toys.engine(pixels[..., ::-1]),  # BGR in the place of RGB
        lambda pixels: toys.engine(pixels[:, :, ::-1]),  # mirrored
        lambda pixels: {n: np.zeros_like(v) for n, v in toys.engine(pixels).items()},
        lambda pixels: {n: v * np.nan for n, v in toys.engine(pixels).items()},
    ],
)
def test_a_device_that_answers_otherwise_fails_its_golden_vectors(toy_bundle, toy_engine, wrong):
    toy_engine.answer = wrong
    with pytest.raises(ChecksumMismatch, match="golden vectors fail here"):
        edge.load(toy_bundle)
    assert toy_engine.sessions[0].closed
    edge.load(toy_bundle, verify=False).close()


def test_rounding_like_another_processors_passes(toy_bundle, toy_engine):
    rng = np.random.default_rng(0)
    toy_engine.answer = lambda p: {n: v + rng.normal(0, 0.05, v.shape) for n, v in toys.engine(p).items()}
    edge.load(toy_bundle).close()


@pytest.mark.parametrize(
    ("asked", "match"),
    [({"target": "openvino"}, "openvino"), ({"precision": "int8"}, "int8"), ({"threads": 0}, "threads")],
)
def test_what_is_asked_for_is_required(toy_bundle, toy_engine, asked, match):
    with pytest.raises(InputError, match=match):
        edge.load(toy_bundle, **asked)


def test_closing_twice_is_fine(toy):
    toy.close()
    toy.close()


def test_the_engine_gets_the_threads_that_were_asked_for(toy_bundle, toy_engine):
    edge.load(toy_bundle, threads=3).close()
    assert toy_engine.load_options.threads == 3


def test_the_confidence_asked_for_counts(toy_bundle, toy_engine):
    with edge.load(toy_bundle, confidence=0.9999) as model:
        assert len(model(toys.frame())) == 0
    with pytest.raises(InputError, match="confidence"):
        edge.load(toy_bundle, confidence=2)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_bundle_of_an_engine_that_is_missing_names_the_command(tmp_path, monkeypatch, engine):
    toys.bundle(target=engine).write(tmp_path / "x.edge")
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(MissingDependency) as caught:
        edge.load(tmp_path / "x.edge")
    assert caught.value.remedy == f"pip install 'face-edge-sdk[{engine}]'"


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".edge", "nul\0", "nul\0.edge"])
def test_a_name_that_no_file_can_have_is_an_input_error(name):
    with pytest.raises(InputError):
        edge.load(name)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="fer-yolo99x") as caught:
        edge.load("fer-yolo99x")
    assert "fer-yolo11n" in caught.value.remedy


def test_snr():
    ones = np.ones(4, np.float32)
    assert snr_db(ones, ones) == float("inf")
    assert snr_db(ones, ones * 1.1) == pytest.approx(20, abs=1e-3)
    assert np.isnan(snr_db(ones, ones * np.nan))


def test_a_spec_takes_no_memory_before_the_engine_accepts_its_artifact(toy_bundle, toy_engine, monkeypatch):
    import edge_sdk.verify

    def refuse(artifact, spec, *, options):
        raise LoadFailed("toy: not the network", remedy="build it again")

    monkeypatch.setattr(toy_engine, "load", refuse)
    monkeypatch.setattr(edge_sdk.verify, "task_of", lambda *_, **__: pytest.fail("a canvas was made"))
    with pytest.raises(LoadFailed):
        edge.load(toy_bundle)
