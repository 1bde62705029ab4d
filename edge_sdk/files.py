"""Files: written whole or not at all, read within limits if they are others', kept where nobody else may touch them."""

from __future__ import annotations

import errno
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
                raise InputError(f"cannot read {what} {path}: it is no regular file", remedy="name a file")
            yield file, found.st_size
    except IsADirectoryError as error:
        raise InputError(f"cannot read {what} {path}: it is a folder", remedy="name a file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, InputError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"cannot read {what} {path}: {reason}", remedy="check the path") from error


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


def read_file(path: str | Path, *, limit: int, what: str) -> bytes:
    """The content of a regular file.

    Args:
        path: of the file; a device, a pipe or a folder is refused before anything is read.
        limit: bytes that it may have.
        what: it is, for messages, such as ``"report"``.

    Raises:
        InputError: it is missing, no regular file, too large, or cannot be read.
    """
    with opened(path, what) as (file, size):
        if size > limit:
            raise InputError(
                f"{path} has {size:,} bytes, a {what} at most {limit:,}",
                remedy=f"this is no {what} of this SDK",
            )
        return file.read(size)


def entries(folder: Path, *, below: bool = False) -> list[Path]:
    """What a folder holds, sorted.

    Args:
        folder: to list.
        below: also what its folders hold, at every depth; links to folders are not followed.

    Raises:
        InputError: it, or a folder below it, cannot be listed: nothing is left out silently.
    """

    def refuse(error: OSError) -> None:
        raise InputError(
            f"cannot list folder {error.filename}: {error.strerror}",
            remedy="check the path and who may read it",
        ) from error

    try:
        if not below:
            return sorted(folder.iterdir())
        walked = os.walk(folder, onerror=refuse)
        return sorted(Path(place) / name for place, _, names in walked for name in names)
    except OSError as error:
        refuse(error)
        raise


_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_private_folder(path: Path, remedy: str) -> None:
    """Refuse a folder in which somebody else could put files.

    The last part of its path must be the folder itself: a link leads wherever its maker turns it.

    Args:
        path: of the folder.
        remedy: how to name another one, for the message.

    Raises:
        InputError: it is a link or no folder, belongs to another user, or others may write into it.
        OSError: it cannot be looked at.
    """
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise InputError(f"{path} is a link or a file, not a folder", remedy=remedy)
    _check_ours(path, found, f"chmod 700 {path} if it is yours, or {remedy}")


def open_private(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file on which trust rests, such as a key or a lock, and look at what was opened, not at its name.

    Args:
        path: of the file.
        flags: as for :func:`os.open`; what is made is for this user alone.

    Returns:
        Handle of a regular file of this user that nobody else may write.

    Raises:
        InputError: it is a link or anything else.
        OSError: it cannot be opened.
    """
    # Without O_NONBLOCK a pipe in the file's place would wait for whoever writes into it.
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path} is a link", remedy=f"remove {path}") from error
        raise
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path} is no regular file", remedy=f"remove {path}")
        _check_ours(path, found, f"remove {path}")
    except BaseException:
        os.close(handle)
        raise
    return handle


def _check_ours(path: Path, found: os.stat_result, remedy: str) -> None:
    if found.st_uid != os.geteuid():
        raise InputError(f"{path} belongs to another user", remedy=remedy)
    if found.st_mode & _OTHERS_WRITE:
        raise InputError(f"other users may write {path}", remedy=remedy)


def read_small_file(path: Path, limit: int, *, private: bool = False, guarded: bool = False) -> bytes:
    """Content of a regular file on which trust rests; what was opened is looked at, not its name.

    Args:
        path: of the file.
        limit: bytes that it may have.
        private: nobody but this user may be able to read it.
        guarded: it must belong to this user or to root, must be no link, and nobody else may be able to write it.

    Raises:
        InputError: it cannot be read, or is not such a file.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if guarded else 0)
    try:
        # Without O_NONBLOCK a pipe in the file's place would wait for a writer.
        handle = os.open(path, flags)
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise InputError(f"{path} is no regular file", remedy="name a file")
            if guarded:
                refuse_if_others_write(path, found)
            if private and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise InputError(
                    f"{path} can be read by other users (mode {stat.S_IMODE(found.st_mode):04o})",
                    remedy=f"chmod 600 {path}, and make another key if somebody may have read it",
                )
            data = file.read(limit + 1)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if getattr(error, "errno", None) == errno.ELOOP and guarded:
            raise InputError(f"{path} is a link", remedy="put the file itself there") from error
        raise InputError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}", remedy="check the path"
        ) from error
    if len(data) > limit:
        raise InputError(f"{path} has more than {limit:,} bytes", remedy="name the right file")
    return data


def refuse_if_others_write(path: Path, found: os.stat_result) -> None:
    """Refuse what belongs to neither this user nor root, or what others may write.

    A folder where others may write, but where only a file's owner may replace it (sticky, as ``/tmp``), passes.

    Raises:
        InputError: so it is.
    """
    if found.st_uid not in (0, os.geteuid()):
        raise InputError(
            f"{path} belongs to another user", remedy="let root own it, or the user that runs this"
        )
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        raise InputError(
            f"{path} can be written by other users (mode {stat.S_IMODE(found.st_mode):04o})",
            remedy=f"chmod go-w {path}",
        )
