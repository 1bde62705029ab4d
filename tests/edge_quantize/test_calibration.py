"""Which pictures ranges are made from, which sets are refused, and what is recorded of them."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys

from edge_quantize import calibration
from edge_quantize.calibration import calibration_pictures, calibration_set, distinct
from edge_quantize.data import digest, read_labelled
from edge_sdk.errors import CalibrationFailed, InputError
from edge_sdk.image import read_image, write_image
from edge_sdk.tasks import task_of
from edge_sdk.testing import FakeSession

RECIPE = toys.INT8


def chosen(folder, task=None, *, items=16, held_out=()):
    task = task or task_of(toys.SPEC)
    session = FakeSession(
        toys.SPEC, answer=lambda inputs: toys.engine(inputs["pixels"])
    )  # only a detector's faces are asked for
    recipe = dataclasses.replace(RECIPE, calibration_items=items)
    return calibration_set(folder, recipe, task, held_out, session)


def test_any_layout_gives_the_devices_own_tensors_in_a_fixed_order(tmp_path):
    yolo = toys.write_pictures(tmp_path / "yolo", 20, 0)
    flat = toys.write_pictures(tmp_path / "flat", 20, 0, labelled=False)
    of_yolo, of_flat = chosen(yolo), chosen(flat)
    assert of_yolo.digest.sha256 == of_flat.digest.sha256 == digest(calibration_pictures(flat, 16)).sha256
    task = task_of(toys.SPEC)
    for path, ours, theirs in zip(
        calibration_pictures(flat, 16), of_flat.frames, of_yolo.frames, strict=True
    ):
        assert set(ours) == set(theirs) == {"pixels"}
        assert (ours["pixels"] == task.preprocess(read_image(path))[0]["pixels"]).all()
        assert (ours["pixels"] == theirs["pixels"]).all()
    assert chosen(flat).digest == of_flat.digest


def test_what_a_set_covers_is_recorded(tmp_path):
    coverage = chosen(toys.write_pictures(tmp_path / "yolo", 40, 0), items=30).digest.coverage
    assert len(coverage.brightness) == len(coverage.contrast) == len(coverage.face_size) == 3
    assert coverage.brightness == tuple(sorted(coverage.brightness))
    assert 0 < coverage.brightness[1] < 255
    assert set(coverage.per_class) == set(toys.LABELS)
    assert sum(coverage.per_class.values()) == 30
    # The toy's boxes reach a stride and a half to every side of a cell: 24, 48 or 96 pixels, cut at the border.
    assert 8 <= coverage.face_size[0] <= coverage.face_size[2] <= 64


def test_an_unlabelled_set_has_no_classes_to_count(tmp_path):
    flat = toys.write_pictures(tmp_path / "flat", 20, 0, labelled=False)
    assert chosen(flat).digest.coverage.per_class is None


def test_class_folders_are_drawn_from_alike_however_unequal_they_are(tmp_path):
    folder = toys.write_crops(tmp_path / "crops", 60, 0)
    for path in sorted((folder / "green").iterdir())[5:]:
        path.unlink()
    found = chosen(folder, task_of(toys.CLASSIFIER), items=20)
    assert found.digest.coverage.per_class == {"red": 15, "green": 5}
    assert 10 <= found.digest.coverage.face_size[0] <= found.digest.coverage.face_size[2] <= 30


@pytest.mark.parametrize(
    ("count", "taken"), [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, list(range(10)))]
)
def test_pictures_are_evenly_spread_and_taken_once(tmp_path, count, taken):
    folder = toys.write_pictures(tmp_path / "flat", 10, 0, labelled=False)
    paths = sorted(folder.iterdir())
    assert calibration_pictures(folder, count) == [paths[i] for i in taken]


@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_no_pictures_is_an_error(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CalibrationFailed, match=f"no pictures in .*{folder}"):
        chosen(tmp_path / folder)


def test_too_few_pictures_are_refused(tmp_path):
    with pytest.raises(CalibrationFailed, match="has 15 pictures: ranges from fewer than 16"):
        chosen(toys.write_pictures(tmp_path / "flat", 15, 0, labelled=False), items=256)


def test_too_few_of_a_class_are_refused_by_its_name(tmp_path):
    folder = toys.write_crops(tmp_path / "crops", 40, 0)
    for path in sorted((folder / "green").iterdir())[1:]:
        path.unlink()
    with pytest.raises(CalibrationFailed, match="1 faces of 'green'"):
        chosen(folder, task_of(toys.CLASSIFIER))


def test_a_damaged_picture_is_named(tmp_path):
    folder = toys.write_pictures(tmp_path / "flat", 16, 0, labelled=False)
    (folder / "001.png").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"001\.png"):
        chosen(folder)


@pytest.mark.parametrize("level", [0, 100, 255])
def test_blank_pictures_are_refused(tmp_path, level):
    for index in range(16):
        write_image(tmp_path / f"{index:02d}.png", np.full((64, 64, 3), level, np.uint8))
    with pytest.raises(CalibrationFailed, match="blank"):
        chosen(tmp_path)


def test_one_scene_again_and_again_is_refused_although_no_two_files_are_equal(tmp_path):
    rng = np.random.default_rng(0)
    scene = toys.picture(rng)[0]
    for index in range(16):
        noise = rng.integers(0, 3, scene.shape).astype(np.uint8)
        write_image(tmp_path / f"{index:02d}.png", scene // 2 + noise)
    with pytest.raises(CalibrationFailed, match=r"15 of the 16 .* show what another one shows"):
        chosen(tmp_path)


def test_what_the_gate_holds_out_may_not_calibrate(tmp_path):
    folder = toys.write_pictures(tmp_path / "yolo", 20, 0)
    with pytest.raises(CalibrationFailed, match=r"16 of 16 .* evaluation set"):
        chosen(folder, held_out=read_labelled(folder, toys.LABELS))


def test_a_recipe_that_quantizes_no_activation_reads_nothing(tmp_path):
    assert calibration_set(tmp_path / "nowhere", toys.FP32, task_of(toys.SPEC), (), None) is None


def test_a_set_is_needed_where_activations_are_quantized():
    with pytest.raises(InputError, match="recipe int8 needs calibration"):
        chosen(None)


@pytest.mark.parametrize("side", [8, 16, 33])
def test_pictures_of_any_size_are_told_apart(side):
    tensors = [
        np.random.default_rng(seed).integers(0, 256, (1, side, side, 3)).astype(np.uint8) for seed in range(5)
    ]
    assert distinct([*tensors, *tensors]) == 5
    assert calibration.SAME > 0
