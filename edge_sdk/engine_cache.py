"""What an engine compiled on this device, kept for its next start.

A compiled engine is native code or close to it, so a file is loaded only if this device wrote it: each carries a MAC
by a key that never leaves the folder. Whatever else is found (truncated, foreign, of another engine version) is as
good as nothing, and so is a folder that cannot be written: a cache may make a start faster, never make it fail. A
folder that somebody else could write into is not used at all, and the load's notes say so.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from edge_sdk.errors import InputError
from edge_sdk.files import check_private_folder, open_private, replacing

FOLDER_VARIABLE = "EDGE_SDK_ENGINE_CACHE"
"""Environment variable that names the folder; ``off`` switches the cache off."""

LIMIT_BYTES = 512 * 1024 * 1024
_KEY_BYTES = _MAC_BYTES = 32
_SUFFIX = ".engine"
_STALE_S = 3600


class EngineCache:
    """Compiled engines by everything that they depend on.

    Args:
        folder: made when first needed, for this user only.
        limit_bytes: the engines not used for longest go when there would be more.

    Attributes:
        problem: why the folder was not used when it was last asked, and what to do; None if it may be trusted.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self.problem: str | None = None

    def get(self, facts: Mapping[str, str]) -> bytes | None:
        """The engine of exactly these facts, if this device compiled it."""
        try:
            key = self._key()
            path = self._path(facts)
            if key is None:
                return None
            with os.fdopen(open_private(path), "rb") as file:
                data = file.read()
                with contextlib.suppress(OSError):  # a read-only folder still serves
                    os.utime(file.fileno())
        except (OSError, InputError):
            return None
        mac, engine = data[:_MAC_BYTES], data[_MAC_BYTES:]
        return engine if hmac.compare_digest(mac, _mac(key, path.name, engine)) else None

    def put(self, facts: Mapping[str, str], engine: bytes) -> bool:
        """Keep an engine, whole or not at all; returns whether it was kept."""
        if len(engine) > self.limit_bytes:
            return False
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            key = self._key()
            path = self._path(facts)
            if key is None:
                return False
            self._make_room(len(engine))
            with replacing(path) as partial:
                _write(partial, _mac(key, path.name, engine), engine)
        except (OSError, InputError):
            return False
        return True

    def _path(self, facts: Mapping[str, str]) -> Path:
        digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()
        return self.folder / f"{digest}{_SUFFIX}"

    def _key(self) -> bytes | None:
        """This device's secret, made on first use; None where the folder or the key is not this user's alone.

        Raises:
            OSError: it cannot be read or made.
        """
        path = self.folder / "key"
        try:
            check_private_folder(self.folder, f"set {FOLDER_VARIABLE} to a folder of your own")
            try:
                handle = open_private(path)
            except FileNotFoundError:
                # Written aside and linked: processes that start at once agree, and none reads half a key.
                with _partial(path) as partial, contextlib.suppress(FileExistsError):
                    _write(partial, secrets.token_bytes(_KEY_BYTES))
                    os.link(partial, path)
                handle = open_private(path)
            with os.fdopen(handle, "rb") as file:
                if os.fstat(handle).st_mode & 0o077:
                    raise InputError(f"others may read {path}", remedy=f"remove {self.folder}")
                key = file.read(_KEY_BYTES + 1)
        except InputError as refused:
            self.problem = f"engine cache not used: {refused}"
            return None
        self.problem = None
        if len(key) != _KEY_BYTES:
            raise OSError(f"{path} does not hold {_KEY_BYTES} bytes")
        return key

    def _make_room(self, needed: int) -> None:
        for path in self.folder.glob("*.partial*"):
            with contextlib.suppress(OSError):
                # Of a process that ended while it wrote: nobody writes for so long.
                if time.time() - path.lstat().st_mtime > _STALE_S:
                    path.unlink()
        # Named by a digest; what another process is writing begins with a dot.
        found = [(p, p.lstat()) for p in self.folder.glob(f"[0-9a-f]*{_SUFFIX}")]
        total = sum(s.st_size for _, s in found) + needed + _MAC_BYTES
        for path, status in sorted(found, key=lambda item: item[1].st_mtime_ns):
            if total <= self.limit_bytes:
                return
            path.unlink(missing_ok=True)
            total -= status.st_size


def _mac(key: bytes, name: str, engine: bytes) -> bytes:
    # The name stands for the facts: an engine cannot be passed off as another one's.
    return hmac.new(key, name.encode() + b"\0" + engine, hashlib.sha256).digest()


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A new name beside a path that nobody can foresee; nothing of that name is left behind."""
    partial = path.with_suffix(f".{secrets.token_hex(8)}.partial")
    try:
        yield partial
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _write(path: Path, *parts: bytes) -> None:
    """Write a new file for this user alone."""
    with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


def default_cache() -> EngineCache | None:
    """This user's cache, or None where it is switched off or there is no place for it."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named == "off":
        return None
    if named:
        return EngineCache(Path(named))
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        home = Path(base) if base else Path.home() / ".cache"
    except RuntimeError:  # a user without a home, as services often are
        return None
    return EngineCache(home / "face-edge-sdk" / "engines")
