"""Training state on disk: safetensors, never pickle; written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from edge_sdk.errors import InputError
from edge_sdk.files import replacing


def save(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, object]) -> None:
    """Write a checkpoint; an older file of this name stays until the new one is complete.

    Args:
        path: file to write.
        tensors: by name.
        state: JSON values that are stored in the same file.
    """
    unique = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        save_file(unique, str(partial), metadata={"state": json.dumps(state)})


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Read the tensors and the state that :func:`save` wrote.

    Raises:
        InputError: the file is missing, truncated or not a checkpoint.
    """
    try:
        with safe_open(str(path), framework="pt") as f:
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - not a dict
            state = json.loads((f.metadata() or {})["state"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} is not a readable checkpoint: {error}",
            remedy="delete it to start again, or name another file",
        ) from error
    return tensors, state


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix.``, without it."""
    return {
        name.removeprefix(prefix + "."): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix + ".")
    }
