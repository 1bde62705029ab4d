"""A session that takes minutes to load, loaded beside the work of another one."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edge_sdk.errors import EdgeError, LoadFailed
from edge_sdk.target import Session


class Successor:
    """Loads a session in a thread.

    Args:
        target: name of its engine.
        load: makes the session, proven; may take long.
    """

    def __init__(self, target: str, load: Callable[[], Session]) -> None:
        self.target = target
        self._load = load
        self._session: Session | None = None
        self._error: EdgeError | None = None
        self._abandoned = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"load {target}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            session = self._load()
        except EdgeError as error:
            self._error = error
            return
        except Exception as error:  # nobody else would hear of it
            self._error = LoadFailed(f"{self.target}: {error}", remedy="report it")
            self._error.__cause__ = error
            return
        with self._lock:
            if not self._abandoned:
                self._session = session
                return
        session.close()

    @property
    def done(self) -> bool:
        """Whether :meth:`take` has an answer."""
        return not self._thread.is_alive()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is done, at most so long; returns whether it is."""
        self._thread.join(timeout_s)
        return self.done

    def take(self) -> Session:
        """The session, which now is the caller's.

        Raises:
            EdgeError: it could not be loaded.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        with self._lock:
            session, self._session = self._session, None
        assert session is not None, "taken once"
        return session

    def abandon(self) -> None:
        """Close the session if there is one, or as soon as there is; what it builds still goes into the cache."""
        with self._lock:
            self._abandoned = True
            session, self._session = self._session, None
        if session is not None:
            session.close()
