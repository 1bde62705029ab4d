"""What an engine compiled on this device, kept for its next start.

A compiled engine is native code or close to it, so a file is loaded only if this device wrote it: each carries a MAC
by a key that never leaves the folder. Whatever else is found (truncated, foreign, of another engine version) is as
good as nothing, and so is a folder that cannot be written: a cache may make a start faster, never make it fail.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from edge_sdk.errors import InputError
from edge_sdk.files import replacing

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
    """

    def __init__(self, folder: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes

    def get(self, facts: Mapping[str, str]) -> bytes | None:
        """The engine of exactly these facts, if this device compiled it."""
        try:
            path = self._path(facts)
            data = path.read_bytes()
            mac, engine = data[:_MAC_BYTES], data[_MAC_BYTES:]
            if not hmac.compare_digest(mac, self._mac(path.name, engine)):
                return None
            with contextlib.suppress(OSError):  # a read-only folder still serves
                os.utime(path)
        except OSError:
            return None
        return engine

    def put(self, facts: Mapping[str, str], engine: bytes) -> bool:
        """Keep an engine, whole or not at all; returns whether it was kept."""
        if len(engine) > self.limit_bytes:
            return False
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._path(facts)
            self._make_room(len(engine))
            with replacing(path) as partial, partial.open("xb") as file:
                file.write(self._mac(path.name, engine))
                file.write(engine)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, InputError):
            return False
        return True

    def _path(self, facts: Mapping[str, str]) -> Path:
        digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()
        return self.folder / f"{digest}{_SUFFIX}"

    def _mac(self, name: str, engine: bytes) -> bytes:
        # The name stands for the facts: an engine cannot be passed off as another one's.
        return hmac.new(self._key(), name.encode() + b"\0" + engine, hashlib.sha256).digest()

    def _key(self) -> bytes:
        """This device's secret, made on first use.

        Raises:
            OSError: it cannot be read or made, or others may read it.
        """
        path = self.folder / "key"
        with contextlib.suppress(FileExistsError):
            # Written aside and linked, so that two processes that start at once agree and neither reads half a key.
            partial = path.with_suffix(f".{os.getpid()}.partial")
            if not path.exists():
                handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                try:
                    with os.fdopen(handle, "wb") as f:
                        f.write(secrets.token_bytes(_KEY_BYTES))
                        f.flush()
                        os.fsync(f.fileno())
                    os.link(partial, path)
                finally:
                    partial.unlink(missing_ok=True)
        status = path.stat()
        if status.st_mode & 0o077 or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
            raise PermissionError(f"{path} is not this user's alone")
        key = path.read_bytes()
        if len(key) != _KEY_BYTES:
            raise OSError(f"{path} does not hold {_KEY_BYTES} bytes")
        return key

    def _make_room(self, needed: int) -> None:
        for path in self.folder.glob("*.partial*"):
            with contextlib.suppress(OSError):
                # Of a process that ended while it wrote: nobody writes for so long.
                if time.time() - path.stat().st_mtime > _STALE_S:
                    path.unlink()
        # Named by a digest; what another process is writing begins with a dot.
        found = [(p, p.stat()) for p in self.folder.glob(f"[0-9a-f]*{_SUFFIX}")]
        total = sum(s.st_size for _, s in found) + needed + _MAC_BYTES
        for path, status in sorted(found, key=lambda item: item[1].st_mtime_ns):
            if total <= self.limit_bytes:
                return
            path.unlink(missing_ok=True)
            total -= status.st_size


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
