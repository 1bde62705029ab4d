"""Scenes composed beforehand and kept on disk, so that a training on one core spends it on gradients.

    python -m edge_training.data.shards --data ../shared/data --work runs/scenes --shards 32

A shard is two files, pictures as ``.npy`` and their faces as ``.npz``; the second is written last, so a shard whose
second file exists is complete, and an interrupted run goes on where it stopped. Marks of portraits and FER2013 crops
are kept beside them. What :mod:`edge_training.hard_negatives` has put into ``hard/`` by then is shown too.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import EdgeError, InputError
from edge_sdk.image import Image, read_image
from edge_training.data import fer2013, landmarks
from edge_training.data.heads import Portraits
from edge_training.data.landmarks import Floats, Marks
from edge_training.data.natural import NaturalScene, NaturalScenes
from edge_training.data.portraits import HELD_OUT_EVERY, portrait_files, read_backgrounds
from edge_training.reference_models import UltraLight, face_detector

SIDE = 320
CROP_BORDER = 0.35
"""Of flat grey around a FER2013 crop while YuNet looks at it."""


@dataclass(frozen=True)
class Sources:
    """What scenes are composed of, each in two parts: the one that trains, and the one kept out.

    Attributes:
        faces: FER2013.
        marks: of FER2013's training, PublicTest and PrivateTest rows, by name.
        portraits: training and kept-out portraits with marks, by "training" and "kept out".
        portrait_images: the same portraits' pictures.
        backgrounds: face-free photographs, by the same names.
    """

    faces: fer2013.Fer2013
    marks: dict[str, Marks]
    portraits: dict[str, Portraits]
    portrait_images: dict[str, list[Image]]
    backgrounds: dict[str, list[Image]]

    def scenes(
        self, part: str, *, kept_out: bool, blended: float = 0.5, hard: Sequence[Image] = ()
    ) -> NaturalScenes:
        """A composer of FER2013's ``part`` ("training", "public_test" or "private_test")."""
        name = "kept out" if kept_out else "training"
        faces: fer2013.Faces = getattr(self.faces, part)
        return NaturalScenes(
            faces.images,
            faces.labels,
            self.marks[part],
            self.portraits[name],
            self.backgrounds[name],
            blended=blended,
            hard=hard,
        )


def read_sources(data: Path, cache: Path, parts: tuple[str, ...] = ("training", "public_test")) -> Sources:
    """Read everything; marks come from ``cache`` where they have been made before (a quarter of an hour).

    Args:
        data: folder with ``fer2013/``, ``faces/``, ``backgrounds/``, ``peers/`` and ``teachers/``.
        cache: folder for marks.
        parts: of FER2013 whose marks are needed.
    """
    images = [read_image(path) for path in portrait_files(data / "faces")]
    marks = landmarks.cached(cache / "portraits.npz", images, data)
    peer = face_detector(data)
    out = _kept_out(cache / "portraits-kept-out.npy", images, peer)
    faces = fer2013.read(data / "fer2013")
    of_parts = {
        part: landmarks.cached(
            cache / f"{part}.npz", list(getattr(faces, part).images), data, border=CROP_BORDER
        )
        for part in parts
    }
    chosen = {"training": marks.ok & ~out, "kept out": marks.ok & out}
    photographs = read_backgrounds(data / "backgrounds")
    pictures = {name: [images[i] for i in np.flatnonzero(on)] for name, on in chosen.items()}
    return Sources(
        faces,
        of_parts,
        {
            name: Portraits(pictures[name], Marks(marks.box[on], marks.mesh[on], marks.ok[on]))
            for name, on in chosen.items()
        },
        pictures,
        {
            "training": [b for i, b in enumerate(photographs) if i % HELD_OUT_EVERY],
            "kept out": photographs[::HELD_OUT_EVERY],
        },
    )


def _kept_out(path: Path, images: list[Image], peer: UltraLight) -> npt.NDArray[np.bool_]:
    if path.exists():
        out: npt.NDArray[np.bool_] = np.load(path)
        if out.shape == (len(images),):
            return out
    out = landmarks.held_out(images, peer)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, out)
    return out


