"""Networks that others published: they label data, teach and are compared with. Nothing of them is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from edge_sdk.boxes import nms
from edge_sdk.errors import InputError
from edge_sdk.image import Image

_CANDIDATES = 800


def face_detector(data: Path) -> UltraLight:
    """The Ultra-Light detector of the data folder.

    Raises:
        InputError: it is not there.
    """
    return UltraLight(data / "peers/ultralight_face/version-RFB-640.onnx")


def minifasnet(data: Path) -> MiniFASNetV2:
    """MiniFASNetV2 with the weights of the data folder.

    Raises:
        InputError: they are not there.
    """
    return MiniFASNetV2(data / "peers/minifasnet/2.7_80x80_MiniFASNetV2.npz")


class UltraLight:
    """The Ultra-Light RFB face detector (MIT), run by onnxruntime: stands in for people who draw boxes.

    Args:
        model: its ONNX file.
        confidence: score from which on a face is reported.
        size: (width, height) in pixels that its file takes.

    Raises:
        InputError: no such file.
    """

    def __init__(self, model: Path, *, confidence: float = 0.7, size: tuple[int, int] = (640, 480)) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # the file lists its weights as inputs; each would be a warning
        if not model.exists():
            raise InputError(
                f"no detector at {model}", remedy="name a data folder with peers/ (training/README.md)"
            )
        self.session: Any = onnxruntime.InferenceSession(str(model), options)
        self.confidence, self.size = confidence, size

    def __call__(self, image: Image) -> npt.NDArray[np.float32]:
        """(H, W, 3) uint8 RGB to (N, 4) boxes xyxy, pixels."""
        return self.found(image)[0]

    def found(self, image: Image) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(H, W, 3) uint8 RGB to (N, 4) boxes xyxy in pixels and their (N,) scores, best first."""
        height, width = image.shape[:2]
        pixels = (cv2.resize(image, self.size).astype(np.float32) - 127) / 128
        scores, boxes = self.session.run(None, {"input": pixels.transpose(2, 0, 1)[None]})
        sure = np.flatnonzero(scores[0, :, 1] > self.confidence)
        # At a low confidence there are thousands, and suppression compares each with each.
        sure = sure[(-scores[0, sure, 1]).argsort(kind="stable")[:_CANDIDATES]]
        candidates = boxes[0][sure] * np.array([width, height, width, height], np.float32)
        kept = nms(candidates, scores[0, sure, 1], iou_threshold=0.3, limit=300)
        return np.asarray(candidates[kept], np.float32), np.asarray(scores[0, sure, 1][kept], np.float32)


class MiniFASNetV2:
    """MiniFASNetV2 as published (minivision-ai/Silent-Face-Anti-Spoofing, Apache-2.0 weights): a score of each crop.

    Three classes, the second of which is bona fide; BGR pixels of 0 to 255, not divided. The graph follows from the
    names and shapes of the weights: units of a 1x1, a depthwise 3x3 and a 1x1 convolution, with PReLU.

    Args:
        weights: state dict as an ``.npz`` file.

    Raises:
        InputError: no such file.
    """

    def __init__(self, weights: Path) -> None:
        if not weights.is_file():
            raise InputError(
                f"no weights at {weights}", remedy="name a data folder with peers/ (training/README.md)"
            )
        with np.load(weights) as stored:
            self._weights = {name: torch.from_numpy(stored[name].astype(np.float32)) for name in stored.files}
        stages = (("conv_23", 0), ("conv_3", 4), ("conv_34", 0), ("conv_4", 6), ("conv_45", 0), ("conv_5", 2))
        # A stage of repeated units keeps its shape and adds its input; one without halves the grid.
        self._units = [
            (f"{name}.model.{i}" if repeats else name, repeats > 0)
            for name, repeats in stages
            for i in range(max(1, repeats))
        ]

    @torch.inference_mode()
    def __call__(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """(N, 80, 80, 3) RGB crops of 2.7 face widths to (N,) scores, 1 towards bona fide."""
        return np.concatenate([self._scores(crops[i : i + 128]) for i in range(0, len(crops), 128)])

    def _scores(self, crops: Image) -> npt.NDArray[np.float64]:
        x = torch.from_numpy(np.ascontiguousarray(crops[..., ::-1])).permute(0, 3, 1, 2).float()
        x = self._conv("conv1", x, stride=2, padding=1)
        x = self._conv("conv2_dw", x, padding=1)
        for name, residual in self._units:
            y = self._conv(f"{name}.conv", x)
            y = self._conv(f"{name}.conv_dw", y, stride=1 if residual else 2, padding=1)
            y = self._conv(f"{name}.project", y)
            x = x + y if residual else y
        x = self._conv("conv_6_dw", self._conv("conv_6_sep", x)).flatten(1)
        x = self._norm("bn", functional.linear(x, self._weights["linear.weight"]))
        logits = functional.linear(x, self._weights["prob.weight"])
        scores: npt.NDArray[np.float64] = logits.softmax(1)[:, 1].double().numpy()
        return scores

    def _conv(self, name: str, x: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
        kernel = self._weights[f"{name}.conv.weight"]
        x = functional.conv2d(x, kernel, None, stride, padding, groups=x.shape[1] // kernel.shape[1])
        x = self._norm(f"{name}.bn", x)
        slope = self._weights.get(f"{name}.prelu.weight")
        return x if slope is None else functional.prelu(x, slope)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        w = self._weights
        return functional.batch_norm(
            x,
            w[f"{name}.running_mean"],
            w[f"{name}.running_var"],
            w[f"{name}.weight"],
            w[f"{name}.bias"],
        )
