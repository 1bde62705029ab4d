"""Labelled crops of one's own in place of FER2013."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

from edge_sdk.errors import InputError
from edge_sdk.image import write_image
from edge_training.data import fer2013, own_faces
from edge_training.stages import stages_of


@pytest.fixture
def folder(tmp_path):
    for split, labels in (("train", ("happy", "sad")), ("validation", ("sad",))):
        for label in labels:
            (tmp_path / split / label).mkdir(parents=True)
            picture = np.zeros((90, 60, 3), np.uint8)
            picture[15:75] = (200, 200, 200) if label == "happy" else (50, 50, 50)
            write_image(tmp_path / split / label / "1.png", picture)
    return tmp_path


def test_the_middle_square_of_a_picture_becomes_a_grey_crop_with_the_label_of_its_folder(folder):
    sets = own_faces.read(folder)
    assert [fer2013.LABELS[i] for i in sets.training.labels] == ["happy", "sad"]
    assert [fer2013.LABELS[i] for i in sets.public_test.labels] == ["sad"]
    assert sets.training.images.shape == (2, 48, 48)
    np.testing.assert_allclose(sets.training.images[0], 200, atol=1)
    assert not sets.training.votes.any()
    assert len(sets.private_test) == 0


def test_a_missing_split_or_an_unknown_label_is_named(folder):
    (folder / "train" / "bored").mkdir()
    with pytest.raises(InputError, match="bored"):
        own_faces.read(folder)
    with pytest.raises(InputError, match="train"):
        own_faces.read(folder / "validation")


def test_a_recipe_trains_on_them_without_any_other_data(folder, tmp_path):
    table = {"kind": "classifier", "epochs": 1, "batch": 2, "sides": [48]}
    (stage,) = stages_of({"network": "gmenet", "stage": [table]}, tmp_path / "none", own_faces=folder)
    images, targets, votes = stage.batches(0)[0]
    assert images.shape == (2, 48, 48, 3)
    assert sorted(targets.argmax(1).tolist()) == [3, 4]
    assert not votes.any()
