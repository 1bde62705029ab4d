"""Classes from a face's crop: cut, resize, and the softmax of what the network answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_sdk.image import Color, Cropper, Image
from edge_sdk.results import Classifications
from edge_sdk.spec import FaceCrop, ModelSpec
from edge_sdk.tensors import Array, Tensors

Floats = npt.NDArray[np.float32]


class ClassificationTask:
    """Pre- and postprocessing of a network that names what a face shows.

    Args:
        spec: of the network.
    """

    def __init__(self, spec: ModelSpec) -> None:
        assert isinstance(spec.preprocessing, FaceCrop), "the spec has checked this"
        self.spec = spec
        _, height, width, _ = spec.input.shape
        self._crop = Cropper(
            side_x=width, side_y=height, margin=spec.preprocessing.margin, outside=spec.preprocessing.outside
        )

    def preprocess(
        self, image: Image, color: Color = "rgb", box: npt.NDArray[np.float32] | None = None
    ) -> tuple[Array, None]:
        """Cut one face out of a frame.

        Args:
            image: (H, W, 3) uint8, already checked.
            color: order of the frame's channels.
            box: (4,) x1, y1, x2, y2 in frame pixels, already checked; None takes the picture as the crop.

        Returns:
            (1, height, width, 3) uint8 RGB, overwritten by the next call, and nothing to undo.
        """
        return self._crop(image, box, color), None

    def postprocess(self, answers: Sequence[Floats]) -> Classifications:
        """Each face's (1, classes) logits to what the faces show."""
        logits = np.concatenate(answers) if answers else np.zeros((0, len(self.spec.labels)), np.float32)
        return Classifications(softmax(logits), self.spec.labels)

    @staticmethod
    def logits(tensors: Tensors) -> Floats:
        """(1, classes) of one answer, which stays when the session's memory does not."""
        return tensors["logits"].astype(np.float32, copy=True)


def softmax(logits: Floats) -> Floats:
    """(N, classes) shares; the greatest logit is taken off first, so nothing overflows."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    total: Floats = shares.sum(axis=1, keepdims=True)
    result: Floats = shares / total
    return result
