"""One call at a time, of the process that loaded: what keeps a session's buffers and its engine's threads from harm."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Literal

from edge_sdk.errors import EdgeError, InferFailed, ModelBusy

_TOKEN = None


class Ownership:
    """Whose turn it is with an object that reuses its memory from call to call.

    A call that finds it taken is refused, not delayed: two threads that share a model would otherwise get each other's
    answers, or wait for each other unseen. In a process that was forked from the one that loaded, it can never be taken:
    the engine's threads are not there, and it would wait for them for ever.

    A context manager: ``with self._ownership: ...``. On a frame's path, where it costs thrice as much, written out::

        try:
            mine = ownership.take()
        except IndexError:
            raise ownership.refusal() from None
        try:
            ...
        finally:
            ownership.give(mine)

    Taking is ``list.pop``, which is atomic and costs an eighth of a lock; that there is nothing to take is IndexError.

    Args:
        owner: the object; in a forked process it is never freed, because freeing waits for the engine's threads too.
        what: it is, for messages.
        closed: class of the error that says that it is closed.

    Attributes:
        take: returns the token; raises IndexError where there is none.
        give: takes the token back.
        ended: why nobody can take it any more; None while somebody can.
    """

    __slots__ = ("__weakref__", "_closed", "_owner", "_what", "ended", "give", "take")

    def __init__(
        self, owner: object, what: str = "the session", *, closed: type[EdgeError] = InferFailed
    ) -> None:
        tokens = [_TOKEN]
        self.take: Callable[[], None] = tokens.pop
        self.give: Callable[[None], None] = tokens.append
        self.ended: Literal["closed", "forked"] | None = None
        self._owner, self._what, self._closed = weakref.ref(owner), what, closed
        _ALL.add(self)

    def __enter__(self) -> None:
        """Take it, or raise why it cannot be taken (ModelBusy, InferFailed, or the class for a closed owner)."""
        try:
            self.take()
        except IndexError:
            raise self.refusal() from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self.give(_TOKEN)

    def refusal(self) -> EdgeError:
        """Why it could not be taken, as an error to raise."""
        if self.ended == "forked":
            return InferFailed(
                f"{self._what} was loaded by the process that this one was forked from: its threads are not here",
                remedy="load it in the process that uses it; start processes by 'spawn' or 'forkserver'",
            )
        if self.ended == "closed":
            return self._closed(f"{self._what} is closed", remedy="load it again")
        return ModelBusy(
            f"{self._what} is in use by another call: it serves one at a time",
            remedy="load one model for each thread, or hold a lock around its calls and its close",
        )

    def end(self) -> bool:
        """Take it for good, before the owner frees what it holds.

        Returns:
            Whether the owner shall free it; False where it was ended before, here or by a fork.

        Raises:
            ModelBusy: it is in use.
        """
        try:
            self.take()
        except IndexError:
            if self.ended is None:
                raise self.refusal() from None
            return False
        self._stop("closed")
        return True

    def _stop(self, why: Literal["closed", "forked"]) -> None:
        self.ended = why
        self.take, self.give = [].pop, _ignore


def _ignore(token: None) -> None:
    """What a call gives back that began before a fork, in the child."""


_ALL: weakref.WeakSet[Ownership] = weakref.WeakSet()


def _after_fork() -> None:
    """In the child: nothing that the parent loaded can be used or freed."""
    import ctypes  # numpy has imported it long ago

    for ownership in tuple(_ALL):
        ownership._stop("forked")
        if (owner := ownership._owner()) is not None:
            # A reference that nobody gives back: engines join their threads when they are freed, at exit too.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
