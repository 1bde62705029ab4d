"""The drawn pictures: the same everywhere, all different, and the user's own instead."""

import numpy as np
import pytest

from edge_benchmarks import frames
from edge_sdk.errors import InputError
from edge_sdk.image import write_image


def test_the_drawn_set_has_the_same_bytes_everywhere():
    assert frames.frame_set().sha256 == "5be041a105a877ba37196fbf1b18755fbdfe63e51e9951e97d1a2a21bb7aa0dc"


def test_the_drawn_set_is_what_the_report_says_of_it():
    pictures = frames.frame_set()
    assert {image.shape for image in pictures.images} == {(480, 640, 3)}
    assert {image.dtype for image in pictures.images} == {np.dtype(np.uint8)}
    assert len({image.tobytes() for image in pictures.images}) == len(pictures.images) == 64
    assert sorted(set(pictures.drawn)) == [0, 1, 5]
    assert sum(pictures.drawn) / 64 == 1.75


def test_no_picture_is_plain_or_noise():
    for image in frames.frame_set().images:
        assert image.std() > 10
        # Neighbours are alike in a picture, and not in noise.
        assert np.abs(np.diff(image.astype(int), axis=1)).mean() < 10


def test_drawing_one_again_gives_the_same_picture():
    assert (frames.draw(7) == frames.draw(7)).all()


def test_own_pictures_come_in_the_order_of_their_names(tmp_path):
    for name, value in (("b.png", 20), ("a.png", 10)):
        write_image(tmp_path / name, np.full((6, 8, 3), value, np.uint8))
    pictures = frames.frame_set(tmp_path)
    assert [int(image[0, 0, 0]) for image in pictures.images] == [10, 20]
    assert pictures.drawn == ()
    assert pictures.origin == str(tmp_path)


def test_an_empty_or_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="has 0 pictures"):
        frames.frame_set(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        frames.frame_set(tmp_path / "missing")


def test_an_unreadable_picture_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"broken\.png"):
        frames.frame_set(tmp_path)
