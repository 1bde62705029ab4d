"""Tests of trained models beyond their test sets, and the networks of others beside them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from edge_sdk.errors import InputError  # noqa: E402
from edge_sdk.image import Cropper, FaceCrop, read_image  # noqa: E402
from edge_training.data.scenes import SceneMaker  # noqa: E402
from edge_training.reference_models import MiniFASNetV2, face_detector, minifasnet  # noqa: E402
from edge_training.robustness import jittered_boxes  # noqa: E402


def test_jittered_boxes_are_all_combinations_around_the_box_itself():
    box = np.array((100, 50, 180, 150), np.float32)
    boxes = jittered_boxes(box)
    assert len(np.unique(boxes, axis=0)) == len(boxes) == 27
    assert (boxes == box).all(axis=1).sum() == 1
    assert np.abs((boxes - box) / (80, 100, 80, 100)).max() == pytest.approx(0.15)
    widths = (boxes[:, 2] - boxes[:, 0]) / 80
    np.testing.assert_allclose(np.unique(widths.round(4)), (0.9, 1, 1.1))


def test_a_scene_of_one_size_has_faces_of_that_size():
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (4, 48, 48)).astype(np.uint8)
    maker = SceneMaker(faces, np.eye(7, dtype=np.float32)[:4], [np.zeros((60, 60, 3), np.uint8)])
    scene = maker.scene([0, 1, 2], 160, rng, size=24)
    assert len(scene.boxes) == 3
    assert (scene.boxes[:, 2:] - scene.boxes[:, :2] == 24).all()


def test_minifasnet_tells_the_sample_photographs_apart(shared_data):
    """The weights' own publisher calls T1 bona fide and F1, F2 attacks: the graph was rebuilt as it was."""
    model = minifasnet(shared_data)
    detector, cropper = face_detector(shared_data), Cropper(side_x=80, side_y=80, crop=FaceCrop(2.7, "shift"))
    scores = {}
    for name in ("T1", "F1", "F2"):
        image = read_image(shared_data / f"samples/pad_scenes/image_{name}.jpg")
        (box,) = detector(image)
        scores[name] = float(model(cropper(image, box)[0][None])[0])
    assert scores["T1"] > 0.9
    assert max(scores["F1"], scores["F2"]) < 0.1


def test_missing_weights_of_a_reference_model_are_named(tmp_path):
    with pytest.raises(InputError, match="no weights at"):
        MiniFASNetV2(tmp_path / "none.npz")
