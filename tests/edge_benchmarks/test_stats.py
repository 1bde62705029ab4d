"""Percentiles only when they can be known, intervals that cover what they should, histograms that lose nothing."""

import numpy as np
import pytest

from edge_benchmarks import stats


@pytest.mark.parametrize(("name", "needed"), stats.MIN_SAMPLES.items())
def test_a_percentile_needs_enough_samples(name, needed):
    assert stats.percentiles(range(needed - 1))[name] is None
    assert stats.percentiles(range(needed))[name] is not None


def test_the_counts_are_those_of_mlperf():
    assert stats.MIN_SAMPLES == {"p50": 11, "p90": 64, "p95": 130, "p99": 662, "p99.9": 6636}


def test_percentiles_are_measured_values_by_nearest_rank():
    samples = [n * 1_000_000 for n in range(10_000, 0, -1)]  # 10000 ms down to 1 ms
    found = {name: p.ms for name, p in stats.percentiles(samples).items()}
    assert found == {"p50": 5000, "p90": 9000, "p95": 9500, "p99": 9900, "p99.9": 9990}


def test_no_outlier_is_removed():
    assert stats.percentiles([1_000_000] * 5 + [10**12] * 6)["p50"].ms == 10**6


def test_an_interval_holds_its_percentile_and_narrows_with_more_samples():
    rng = np.random.default_rng(3)
    widths = []
    for count in (500, 8000):
        found = stats.percentiles(rng.normal(10e6, 1e6, count).astype(np.int64))["p50"]
        assert found.low <= found.ms <= found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


def test_blocks_make_autocorrelated_samples_less_certain():
    # Slow for a second, fast for a second: 2000 samples, but only 20 independent ones.
    samples = np.repeat(np.random.default_rng(0).normal(10e6, 2e6, 20), 100).astype(np.int64)
    median = [999]
    single = np.ptp(np.percentile(stats.resample(samples, median, block=1, seed=0), (2.5, 97.5)))
    blocks = np.ptp(np.percentile(stats.resample(samples, median, block=100, seed=0), (2.5, 97.5)))
    assert blocks > 2 * single


def test_a_block_is_a_second_or_a_tenth_of_the_run():
    assert stats.block_length(6000, 60.0) == 100
    assert stats.block_length(500, 5.0) == 50
    assert stats.block_length(5, 100.0) == 1


def test_holm_is_stricter_than_each_test_alone_and_keeps_their_order():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_a_histogram_counts_every_sample_in_the_bucket_that_holds_it():
    samples = np.random.default_rng(1).lognormal(15, 2, 5000).astype(np.int64)
    found = stats.histogram(samples)
    assert sum(found.counts) == 5000
    for lower, count in zip(found.lower_ns, found.counts, strict=True):
        # A 32nd of the power of two at or below it.
        width = max(1, (1 << (lower.bit_length() - 1)) // stats.SUB_BUCKETS)
        assert ((samples >= lower) & (samples < lower + width)).sum() == count


def test_means_of_resamples_surround_the_mean():
    counts = np.random.default_rng(2).poisson(30, 60)
    low, high = np.percentile(stats.resample_means(counts, block=1, seed=0), (2.5, 97.5))
    assert low < counts.mean() < high
