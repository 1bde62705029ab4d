from pathlib import Path

import numpy as np
import pytest
import tomllib

pytest.importorskip("torch", reason="training needs torch")

from edge_sdk.errors import InputError
from edge_training import checkpoint
from edge_training.data import augment, fer2013
from edge_training.data.scenes import SceneMaker
from edge_training.networks import CLASSIFIERS
from edge_training.stages import stages_of
from edge_training.stages.base import balanced_rows
from edge_training.stages.detector import collate


@pytest.fixture
def maker():
    rng = np.random.default_rng(0)
    faces = rng.integers(200, 256, (5, 48, 48)).astype(np.uint8)
    backgrounds = [np.full((300, 400, 3), 20, np.uint8)]
    return SceneMaker(faces, np.eye(7, dtype=np.float32)[[0, 1, 2, 3, 4]], backgrounds)


@pytest.mark.parametrize("seed", range(20))
def test_boxes_of_a_scene_lie_inside_it_and_on_the_faces(maker, seed):
    rng = np.random.default_rng(seed)
    scene = maker.scene([0, 1, 2], 256, rng)
    assert scene.image.shape == (256, 256, 3)
    assert scene.image.dtype == np.uint8
    assert len(scene.boxes) == len(scene.targets)
    for x1, y1, x2, y2 in scene.boxes.astype(int).tolist():
        assert 0 <= x1 < x2 <= 256
        assert 0 <= y1 < y2 <= 256
        middle = scene.image[(y1 + y2) // 2 - 2 : (y1 + y2) // 2 + 2, (x1 + x2) // 2 - 2 : (x1 + x2) // 2 + 2]
        assert middle.mean() > scene.image.min() + 10  # bright faces on a dark background


def test_a_full_frame_box_is_the_edge_of_the_crop(maker):
    scene = maker.full_frame(0, 128, np.random.default_rng(3))
    x1, y1, x2, y2 = scene.boxes[0].astype(int)
    outside = np.ones((128, 128), bool)
    outside[y1:y2, x1:x2] = False
    assert (scene.image[outside] == 114).all()
    assert (scene.image[y1:y2, x1:x2] != 114).any(axis=2).mean() > 0.8


def test_a_sheet_shows_every_crop_in_its_own_ninth(maker):
    scene = maker.sheet([0, 1, 2, 3, 4, 0, 1], 96 * 3, np.random.default_rng(3))
    assert scene.boxes.shape == (7, 4)
    assert scene.targets.argmax(1).tolist() == [0, 1, 2, 3, 4, 0, 1]
    ninths = (scene.boxes // 96).astype(int)
    assert [(x, y) for x, y, _, _ in ninths.tolist()] == [(i % 3, i // 3) for i in range(7)]
    covered = np.zeros(scene.image.shape[:2], bool)
    for x1, y1, x2, y2 in scene.boxes.astype(int).tolist():
        covered[y1:y2, x1:x2] = True
    assert (scene.image[~covered] == 114).all()


def test_scenes_depend_on_the_seed_alone(maker):
    a = maker.scene([0, 1], 192, np.random.default_rng(5))
    b = maker.scene([0, 1], 192, np.random.default_rng(5))
    assert (a.image == b.image).all()
    assert (a.boxes == b.boxes).all()


def test_colourised_skin_is_warmer_than_grey():
    grey = np.full((8, 8), 150, np.uint8)
    means = np.array(
        [augment.colourise(grey, np.random.default_rng(s)).mean((0, 1)) for s in range(200)]
    ).mean(0)
    assert means[0] > means[1] > means[2]


def test_balanced_rows_lift_the_rare_class():
    labels = np.repeat([0, 1], [900, 100])
    rng = np.random.default_rng(0)
    plain = balanced_rows(labels, 0.0, rng)
    assert sorted(plain.tolist()) == list(range(1000))
    lifted = np.bincount(labels[balanced_rows(labels, 0.5, rng)])
    assert lifted.sum() == 1000
    assert lifted[1] == pytest.approx(250, abs=5)  # 1/sqrt(900)*900 : 1/sqrt(100)*100 = 30 : 10


def test_collate_pads_and_marks_what_is_there(maker):
    rng = np.random.default_rng(1)
    scenes = [maker.full_frame(0, 96, rng), maker.scene([], 96, rng)]
    images, boxes, targets, present = collate(scenes)
    assert images.shape == (2, 96, 96, 3)
    assert boxes.shape == (2, 1, 4)
    assert targets.shape == (2, 1, 7)
    assert present.tolist() == [[True], [False]]


def test_targets_are_the_label_smoothed():
    faces = fer2013.Faces(
        np.zeros((2, 48, 48), np.uint8), np.array([3, 1]), np.zeros((2, 7), np.float32), np.zeros(2, bool)
    )
    targets = faces.targets(smoothing=0.07)
    assert targets[0].tolist() == pytest.approx([0.01, 0.01, 0.01, 0.94, 0.01, 0.01, 0.01])
    assert targets.argmax(1).tolist() == [3, 1]


def test_a_missing_data_folder_is_named_before_anything_starts(tmp_path):
    with pytest.raises(InputError, match="fer2013_sheet_0"):
        stages_of({"network": "yolo11n", "stage": [{"kind": "classifier", "epochs": 1}]}, tmp_path)


@pytest.mark.data
def test_fer2013_has_its_official_splits_without_leaks(shared_data):
    sets = fer2013.read(shared_data / "fer2013")
    assert (len(sets.training), len(sets.public_test), len(sets.private_test)) == (28_005, 3_589, 3_589)
    assert sets.public_test.duplicated.sum() == 280
    assert sets.private_test.duplicated.sum() == 288
    training = {image.tobytes() for image in sets.training.images}
    tests = [*sets.public_test.images, *sets.private_test.images]
    assert not any(image.tobytes() in training for image in tests)
    assert sets.training.images.std(axis=(1, 2)).min() > 0


@pytest.mark.data
def test_an_unknown_recipe_key_is_named(shared_data):
    with pytest.raises(InputError, match="speed"):
        stages_of(
            {"network": "yolo11n", "stage": [{"kind": "classifier", "epochs": 1, "speed": 3}]}, shared_data
        )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"network": "yolo11n", "weights": "w.safetensors"}, "teacher"),
        ({"network": "resnet", "weights": "w.safetensors", "side": 48}, "teacher"),
        ({"network": "gmenet", "weights": "none.safetensors", "side": 48}, "none.safetensors"),
        ({"network": "yolo11n", "weights": "w.safetensors", "side": 48}, "w.safetensors is not of a yolo11n"),
    ],
)
def test_a_teacher_that_cannot_be_used_is_named_before_any_data_is_read(tmp_path, table, message):
    checkpoint.save(tmp_path / "w.safetensors", CLASSIFIERS["gmenet"](0.0).state_dict(), {})
    recipe = {"network": "yolo11n", "teacher": [table], "stage": [{"kind": "classifier", "epochs": 1}]}
    with pytest.raises(InputError, match=message):
        stages_of(recipe, tmp_path / "no data", tmp_path)


