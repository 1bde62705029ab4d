"""Frames from a picture, a folder of pictures or a video file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from edge_sdk.errors import SourceUnavailable
from edge_sdk.files import entries
from edge_sdk.image import MAX_PIXELS, Image, opencv, read_image

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
VIDEOS = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v"})


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a source.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        timestamp: seconds since the source's first frame.
        index: 0, 1, 2 ...
        name: file name, with ``#index`` for a frame of a video.
    """

    image: Image
    timestamp: float
    index: int
    name: str


class Source(Protocol):
    """Frames in order, once; a context manager."""

    def __iter__(self) -> Iterator[Frame]:
        """Frames until the source ends."""
        ...

    def __enter__(self) -> Source:
        """Return the source."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release what the source holds."""
        ...


def open_source(where: str | Path) -> Source:
    """Open a picture, a folder of pictures or a video file.

    Raises:
        SourceUnavailable: there is no such file, the folder has no pictures, or the suffix is unknown.
    """
    path = Path(where)
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:  # longer than a path may be, or not allowed to look
        raise SourceUnavailable(f"cannot open {path}: {error}", remedy="check the path") from error
    if is_folder:
        paths = [p for p in entries(path) if p.suffix.lower() in PICTURES]
        if not paths:
            raise SourceUnavailable(
                f"no pictures in folder {path}", remedy=f"put {', '.join(sorted(PICTURES))} files there"
            )
        return PictureSource(paths)
    if not is_there:
        raise SourceUnavailable(f"no file or folder {path}", remedy="check the path")
    if path.suffix.lower() in VIDEOS:
        return VideoSource(path)
    # Any other suffix is tried as a picture: the content decides, and the error names the file.
    return PictureSource([path])


class _Closing:
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release what the source holds; nothing by default."""


class PictureSource(_Closing):
    """Picture files in the given order; an unreadable one raises InputError that names it."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __enter__(self) -> PictureSource:
        """Return the source."""
        return self

    def __iter__(self) -> Iterator[Frame]:
        """One frame per file; timestamps are the index, for pictures have no time."""
        for index, path in enumerate(self.paths):
            yield Frame(read_image(path), float(index), index, path.name)


class VideoSource(_Closing):
    """Frames of a video file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._capture: Any = None

    def __enter__(self) -> VideoSource:
        """Open the file now, so that a damaged one fails here."""
        self._open()
        return self

    def _open(self) -> Any:
        if self._capture is None:
            cv2 = opencv()
            capture = cv2.VideoCapture(str(self.path))
            if capture.isOpened():
                self._check_size(
                    capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
                )
            else:
                raise SourceUnavailable(
                    f"cannot open video {self.path}", remedy="give a complete file that OpenCV can decode"
                )
            self._capture = capture
        return self._capture

    def _check_size(self, width: float, height: float) -> None:
        """Raise SourceUnavailable for frames of more pixels than are read, before one is decoded."""
        if width * height > MAX_PIXELS:
            raise SourceUnavailable(
                f"video {self.path} has frames of {width:.0f}x{height:.0f} pixels, at most {MAX_PIXELS:,} are read",
                remedy="make it smaller",
            )

    def __iter__(self) -> Iterator[Frame]:
        """Decoded frames until the file ends."""
        cv2, capture = opencv(), self._open()
        index = 0
        while True:
            ok, image = capture.read()
            if not ok:
                break
            self._check_size(*image.shape[1::-1])  # a stream may change its size
            timestamp = float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
            rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
            yield Frame(rgb, timestamp, index, f"{self.path.name}#{index}")
            index += 1
        if index == 0:
            raise SourceUnavailable(
                f"video {self.path} has no readable frame", remedy="give a complete video file"
            )

    def close(self) -> None:
        """Close the file."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None
