"""Verbs of this floor; none yet."""

from __future__ import annotations

from edge_sdk.terminal import Verb


def register(verb: Verb) -> None:
    """Add the verbs."""
