"""Pictures of bona fide faces and of simulated attacks, as the liveness network is given them.

Portraits and backgrounds are divided among the splits, so that no split shows what another one shows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from edge_quantize.data import BONA_FIDE
from edge_sdk.child import isolated_children
from edge_sdk.image import Cropper, FaceCrop, Image
from edge_training.data.attacks import Simulator
from edge_training.data.portraits import read_backgrounds, read_portraits
from edge_training.networks.pad import SIDE
from edge_training.reference_models import face_detector

MARGIN = 2.7
"""Side of a crop divided by the side of the face's box."""
SPLITS = ("test", "dev", "train")
"""Of every ten portraits and backgrounds, one is for the test, one for development and eight for training."""

_JITTER = 0.1
"""Largest error of a face's box, as a share of its side."""


@lru_cache(maxsize=2)  # stages that differ in something else look at the same pictures
def presentations(
    folder: Path, split: str, count: int, species: tuple[str, ...], *, seed: int, processes: int = 2
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.str_]]:
    """Make presentations of a split: half of them bona fide, the others evenly of each species.

    Args:
        folder: data folder, with ``faces/``, ``backgrounds/`` and ``peers/``.
        split: one of ``SPLITS``.
        count: number of pictures.
        species: attack species to make.
        seed: the same seed makes the same pictures, however many processes make them.
        processes: number of processes that share the work.

    Returns:
        (count, 80, 80, 3) uint8 RGB crops, and (count,) names: ``bona_fide`` or the species. Both are shared with
        later callers: do not write to them.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split)))
    groups = np.where(
        np.arange(count) % 2 == 0, BONA_FIDE, np.array(species)[np.arange(count) // 2 % len(species)]
    )
    tasks = [
        (split, int(face), str(group), (seed, SPLITS.index(split), number))
        for number, (face, group) in enumerate(zip(rng.integers(0, 2**31, count), groups, strict=True))
    ]
    title = f"{split} presentations"
    quiet = not sys.stderr.isatty()
    spawn = get_context("spawn")
    with isolated_children(), ProcessPoolExecutor(processes, spawn, _start, (folder,)) as pool:
        made = list(tqdm(pool.map(_make, tasks, chunksize=64), title, len(tasks), disable=quiet, leave=False))
    return np.stack(made), groups


T = TypeVar("T")
_simulators: dict[str, Simulator] = {}
_cropper: Cropper | None = None


def _start(folder: Path) -> None:
    """Read what every presentation is made from, once per process."""
    global _cropper
    import cv2

    cv2.setNumThreads(1)
    portraits = read_portraits(folder / "faces", face_detector(folder))
    backgrounds = read_backgrounds(folder / "backgrounds")
    for split in SPLITS:
        _simulators[split] = Simulator(part_of(portraits, split), part_of(backgrounds, split))
    _cropper = Cropper(side_x=SIDE, side_y=SIDE, crop=FaceCrop(MARGIN, "shift"))


def part_of(items: Sequence[T], split: str) -> list[T]:
    """The portraits or photographs of a split: no split shares one with another."""
    return [item for i, item in enumerate(items) if SPLITS[min(i % 10, 2)] == split]


def _make(task: tuple[str, int, str, tuple[int, ...]]) -> Image:
    split, face, group, seed = task
    assert _cropper is not None
    simulator, rng = _simulators[split], np.random.default_rng(seed)
    frame, box = simulator(face % len(simulator.portraits), group, rng)
    # A detector's boxes are never quite right.
    size = float(box[2] - box[0])
    shift, grow = rng.uniform(-_JITTER / 2, _JITTER / 2, 2) * size, rng.uniform(-_JITTER, _JITTER) * size / 2
    box = box + np.array([shift[0] - grow, shift[1] - grow, shift[0] + grow, shift[1] + grow])
    crop: Image = _cropper(np.ascontiguousarray(frame), box)[0].copy()
    return crop
