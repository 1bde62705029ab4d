"""What a float graph computes inside over calibration pictures, and the largest magnitude that 8 bits should reach."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_quantize.graph.index import copy_model
from edge_quantize.histogram import BINS, count_all, least_squares, spans
from edge_sdk.tensors import Tensors

Method = Literal["minmax", "mse", "percentile", "entropy"]
Floats = npt.NDArray[np.floating]

QMAX = 127
"""Symmetric: -128 is not used."""
PERCENTILE = 99.99


def amax(model: Any, tensors: Sequence[str], frames: Sequence[Tensors], method: Method) -> dict[str, float]:
    """The largest magnitude that a tensor's 8 bits shall reach, for each tensor.

    ``minmax`` takes the largest seen; the others look at a histogram of magnitudes and clip rare ones: ``percentile``
    the last 0.01 %, ``mse`` where the mean squared error is least, ``entropy`` where the quantized distribution
    diverges least from the true one (Migacz, "8-bit Inference with TensorRT", GTC 2017).

    Args:
        model: float ``onnx.ModelProto``.
        tensors: names.
        frames: inputs by name; the pictures are run once, or twice where a histogram is needed, and nothing is kept.
        method: one of the four.
    """
    largest = dict.fromkeys(tensors, 0.0)
    for values in inner(model, tensors, frames):
        for name, value in values.items():
            # A NaN must not be lost in a comparison.
            seen = float(np.abs(value).max()) if value.size else 0.0
            largest[name] = seen if seen > largest[name] or math.isnan(seen) else largest[name]
    if method == "minmax":
        return largest
    whole = spans({name: (0.0, top) for name, top in largest.items()})
    magnitudes = (
        {name: np.abs(v) for name, v in values.items()} for values in inner(model, list(whole), frames)
    )
    counts = count_all(magnitudes, whole)
    clip: Callable[[npt.NDArray[np.int64]], float] = {
        "percentile": _percentile,
        "mse": _least_squares,
        "entropy": _least_divergence,
    }[method]
    return {name: top * clip(counts[name]) if name in counts else top for name, top in largest.items()}


def _percentile(counts: npt.NDArray[np.int64]) -> float:
    """Share of the range below which that many values lie."""
    below = np.cumsum(counts) / counts.sum()
    return float(np.searchsorted(below, PERCENTILE / 100) + 1) / BINS


def _least_squares(counts: npt.NDArray[np.int64]) -> float:
    """Share of the range at which rounding inside and clipping outside cost least."""
    return least_squares(counts, 0.0, 1.0, levels=QMAX, shares=96)[1]


def _least_divergence(counts: npt.NDArray[np.int64]) -> float:
    """Share of the range at which 128 levels keep the distribution best, by Kullback and Leibler's measure."""
    counts = counts.astype(np.float64)
    counts[0] = counts[1]  # exact zeros, of a ReLU, carry no information on the range
    best, share = math.inf, 1.0
    for end in range(QMAX + 1, BINS + 1, 16):
        clipped = counts[:end].copy()
        clipped[-1] += counts[end:].sum()
        level = np.arange(end) * (QMAX + 1) // end
        alive = clipped > 0
        mass = np.bincount(level, counts[:end], QMAX + 1)
        occupied = np.bincount(level, alive, QMAX + 1)
        coarse = np.where(alive, (mass / np.maximum(occupied, 1))[level], 0.0)
        if not coarse.sum():
            continue
        p, q = clipped / clipped.sum(), coarse / coarse.sum()
        both = alive & (q > 0)
        # What the clipped histogram has where the coarse one has nothing counts as lost.
        divergence = float((p[both] * np.log(p[both] / q[both])).sum() + p[alive & (q == 0)].sum() * 20)
        if divergence < best:
            best, share = divergence, end / BINS
    return share


def inner(model: Any, tensors: Sequence[str], frames: Sequence[Tensors]) -> Iterable[dict[str, Floats]]:
    """The values of tensors of a float ``onnx.ModelProto``, frame after frame."""
    import onnx
    import onnxruntime

    given = {value.name for value in model.graph.input}
    probed = copy_model(model)
    outputs = {value.name for value in probed.graph.output}
    probed.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in tensors
        if name not in outputs and name not in given
    )
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        probed.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    asked = [name for name in tensors if name not in given]
    for frame in frames:
        computed = dict(zip(asked, session.run(asked, dict(frame)), strict=True))
        yield {name: frame[name] if name in given else computed[name] for name in tensors}
