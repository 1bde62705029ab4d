"""Width and height of a picture file, from its first bytes: what is too large is refused before a decoder sees it.

A file of some megabytes can decode to gigabytes. Only the kinds that the SDK documents are known here, and so no other
decoder of OpenCV is ever reached by a file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

Size = tuple[int, int]


def picture_size(data: bytes) -> Size | None:
    """Width and height in pixels that a JPEG, PNG, BMP or WebP file says it has; None for anything else.

    Args:
        data: the whole file. Nothing is decoded, and nothing promises that a decoder can read the rest.
    """
    for magic, read in _KINDS:
        if data.startswith(magic):
            try:
                return read(data)
            except (struct.error, IndexError):  # cut off
                return None
    return None


def _png(data: bytes) -> Size | None:
    """PNG (ISO/IEC 15948): the IHDR chunk comes first."""
    if data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg(data: bytes) -> Size | None:
    """JPEG (ITU T.81): the largest frame before the first scan; junk between segments is skipped, as libjpeg does."""
    at, found = 2, None
    while True:
        at = data.find(b"\xff", at)
        if at < 0:
            return None
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker == 0xDA:  # start of scan
            return found
        if marker == 0xD9:  # end of image
            return None
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # no segment follows
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 3)
            if found is None or width * height > found[0] * found[1]:
                found = width, height
        (length,) = struct.unpack_from(">H", data, at)
        at += max(2, length)


def _bmp(data: bytes) -> Size | None:
    """BMP: a header of 12 bytes, or a longer one; a negative height says that the rows go down."""
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(width), abs(height)


def _webp(data: bytes) -> Size | None:
    """WebP (RFC 9649): lossy, lossless, or the canvas of an extended file."""
    kind = data[12:16]
    if data[8:12] != b"WEBP":
        return None
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        low, width, high, height = struct.unpack_from("<HBHB", data, 24)
        return (low | width << 16) + 1, (high | height << 16) + 1
    return None


_KINDS: tuple[tuple[bytes, Callable[[bytes], Size | None]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"BM", _bmp),
    (b"RIFF", _webp),
)
