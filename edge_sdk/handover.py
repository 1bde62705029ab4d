"""Which engine answers first, and a session that takes minutes to load, loaded beside the work of another one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from edge_sdk.errors import EdgeError, InputError, LoadFailed
from edge_sdk.spec import ModelSpec
from edge_sdk.target import Artifact, LoadOptions, Session, Target, is_installed, stand_in_of


@dataclass(frozen=True, slots=True)
class Serving:
    """Which engine answers now, and which later.

    Attributes:
        now: target that loads at once.
        later: target that takes over when it has loaded; None if ``now`` stays.
        notes: sentences that say why, for ``ModelInfo.notes``.
    """

    now: Target
    later: Target | None = None
    notes: tuple[str, ...] = ()


def choose_serving(
    own: Target, artifact: Artifact, spec: ModelSpec, prefer: tuple[str, ...], options: LoadOptions
) -> Serving:
    """Choose the engine that answers from a bundle now, and the one that takes over from it.

    Args:
        own: the target that the bundle is for.
        artifact: of the bundle.
        spec: of the network.
        prefer: engines that may run it, in this order; empty for ``own`` alone.
        options: what ``own`` would be loaded with.

    Raises:
        InputError: none of the preferred engines runs such a bundle.
    """
    if not prefer:
        return Serving(own)
    other = stand_in_of(own)
    able = {t.name: t for t in (own, other) if t is not None}
    wanted = [able[name] for name in prefer if name in able]
    if not wanted:
        raise InputError(
            f"a bundle for {own.name} is run by {' or '.join(able)}, {' or '.join(prefer)} was preferred",
            remedy="prefer one of these, or name another bundle",
        )
    if other is None or len(wanted) == 1:
        return Serving(wanted[0])
    if prefer.index(other.name) < prefer.index(own.name):
        return Serving(other)
    if not is_installed(own):
        return Serving(other, None, (f"{own.name} is not installed here: {other.name} answers",))
    if own.starts_at_once(artifact, spec, options=options):
        return Serving(own)
    return Serving(other, own, (f"{own.name} compiles the network: {other.name} answers until then",))


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
