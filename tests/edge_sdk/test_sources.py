import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")

from edge_sdk.errors import InputError, SourceUnavailable  # noqa: E402
from edge_sdk.image import write_image  # noqa: E402
from edge_sdk.sources import open_source  # noqa: E402
from edge_sdk.testing import FakeClock, FakeSource  # noqa: E402


def plain(value):
    return np.full((32, 48, 3), value, np.uint8)


def test_a_picture_is_one_frame(tmp_path):
    write_image(tmp_path / "x.png", plain((200, 10, 10)))
    with open_source(tmp_path / "x.png") as source:
        (frame,) = source
    assert (frame.image == plain((200, 10, 10))).all()
    assert (frame.name, frame.index) == ("x.png", 0)


def test_a_folder_is_read_in_name_order_without_other_files(tmp_path):
    for name in ("b.png", "a.jpg", "c.bmp"):
        write_image(tmp_path / name, plain(9))
    (tmp_path / "notes.txt").write_text("no picture")
    assert [f.name for f in open_source(tmp_path)] == ["a.jpg", "b.png", "c.bmp"]


def test_a_damaged_picture_in_a_folder_is_named(tmp_path):
    write_image(tmp_path / "a.png", plain(9))
    (tmp_path / "b.png").write_bytes(b"damaged")
    frames = iter(open_source(tmp_path))
    next(frames)
    with pytest.raises(InputError, match=r"b\.png"):
        next(frames)


def test_a_video_gives_its_frames_in_rgb_with_their_times(tmp_path):
    path = str(tmp_path / "v.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 32))
    for value in (50, 100, 200):
        writer.write(plain((0, 0, value)))  # BGR: red
    writer.release()
    with open_source(path) as source:
        frames = list(source)
    assert [f.name for f in frames] == ["v.avi#0", "v.avi#1", "v.avi#2"]
    np.testing.assert_allclose([f.timestamp for f in frames], [0, 0.1, 0.2], atol=0.05)
    reds = [f.image[..., 0].mean() for f in frames]
    np.testing.assert_allclose(reds, [50, 100, 200], atol=8)
    assert frames[2].image[..., 2].mean() < 20


@pytest.mark.parametrize("name", ["none.png", "none.mp4", "none"])
def test_a_missing_source_is_named(tmp_path, name):
    with pytest.raises(SourceUnavailable, match=name):
        open_source(tmp_path / name)


def test_an_empty_folder_and_a_broken_video_are_named(tmp_path):
    with pytest.raises(SourceUnavailable, match="no pictures"):
        open_source(tmp_path)
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(SourceUnavailable, match=r"v\.mp4"), open_source(tmp_path / "v.mp4") as source:
        list(source)


def test_the_fakes_for_users_tests():
    clock = FakeClock(step_ns=5)
    assert (clock(), clock()) == (5, 10)
    clock.advance(100)
    assert clock() == 115
    with FakeSource([plain(1), plain(2)]) as source:
        assert [f.index for f in source] == [0, 1]
    assert source.closed
