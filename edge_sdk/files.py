"""The one way in which a file or a folder is written, whole or not at all, and in which a file of others is read."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edge_sdk.errors import InputError


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Write a file under a temporary name beside it, then rename it.

    The temporary name is new and belongs to this call alone, so two writers of one file do not disturb each other, and
    a link that somebody else put there is never followed.

    Args:
        path: file to write; an older one of that name is replaced only when all bytes are on the disk.
        data: its content; text is written as UTF-8.

    Raises:
        InputError: the folder is missing, not writable or full; an older file of that name is untouched.
    """
    content = data.encode("utf-8") if isinstance(data, str) else data
    with replacing(path) as partial:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def opened(path: str | Path, what: str) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file of others for reading: no device, pipe or folder, which may have no end or never begin.

    Args:
        path: of the file.
        what: it should be, such as ``"picture"``, for messages.

    Yields:
        The open file, and its size in bytes.

    Raises:
        InputError: it cannot be opened or read, or is no regular file.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for somebody to write.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise InputError(f"cannot read {what} {path}: it is no file", remedy="name a file")
            yield file, found.st_size
    except IsADirectoryError as error:
        raise InputError(f"cannot read {what} {path}: it is a folder", remedy="name a file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, InputError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"cannot read {what} {path}: {reason}", remedy="check the path") from error


def read_limited(path: str | Path, limit: int, what: str) -> bytes:
    """The content of a file; one of more than ``limit`` bytes is an InputError, as is what :func:`opened` refuses."""
    with opened(path, what) as (file, size):
        if size > limit:
            raise InputError(
                f"{path} has {size:,} bytes, a {what} at most {limit:,}", remedy=f"name another {what}"
            )
        return file.read(size)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A new path beside ``path``, for a tool that writes a file or a folder itself; renamed when the block ends well.

    Args:
        path: what is written in the end. A file of that name is replaced; a folder of that name must not be there, or
            be empty.

    Raises:
        InputError: it cannot be written; what stood there before is untouched, and nothing half-written is left.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(6)}.partial{path.suffix}")
    try:
        try:
            yield partial
            partial.replace(path)
        finally:
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)
    except OSError as error:
        named = "" if error.filename is None else str(error.filename)
        if named and str(path.parent) not in named:
            raise  # of something else that the block did
        raise InputError(
            f"cannot write {path}: {error.strerror or error}", remedy="choose a writable folder with space"
        ) from error
