"""What a tensor must look like, and a message that tells what came instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import InputError

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]
"""Arrays by the names of their :class:`TensorSpec`."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, fixed shape, numpy dtype name and axis letters of one tensor.

    Attributes:
        name: as the graph calls it; letters, digits and underscores.
        shape: sizes of its axes; the first is the batch and 1.
        dtype: numpy's name, such as ``"uint8"``.
        layout: one letter per axis, for readers: ``"NHWC"``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str

    def check(self, array: Array) -> None:
        """Raise InputError unless ``array`` has exactly this shape and dtype."""
        if array.shape != self.shape or array.dtype != np.dtype(self.dtype):
            raise InputError(
                f"tensor {self.name!r}: expected {self.dtype} {self.shape} ({self.layout}), "
                f"got {array.dtype} {array.shape}",
                remedy="prepare it with the model's own preprocess",
            )

    def zeros(self) -> Array:
        """A new array of this shape and dtype, filled with zeros."""
        return np.zeros(self.shape, self.dtype)


def check_tensors(specs: tuple[TensorSpec, ...], tensors: Tensors) -> None:
    """Raise InputError unless ``tensors`` are exactly the named ones, each with its shape and dtype."""
    wanted = {spec.name for spec in specs}
    if set(tensors) != wanted:
        raise InputError(
            f"expected tensors {', '.join(sorted(wanted))}, got {', '.join(sorted(tensors)) or 'none'}",
            remedy="give each input of the model by its name",
        )
    for spec in specs:
        spec.check(tensors[spec.name])