def test_one_teacher_is_a_list_of_one(tmp_path):
    with pytest.raises(InputError, match=r"\[teacher\]"):
        stages_of({"network": "gmenet", "teacher": {"network": "gmenet"}}, tmp_path, tmp_path)


@pytest.mark.data
@pytest.mark.parametrize("name", ["fer-yolo11n", "fer-yolo12n"])
def test_the_recipes_teacher_knows_more_than_a_coin(shared_data, name):
    folder = Path(__file__).parents[2] / "training/recipes"
    recipe = tomllib.loads((folder / f"{name}.toml").read_text())
    first = stages_of({**recipe, "stage": recipe["stage"][:1]}, shared_data, folder)[0]
    faces = first.data.public_test[np.arange(0, 3589, 12)]
    answer = first.teacher(faces.images).argmax(1)
    assert (answer == faces.labels).mean() > 0.6


def test_a_crop_of_strength_zero_is_only_resized_and_may_get_a_colour():
    ramp = np.tile(np.arange(48, dtype=np.uint8) * 5, (48, 1))
    looks = [augment.crop(ramp, 48, np.random.default_rng(i), strength=0.0) for i in range(40)]
    assert {look.shape for look in looks} == {(48, 48, 3)}
    grey = [look for look in looks if (look[..., 0] == look[..., 2]).all()]
    assert 15 < len(grey) < 40
    assert all(np.abs(look[..., 0].astype(int) - ramp).max() <= 1 for look in grey)


def test_light_of_strength_zero_changes_nothing():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    same = augment.light(ramp, np.random.default_rng(0), strength=0.0)
    assert np.abs(same.astype(int) - ramp).max() <= 1
    assert (augment.light(ramp, np.random.default_rng(0)) != ramp).mean() > 0.5
