"""Ranges that cost least: rare extremes are cut off, and what a range holds evenly is kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_quantize.histogram import BINS, count, least_squares, spans


def histogram(values, low, high):
    return np.histogram(values, BINS, (low, high))[0]


def error(values, low, high):
    step = (high - low) / 255
    zero = np.round(-low / step)
    return np.square(values - ((values / step + zero).round().clip(0, 255) - zero) * step).mean()


def test_every_value_is_counted_and_what_lies_outside_at_its_end():
    values = np.random.default_rng(0).uniform(-2, 3, 10_000)
    assert np.abs(count(values, -2, 3) - histogram(values, -2, 3)).sum() <= 4  # on an edge
    assert count(np.array([[-9.0, 0.5], [0.5, 9.0]]), 0, 1)[[0, BINS // 2, -1]].tolist() == [1, 2, 1]


def test_a_span_has_zero_in_it_and_what_has_none_is_left_out():
    seen = {"inside": (-1.0, 2.0), "above": (1.0, 2.0), "below": (-2.0, -1.0), "zeros": (0.0, 0.0)}
    odd = {"endless": (0.0, float("inf")), "no number": (float("nan"), float("nan"))}
    assert spans({**seen, **odd}) == {"inside": (-1, 2), "above": (0, 2), "below": (-2, 0)}


def test_what_lies_evenly_is_kept_whole():
    values = np.random.default_rng(0).uniform(-2, 3, 100_000)
    assert least_squares(histogram(values, -2, 3), -2.0, 3.0) == (-2, 3)


def test_a_rare_extreme_is_cut_off_on_its_own_side():
    values = np.random.default_rng(0).normal(0, 1, 100_000).clip(-4, 4)
    counts = 1_000 * histogram(values, -4, 40)
    counts[-1] = 1
    low, high = least_squares(counts, -4.0, 40.0)
    assert low == pytest.approx(-4, abs=1)
    assert 3 < high < 8


def test_after_a_relu_the_range_begins_at_zero():
    values = np.random.default_rng(0).normal(0, 1, 100_000).clip(0)
    low, high = least_squares(histogram(values, 0, values.max()), 0.0, float(values.max()))
    assert low == 0
    assert 2 < high <= values.max()


@given(st.integers(0, 2**32 - 1), st.sampled_from(["normal", "laplace", "standard_cauchy"]))
def test_it_is_never_worse_than_the_whole_range_and_lies_within(seed, shape):
    values = getattr(np.random.default_rng(seed), shape)(size=2_000)
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    found = least_squares(histogram(values, low, high), low, high)
    assert low <= found[0] <= 0 <= found[1] <= high
    # A histogram knows a value to half a part.
    assert error(values, *found) <= error(values, low, high) + ((high - low) / BINS) ** 2
