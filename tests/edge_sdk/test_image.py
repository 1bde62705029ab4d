import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")

from edge_sdk.errors import InputError  # noqa: E402
from edge_sdk.image import Letterbox, LetterboxSpec, check_image, fit_letterbox, read_image, write_image  # noqa: E402

side = st.integers(1, 3000)


@given(side, side, st.floats(0.5, 4))
def test_a_frame_fits_on_the_canvas_and_keeps_its_shape(width, height, max_scale):
    t, w, h = fit_letterbox(width, height, side_x=320, side_y=256, max_scale=max_scale)
    assert 1 <= w <= 320
    assert 1 <= h <= 256
    assert t.left >= 0
    assert t.left + w <= 320
    assert t.top >= 0
    assert t.top + h <= 256
    scale = min(320 / width, 256 / height, max_scale)
    assert abs(w - width * scale) <= 1
    assert abs(h - height * scale) <= 1


@given(side, side, st.tuples(*[st.floats(0, 1)] * 4))
def test_the_way_back_undoes_the_way_there(width, height, corners):
    t, _, _ = fit_letterbox(width, height, side_x=320, side_y=320, max_scale=2.0)
    x1, x2 = sorted((corners[0] * width, corners[2] * width))
    y1, y2 = sorted((corners[1] * height, corners[3] * height))
    box = np.array([[x1, y1, x2, y2]], np.float32)
    np.testing.assert_allclose(t.to_frame(t.to_canvas(box)), box, atol=max(width, height) * 1e-4)


def test_boxes_are_clipped_to_the_frame():
    t, _, _ = fit_letterbox(100, 50, side_x=320, side_y=320, max_scale=2.0)
    assert t.to_frame(np.array([[-50, -50, 900, 900]], np.float32)).tolist() == [[0, 0, 100, 50]]


def test_small_frames_are_enlarged_by_the_limit_only():
    t, w, h = fit_letterbox(48, 48, side_x=320, side_y=320, max_scale=2.0)
    assert (w, h) == (96, 96)
    assert (t.left, t.top) == (112, 112)


@settings(max_examples=30)
@given(st.integers(2, 400), st.integers(2, 400))
def test_the_border_is_padding_and_the_window_is_the_frame(width, height):
    box = Letterbox(side_x=96, side_y=64, spec=LetterboxSpec(114, 2.0))
    t, canvas = box(np.full((height, width, 3), 7, np.uint8)), box.canvas
    assert canvas.shape == (1, 64, 96, 3)
    inside = np.zeros((64, 96), bool)
    _, w, h = fit_letterbox(width, height, side_x=96, side_y=64, max_scale=2.0)
    inside[t.top : t.top + h, t.left : t.left + w] = True
    assert (canvas[0][inside] == 7).all()
    assert (canvas[0][~inside] == 114).all()


def test_a_smaller_frame_after_a_larger_leaves_nothing_behind():
    box = Letterbox(side_x=64, side_y=64, spec=LetterboxSpec(0, 1.0))
    box(np.full((64, 64, 3), 255, np.uint8))
    box(np.full((8, 8, 3), 9, np.uint8))
    canvas = box.canvas
    assert (canvas == 9).sum() == 8 * 8 * 3
    assert (canvas == 255).sum() == 0


def test_bgr_is_rgb_with_swapped_channels():
    frame = np.random.default_rng(0).integers(0, 256, (37, 61, 3)).astype(np.uint8)
    box = Letterbox(side_x=64, side_y=64, spec=LetterboxSpec(114, 2.0))
    box(frame)
    rgb = box.canvas.copy()
    box(np.ascontiguousarray(frame[..., ::-1]), "bgr")
    assert (box.canvas == rgb).all()


def test_a_view_that_is_not_contiguous_is_read_right():
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    box = Letterbox(side_x=64, side_y=64, spec=LetterboxSpec(114, 2.0))
    box(frame[:, ::-1])
    mirrored = box.canvas.copy()
    box(np.ascontiguousarray(frame[:, ::-1]))
    assert (box.canvas == mirrored).all()


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (np.zeros((4, 4), np.uint8), "grey"),
        (np.zeros((4, 4, 1), np.uint8), "grey"),
        (np.zeros((4, 4, 4), np.uint8), "alpha"),
        (np.zeros((4, 4, 3), np.float32), "not uint8"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((1, 4, 4, 3), np.uint8), "not a picture"),
        (np.zeros((4, 4, 2), np.uint8), "not a picture"),
        (np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (9000, 9000, 3)), "too many"),
        ([[1, 2, 3]], "numpy array, got list"),
        (None, "numpy array, got NoneType"),
        ("photo.jpg", "numpy array, got str"),
    ],
)
def test_other_frames_are_refused_with_what_came_and_what_to_do(frame, match):
    with pytest.raises(InputError, match=match) as caught:
        check_image(frame)
    assert caught.value.remedy


def test_a_picture_survives_png(tmp_path):
    frame = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    write_image(tmp_path / "x.png", frame)
    assert (read_image(tmp_path / "x.png") == frame).all()
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_an_unreadable_picture_is_named(tmp_path, content):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.png"):
        read_image(path)


def test_a_picture_that_claims_to_be_enormous_is_an_input_error(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    with pytest.raises(InputError, match=r"bomb\.png"):
        read_image(path)


@pytest.mark.parametrize("size", [(1, 1), (1, 70_000), (70_000, 1), (2, 3)])
def test_frames_of_extreme_shape_are_drawn(size):
    box = Letterbox(side_x=64, side_y=64, spec=LetterboxSpec(0, 2.0))
    t = box(np.full((*size, 3), 9, np.uint8))
    assert (box.canvas == 9).any()
    assert t.to_frame(np.array([[0, 0, 64, 64]], np.float32)).tolist() == [[0, 0, size[1], size[0]]]


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.png"):
        read_image(tmp_path / "none.png")


def test_an_unknown_suffix_and_a_missing_folder_are_refused(tmp_path):
    frame = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(InputError, match="suffix"):
        write_image(tmp_path / "x.what", frame)
    with pytest.raises(InputError, match="nowhere"):
        write_image(tmp_path / "nowhere" / "x.png", frame)
    assert list(tmp_path.iterdir()) == []
