"""Activation ranges of the last calibration: a search compiles one network with one calibration set many times over."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

from edge_sdk.tensors import Array

T = TypeVar("T")


class LastRanges(Generic[T]):
    """What one calibration found, by everything that it depends on; a second kind takes the place of the first."""

    def __init__(self) -> None:
        self._key, self._found = "", list[T]()

    def get(self, key: str) -> T | None:
        """The ranges of exactly this key."""
        return self._found[0] if self._found and key == self._key else None

    def put(self, key: str, found: T) -> None:
        """Keep these ranges in the place of the last ones."""
        self._key, self._found = key, [found]


def key_of(network: Path, calibration: Sequence[Array], *settings: object) -> str:
    """Digest of a file, of calibration tensors in their order, and of settings."""
    total = hashlib.sha256(network.read_bytes())
    for pixels in calibration:
        total.update(hashlib.sha256(pixels.tobytes()).digest())
    total.update(repr(settings).encode())
    return total.hexdigest()
