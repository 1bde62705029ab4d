"""What a picture file says of its size, held against what OpenCV decodes, and what is refused undecoded."""

import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")

from edge_sdk import image  # noqa: E402
from edge_sdk.errors import InputError, SourceUnavailable  # noqa: E402
from edge_sdk.image import read_image  # noqa: E402
from edge_sdk.picture_header import picture_size  # noqa: E402
from edge_sdk.sources import files, open_source  # noqa: E402

WAYS = {
    "png": (".png", ()),
    "jpeg": (".jpg", ()),
    "progressive": (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1)),
    "bmp": (".bmp", ()),
    "webp": (".webp", (cv2.IMWRITE_WEBP_QUALITY, 60)),
    "lossless": (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101)),
}


def encoded(kind, width, height):
    suffix, options = WAYS[kind]
    ok, data = cv2.imencode(suffix, np.zeros((height, width, 3), np.uint8), options)
    assert ok
    return data.tobytes()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(WAYS)), st.integers(1, 600), st.integers(1, 600))
def test_the_header_says_what_the_decoder_finds(kind, width, height):
    data = encoded(kind, width, height)
    assert picture_size(data) == (width, height)
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (height, width)


def test_an_extended_webp_and_an_old_and_an_upturned_bmp_say_their_size():
    canvas = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0" + b"\x10\0\0\0" + b"\x3f\x42\x0f" + b"\x01\0\0"
    assert picture_size(canvas) == (1_000_000, 2)
    assert picture_size(b"BM" + bytes(12) + struct.pack("<IHH", 12, 7, 9)) == (7, 9)
    assert picture_size(b"BM" + bytes(12) + struct.pack("<Iii", 40, 7, -9)) == (7, 9)


def test_the_largest_frame_of_a_jpeg_counts_whatever_lies_before_it():
    def frame(width, height):
        return b"\xff\xc0\x00\x0b\x08" + struct.pack(">HH", height, width) + b"\x01\x01\x11\x00"

    comment = b"\xff\xfe\x00\x06\xff\xc0\x01\x02"
    head = b"\xff\xd8" + comment + b"junk\xff\xff\xd0" + frame(4, 4) + frame(60_000, 50_000)
    assert picture_size(head + b"\xff\xda\x00\x02") == (60_000, 50_000)


@settings(max_examples=100)
@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"RIFF\0\0\0\0WEBPVP8 "]),
    st.binary(max_size=64),
)
def test_any_bytes_give_a_size_or_none(magic, rest):
    found = picture_size(magic + rest)
    assert found is None or all(isinstance(n, int) and n >= 0 for n in found)


def enormous(path, side):
    """A complete PNG of black pixels, whose file is a thousandth of what it decodes to."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packed = zlib.compress(bytes((3 * side + 1) * side), 1)
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def test_a_picture_of_too_many_pixels_is_refused_undecoded(tmp_path, monkeypatch):
    path = enormous(tmp_path / "bomb.png", 400)
    assert read_image(path).shape == (400, 400, 3)
    monkeypatch.setattr(image, "MAX_PIXELS", 399 * 400)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(InputError, match="has 400x400 pixels, at most 159,600 are read"):
        read_image(path)


def test_a_kind_that_is_not_documented_reaches_no_decoder(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    for name, content in (("x.gif", b"GIF89a"), ("x.tiff", b"II*\0"), ("x.pgm", b"P5 1 1 255\n\0")):
        (tmp_path / name).write_bytes(content + bytes(64))
        with pytest.raises(InputError, match="is not a picture"):
            read_image(tmp_path / name)


def test_a_file_that_is_too_large_or_has_no_end_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(image, "MAX_FILE_BYTES", 1000)
    (tmp_path / "large.png").write_bytes(bytes(1001))
    with pytest.raises(InputError, match="1,001 bytes, a picture at most 1,000"):
        read_image(tmp_path / "large.png")
    with pytest.raises(InputError, match="it is a folder"):
        read_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_and_a_device_are_no_pictures(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(InputError, match="it is no regular file"):
            read_image(tmp_path / name)


def test_a_video_of_too_many_pixels_is_refused_undecoded(tmp_path, monkeypatch):
    path = str(tmp_path / "large.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    monkeypatch.setattr(files, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(SourceUnavailable, match="frames of 64x48 pixels, at most 3,071"), open_source(path):
        pass
