"""The drawn pictures: the same everywhere, all different, and the user's own instead."""

import numpy as np
import pytest

from edge_benchmarks import frames
from edge_sdk.errors import InputError
from edge_sdk.image import write_image


def test_the_drawn_set_has_the_same_bytes_everywhere():
    assert frames.frame_set().sha256 == "3282aba1546f5e17dc2e886808e871349fdfa4714feaafd1fe69905b1e39e30f"


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


def test_every_drawn_face_has_a_box_inside_the_picture():
    pictures = frames.frame_set()
    boxes = np.concatenate(pictures.boxes)
    assert len(boxes) == 112
    assert (boxes[:, 2:] - boxes[:, :2] > 90).all()
    assert (boxes.min(axis=0) >= (-8, 0, 0, 0)).all()
    assert (boxes.max(axis=0) <= (640, 480, 648, 480)).all()


def test_the_order_is_the_same_everywhere_and_every_pass_is_whole():
    order = frames.shuffled(64)
    assert order[:6] == frames.shuffled(64)[:6]
    passes = [order[i : i + 64] for i in range(0, len(order), 64)]
    assert all(sorted(p) == list(range(64)) for p in passes)
    assert len({tuple(p) for p in passes}) == len(passes)


def test_pictures_take_a_cameras_size_and_boxes_go_along():
    pictures = frames.frame_set(size=(1280, 720))
    assert {image.shape for image in pictures.images} == {(720, 1280, 3)}
    assert np.allclose(pictures.boxes[0], frames.frame_set().boxes[0] * (2, 1.5, 2, 1.5))
    assert pictures.sha256 != frames.frame_set().sha256


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
