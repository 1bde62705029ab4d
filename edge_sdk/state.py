"""What a recurrent network remembers of one stream between two of its steps."""

from __future__ import annotations

import numpy as np

from edge_sdk.spec import ModelSpec
from edge_sdk.tensors import Array, Tensors


class State:
    """The arrays that a spec pairs as state: zeros at the start, one set per stream or track.

    Args:
        spec: of the network.

    Attributes:
        spec: of the network whose state it is.
        tensors: name of each state input to its array, which :meth:`update` overwrites.
    """

    def __init__(self, spec: ModelSpec) -> None:
        inputs = {t.name: t for t in spec.inputs}
        self.spec, self._pairs = spec, spec.state
        self.tensors: dict[str, Array] = {pair.input: inputs[pair.input].zeros() for pair in spec.state}

    def update(self, outputs: Tensors) -> None:
        """Remember a step: copy the outputs that are the next step's inputs."""
        for pair in self._pairs:
            np.copyto(self.tensors[pair.input], outputs[pair.output])

    def reset(self) -> None:
        """Forget everything: zeros, as at the start."""
        for array in self.tensors.values():
            array.fill(0)
