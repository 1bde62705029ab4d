"""Summaries of samples: stages, throughput, drift, age and the faces that were seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge_benchmarks import report, stats
from edge_benchmarks.frames import FrameSet
from edge_benchmarks.report import AT, END_TO_END
from edge_benchmarks.system_under_test import Item
from edge_sdk.tasks.base import Faces


def summaries(traces: Mapping[str, stats.Samples], seconds: float) -> dict[str, report.Stage]:
    """A summary of each stage that has samples."""
    return {
        name: report.stage(samples, duration_s=seconds)
        for name, samples in traces.items()
        if name not in (AT, "item", "faces") and len(samples)
    }


def throughput(at: stats.Samples, seconds: float) -> report.Throughput | None:
    """Decisions per second, with a 95 % interval from the counts of whole seconds if there are at least ten."""
    if not len(at) or seconds <= 0:
        return None
    whole = int(seconds)
    low = high = None
    if whole >= stats.MIN_BLOCKS:
        counts = np.bincount(np.minimum(at // 1_000_000_000, whole), minlength=whole + 1)[:whole]
        low, high = (
            float(v) for v in np.percentile(stats.resample_means(counts, block=1, seed=0), (2.5, 97.5))
        )
    return report.Throughput(len(at) / seconds, low, high)


def drift(samples: stats.Samples, seconds: float) -> report.Drift | None:
    """Median latency of the last tenth against the first; None where a tenth has too few samples for a median."""
    tenth = len(samples) // 10
    if tenth < stats.MIN_SAMPLES["p50"]:
        return None
    block = stats.block_length(tenth, seconds / 10)
    middle = -(-tenth // 2) - 1
    first, last = (
        stats.resample(part, [middle], block=block, seed=seed)[:, 0]
        for seed, part in enumerate((samples[:tenth].copy(), samples[-tenth:].copy()))
    )
    low, high = np.percentile(last / first - 1, (2.5, 97.5))
    a, b = (float(np.sort(part)[middle]) / 1e6 for part in (samples[:tenth], samples[-tenth:]))
    return report.Drift(a, b, b / a - 1, float(low), float(high))


def age(traces: Mapping[str, stats.Samples], fps: float, due: int) -> stats.Samples:
    """Age of the newest result in nanoseconds, sampled once per camera period at a random moment of it.

    Dropped frames raise it although they have no latency of their own.

    Args:
        traces: of a ``paced`` run, by name.
        fps: the camera's rate in frames per second.
        due: number of frames that the camera gave.
    """
    period = 1e9 / fps
    moments = (np.arange(due) + np.random.default_rng(0).random(due)) * period
    delivered = traces[AT] + traces[END_TO_END]
    newest = np.searchsorted(delivered, moments, side="right") - 1
    known = newest >= 0
    ages: stats.Samples = (moments[known] - traces[AT][newest[known]]).astype(np.int64)
    return ages


def describe_frames(
    pictures: FrameSet, items: Sequence[Item], traces: Mapping[str, stats.Samples], faces: Faces
) -> report.Frames:
    """Describe the set of pictures, and how many faces the network reported on them."""
    drawn = np.array([-1 if item.drawn is None else item.drawn for item in items])[traces["item"]]
    groups = []
    for number in np.unique(drawn):
        mine = drawn == number
        total = np.sort(traces[END_TO_END][mine])
        middle = stats.rank("p50", len(total))
        groups.append(
            report.FaceGroup(
                drawn=None if number < 0 else int(number),
                decisions=int(mine.sum()),
                reported=round(float(traces["faces"][mine].mean()), 4),
                p50_ms=None if middle is None else float(total[middle]) / 1e6,
            )
        )
    height, width = np.max([image.shape[:2] for image in pictures.images], axis=0)
    return report.Frames(
        origin=pictures.origin,
        sha256=pictures.sha256,
        distinct=len(pictures.images),
        size=f"{width}x{height}",
        unit="frame" if faces == "found" else "face",
        faces_reported=round(float(traces["faces"].mean()), 4) if len(traces["faces"]) else 0.0,
        groups=tuple(groups),
    )
