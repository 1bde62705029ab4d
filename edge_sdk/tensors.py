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
"""Tensors by the names of a :class:`TensorSpec`."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, fixed shape, numpy dtype name and axis letters of one tensor.

    Attributes:
        layout: one letter an axis, for people: ``"NHWC"``.
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
