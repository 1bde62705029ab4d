"""Which of the devices asked for an engine runs on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from edge_sdk.errors import EdgeError, InputError, LoadFailed
from edge_sdk.target import CPU

T = TypeVar("T")


def first_that_loads(devices: Sequence[str], load: Callable[[str], T]) -> tuple[T, tuple[str, ...]]:
    """What ``load`` gives for the first device that works, and a note for each one before it that does not.

    Args:
        devices: in order of preference; a single one is required; none means the processor.
        load: makes something for a device, or raises LoadFailed.

    Raises:
        InputError: a device that the engine does not know: no order of preference excuses that.
        LoadFailed: no device works.
    """
    failures: list[EdgeError] = []
    for device in devices or (CPU,):
        try:
            loaded = load(device)
        except InputError:
            raise
        except LoadFailed as error:
            failures.append(error)
            continue
        tried = zip(devices, failures, strict=False)
        return loaded, tuple(f"not on {name}: {error.message}" for name, error in tried)
    if len(failures) == 1:
        raise failures[0]
    raise LoadFailed(
        "none of the devices works: " + "; ".join(error.message for error in failures),
        remedy=failures[0].remedy,
    ) from failures[0]
