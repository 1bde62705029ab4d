"""The one way in which a file is written: whole, or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

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
    path = Path(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    content = data.encode("utf-8") if isinstance(data, str) else data
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}", remedy="choose a writable folder with space"
        ) from error
