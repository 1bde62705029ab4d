"""What a float graph computes inside, and the largest magnitude that 8 bits should reach."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("onnxruntime", reason="engine of onnxruntime is not installed")

import onnx
import toys

from edge_quantize.graph import activations
from edge_quantize.histogram import BINS


def test_methods_clip_rare_values_and_minmax_does_not():
    deviations = np.arange(BINS) / (BINS / 16)
    counts = (1e6 * np.exp(-(deviations**2) / 2)).astype(np.int64)
    counts[-1] = 1  # one value at 16 standard deviations
    for clip in (activations._percentile, activations._least_squares, activations._least_divergence):
        assert 3 / 16 < clip(counts) < 8 / 16, clip
    even = np.full(BINS, 100, np.int64)
    assert [
        clip(even) for clip in (activations._least_squares, activations._least_divergence)
    ] == pytest.approx([1, 1], abs=0.02)


@pytest.mark.parametrize("method", ["minmax", "mse", "percentile", "entropy"])
def test_no_range_is_larger_than_what_was_seen(toy_onnx, method):
    model, tensors = onnx.load(str(toy_onnx)), ["unit", "m_box8"]
    seen = activations.amax(model, tensors, toys.frames(8), "minmax")
    found = activations.amax(model, tensors, toys.frames(8), method)
    assert all(0 < found[name] <= seen[name] * 1.0001 for name in seen)