def write_shard(folder: Path, number: int, scenes: list[NaturalScene]) -> None:
    """Write the pictures, then their faces; what is not complete is not seen by :class:`Shards`."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures, faces = folder / f"{number:04d}.npy", folder / f"{number:04d}.npz"
    partial = pictures.with_suffix(".partial")
    try:
        with partial.open("wb") as f:
            np.save(f, np.stack([s.image for s in scenes]))
        os.replace(partial, pictures)
        with partial.open("wb") as f:
            np.savez(
                f,
                counts=np.array([len(s.boxes) for s in scenes]),
                boxes=np.array([b for s in scenes for b in s.boxes], np.float32).reshape(-1, 4),
                rows=np.array([r for s in scenes for r in s.rows], np.int64),
                portraits=np.array([p for s in scenes for p in s.portraits], np.int64),
                shown=np.array([v for s in scenes for v in s.shown], np.float32),
                ignored=np.array([v for s in scenes for v in s.ignored], bool),
            )
        os.replace(partial, faces)
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class Stored:
    """One scene from a shard: as :class:`~edge_training.data.natural.NaturalScene`, in arrays."""

    image: Image
    boxes: Floats
    rows: npt.NDArray[np.int64]
    portraits: npt.NDArray[np.int64]
    shown: Floats
    ignored: npt.NDArray[np.bool_]


class Shards:
    """All complete shards of a folder, pictures mapped from disk.

    Raises:
        InputError: there are none, or one cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._pictures: list[npt.NDArray[np.uint8]] = []
        self._faces: list[dict[str, npt.NDArray[np.generic]]] = []
        self._where: list[tuple[int, int, int]] = []
        largest = []
        for path in sorted(folder.glob("*.npz")):
            try:
                pictures = np.load(path.with_suffix(".npy"), mmap_mode="r")
                with np.load(path, allow_pickle=False) as stored:
                    faces = {name: stored[name] for name in stored.files}
                ends = np.cumsum(faces["counts"])
                if len(ends) != len(pictures) or ends[-1] != len(faces["boxes"]):
                    raise ValueError("pictures and faces differ in number")
            except (OSError, ValueError, KeyError, EOFError) as error:
                raise InputError(f"cannot read the shard {path}: {error}", remedy="delete it") from error
            for i, end in enumerate(ends.tolist()):
                first = end - int(faces["counts"][i])
                self._where.append((len(self._pictures), i, first))
                boxes = faces["boxes"][first:end]
                largest.append(float((boxes[:, 2] - boxes[:, 0]).max()) if len(boxes) else 0.0)
            self._pictures.append(pictures)
            self._faces.append(faces)
        if not self._where:
            raise InputError(
                f"no scenes in {folder}", remedy="compose some: python -m edge_training.data.shards"
            )
        self.largest = np.array(largest)
        """(N,) side of each scene's largest face, 0 where there is none."""

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: int) -> Stored:
        shard, picture, first = self._where[index]
        faces = self._faces[shard]
        part = slice(first, first + int(faces["counts"][picture]))
        return Stored(
            np.asarray(self._pictures[shard][picture]),
            *(faces[name][part] for name in ("boxes", "rows", "portraits", "shown", "ignored")),  # type: ignore[arg-type]
        )


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.data.shards", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for marks/ and scenes/")
    parser.add_argument("--shards", type=int, default=32, help="default: 32")
    parser.add_argument("--scenes", type=int, default=250, help="in a shard (default: 250)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    folder: Path = args.work / "scenes"
    try:
        hard = [read_image(path) for path in sorted((args.work / "hard").glob("*.png"))]
        maker = read_sources(args.data, args.work / "marks").scenes("training", kept_out=False, hard=hard)
        for number in range(args.shards):
            if (folder / f"{number:04d}.npz").exists():
                continue
            rng = np.random.default_rng((args.seed, number))
            write_shard(folder, number, [maker(SIDE, rng) for _ in range(args.scenes)])
            print(f"shard {number + 1} of {args.shards}", flush=True)
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
