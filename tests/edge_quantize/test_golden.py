"""What every bundle brings to prove itself on a device."""

import numpy as np

from edge_quantize.golden import golden_frame


def test_the_golden_frame_shows_swapped_channels_a_mirror_and_a_shift():
    frame = golden_frame()
    assert frame.dtype == np.uint8
    assert frame.shape == (180, 240, 3)
    assert (frame == golden_frame()).all()
    for other in (frame[..., ::-1], frame[:, ::-1], frame[::-1], np.roll(frame, 8, 1)):
        assert (frame != other).any(axis=2).mean() > 0.5
