"""What a folder of pictures must look like; nothing in it is skipped silently."""

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys

from edge_quantize.data import (
    check_classes,
    digest,
    read_labelled,
    read_pictures,
)
from edge_sdk.errors import InputError
from edge_sdk.image import write_image


@pytest.fixture
def yolo(tmp_path):
    return toys.write_pictures(tmp_path / "yolo", 3, 0)


def label(folder, text):
    (folder / "labels" / "001.txt").write_text(text)


def test_a_yolo_folder_is_read_in_name_order_with_corners_as_fractions(yolo):
    label(yolo, "1 0.5 0.25 0.2 0.1\n0 0.1 0.1 0.2 0.2\n\n")
    items = read_labelled(yolo, toys.LABELS)
    assert [item.path.name for item in items] == ["000.png", "001.png", "002.png"]
    np.testing.assert_allclose(items[1].boxes, [[0.4, 0.2, 0.6, 0.3], [0, 0, 0.2, 0.2]], atol=1e-9)
    assert items[1].classes.tolist() == [1, 0]


def test_an_empty_label_file_is_a_picture_without_a_face(yolo):
    label(yolo, "")
    item = read_labelled(yolo, toys.LABELS)[1]
    assert item.boxes.shape == (0, 4)
    assert item.classes.shape == (0,)


@pytest.mark.parametrize(
    "text",
    [
        "0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2",  # lines of different length
        "0 0.5 0.5 0.2 0.2 0.9",  # a sixth value
        "0 120 80 40 40",  # pixels in the place of fractions
        "0 0.5 0.5 -0.2 0.2",
        "0 0.5 0.5 0 0.2",
        "0 1.5 0.5 0.2 0.2",
        "0 inf 0.5 0.2 0.2",
        "1e300 0.5 0.5 0.2 0.2",
    ],
)
def test_a_line_that_is_no_box_is_named_by_its_file(yolo, text):
    label(yolo, text)
    with pytest.raises(InputError, match=r"001\.txt"):
        read_labelled(yolo, toys.LABELS)


def test_a_label_file_that_is_no_text_is_named(yolo):
    (yolo / "labels" / "001.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"001\.txt"):
        read_labelled(yolo, toys.LABELS)


def test_labels_of_a_picture_that_is_not_there_are_named(yolo):
    (yolo / "images" / "001.png").unlink()
    with pytest.raises(InputError, match="001"):
        read_labelled(yolo, toys.LABELS)


def test_a_picture_outside_the_class_folders_is_named(tmp_path):
    (tmp_path / "red").mkdir()
    write_image(tmp_path / "red" / "x.png", toys.frame())
    write_image(tmp_path / "stray.png", toys.frame())
    with pytest.raises(InputError, match=r"stray\.png"):
        read_labelled(tmp_path, toys.LABELS)


@pytest.mark.parametrize("folder", ["missing", "empty", "flat"])
def test_a_folder_without_labelled_pictures_is_named(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    toys.write_pictures(tmp_path / "flat", 2, 0, labelled=False)
    with pytest.raises(InputError, match=folder):
        read_labelled(tmp_path / folder, toys.LABELS)


def test_a_damaged_picture_is_named_when_it_is_read(yolo):
    (yolo / "images" / "001.png").write_bytes(b"damaged")
    pictures = read_pictures(read_labelled(yolo, toys.LABELS))
    next(pictures)
    with pytest.raises(InputError, match=r"001\.png"):
        next(pictures)


def test_the_digest_covers_contents_and_order(yolo):
    paths = [item.path for item in read_labelled(yolo, toys.LABELS)]
    before = digest(paths)
    assert before.items == 3
    assert digest(paths) == before
    assert digest(paths[::-1]) != before
    write_image(paths[1], toys.frame())
    assert digest(paths) != before


def test_a_held_out_set_that_lacks_a_class_is_refused_by_its_name(yolo):
    for file in (yolo / "labels").iterdir():
        file.write_text("0 0.5 0.5 0.2 0.2")
    items = read_labelled(yolo, toys.LABELS)
    with pytest.raises(InputError, match=r"no face of green among the 3 pictures in .*yolo"):
        check_classes(items, toys.LABELS, yolo)


def test_class_folders_are_full_frame_boxes(tmp_path):
    for label in ("green", "red"):
        (tmp_path / label).mkdir()
        write_image(tmp_path / label / "x.png", toys.frame())
    items = read_labelled(tmp_path, toys.LABELS)
    assert [(i.path.parent.name, i.classes.tolist(), i.boxes.tolist()) for i in items] == [
        ("green", [1], [[0, 0, 1, 1]]),
        ("red", [0], [[0, 0, 1, 1]]),
    ]
    assert digest([i.path for i in items]) == digest([i.path for i in items])


def test_a_folder_that_names_no_class_is_named(tmp_path):
    (tmp_path / "blue").mkdir()
    with pytest.raises(InputError, match="blue"):
        read_labelled(tmp_path, toys.LABELS)


@pytest.mark.parametrize(
    "text",
    [
        "0 0.5 0.5 0.2",
        "2 0.5 0.5 0.2 0.2",
        "-1 0.5 0.5 0.2 0.2",
        "0.5 0.5 0.5 0.2 0.2",
        "a b c d e",
        "0 nan 0 0 0",
    ],
)
def test_a_wrong_label_line_is_named_by_its_file(tmp_path, text):
    toys.write_pictures(tmp_path, 2, 0)
    (tmp_path / "labels" / "001.txt").write_text(text)
    with pytest.raises(InputError, match=r"001\.txt"):
        read_labelled(tmp_path, toys.LABELS)


def test_a_picture_without_a_label_file_is_named(tmp_path):
    toys.write_pictures(tmp_path, 2, 0)
    (tmp_path / "labels" / "000.txt").unlink()
    with pytest.raises(InputError, match=r"000\.txt"):
        read_labelled(tmp_path, toys.LABELS)


def test_pictures_without_any_face_measure_nothing(tmp_path):
    toys.write_pictures(tmp_path, 2, 0)
    for file in (tmp_path / "labels").iterdir():
        file.write_text("")
    with pytest.raises(InputError, match="no labelled face"):
        read_labelled(tmp_path, toys.LABELS)
