"""The function of the published MiniFASNet pair, to a network of ours: no picture has a label, the teachers answer.

Each map of the student has its counterpart in the first teacher. At first every block sees the teacher's map before it
and learns the one after it, all blocks at once, none waiting for another (as in blockwise distillation, H. Wang and
others, arXiv 1911.13053); then each sees the student's own map and learns to mend it. Only in the end, with small steps,
does a gradient pass through all of them: earlier it wrecks the first blocks, to which every later error comes enlarged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from edge_sdk.errors import InputError
from edge_sdk.image import Image, read_image
from edge_training.data import fer2013
from edge_training.data.distil_inputs import CROP, KINDS, SHARES, Inputs
from edge_training.data.portraits import (
    Portrait,
    fer_box,
    portrait_files,
    read_backgrounds,
)
from edge_training.data.presentations import SPLITS, part_of
from edge_training.networks.minifas import MiniFAS
from edge_training.reference_models import face_detector
from edge_training.stages.base import Schedule, Setting, Stage, options_of, to_float
from edge_training.teachers import MiniFASTeacher, live_logit

MIXES = ("cutmix", "mixup")
"""Kinds that are made of two pictures of the others."""

_TEMPERATURE = 2.0


@dataclass(frozen=True)
class DistilOptions:
    """Keys of a ``kind = "distil"`` stage."""

    epochs: int
    pool: str
    """Folder for the pictures that are made, so that a resumed run does not make them again."""
    steps: int = 480
    """Of an epoch."""
    batch: int = 32
    fresh: int = 1536
    """Pictures that are made for every epoch; all that were made before are seen again, changed and mixed."""
    first: int = 6144
    """Pictures that are made before the first epoch."""
    lr: float = 3e-3
    weight_decay: float = 0.01
    forced_epochs: int = 9
    """The first ones, in which blocks see the teacher's maps."""
    joint_epochs: int = 2
    """The last ones, in which the gradient passes through all blocks; between the two none does."""
    cutmix: float = 0.15
    mixup: float = 0.1
    wide: float = 0.2
    """Weight of the second teacher."""
    dev_a_kind: int = 120

    def __post_init__(self) -> None:
        """Refuse shares that leave no picture as it is."""
        if not 0 <= self.cutmix + self.mixup < 1:
            raise InputError(
                f"cutmix = {self.cutmix} and mixup = {self.mixup} in the recipe's stage",
                remedy="let them add up to less than 1",
            )


class DistilStage:
    """Two published networks, to MiniFAS."""

    name = "distil"
    best_by = "correlation"

    def __init__(self, options: DistilOptions, folder: Path, seed: int) -> None:
        self.options, self.folder, self.seed = options, folder, seed
        self.schedule = Schedule(
            options.epochs, options.lr, weight_decay=options.weight_decay, warmup_epochs=1.0, workers=0
        )
        self.teacher, self.wide = teachers(folder)
        self.epoch = 0
        self._inputs: dict[str, Inputs] = {}
        self._pool: list[Chunk] = []
        self._dev: tuple[Tensor, Tensor, npt.NDArray[np.str_]] | None = None

    def network(self, previous: Mapping[str, Tensor] | None) -> nn.Module:
        torch.manual_seed(self.seed)
        cv2.setNumThreads(1)
        network = MiniFAS()
        if previous is not None:
            network.load_state_dict(previous)
        self._inputs = inputs_of(self.folder, Path(self.options.pool))
        if previous is None:
            rows = np.linspace(0, len(self._first().images) - 1, 192).astype(int)
            x = to_float(torch.from_numpy(self._first().images[rows]))
            _, embedding, maps = self.teacher(x)
            network.fit(x, maps, embedding)
        images, kinds = held_out(self._inputs["dev"], self.options.dev_a_kind, self.seed)
        self._dev = torch.from_numpy(images), answers(self.teacher, images), kinds
        return network

    def _first(self) -> Chunk:
        if not self._pool:
            self._pool.append(self._chunk(0))
        return self._pool[0]

    def batches(self, epoch: int) -> Dataset[tuple[Tensor, ...]]:
        self.epoch = epoch
        while len(self._pool) <= epoch:
            self._pool.append(self._chunk(len(self._pool)))
        return _Batches(self._pool[: epoch + 1], self.options, (self.seed, 7, epoch))

    def _chunk(self, number: int) -> Chunk:
        """The pictures that are new in an epoch, from the pool's folder or made."""
        file = Path(self.options.pool) / f"chunk-{self.seed}-{number:04d}.npz"
        if file.is_file():
            with np.load(file) as stored:
                return Chunk(stored["images"], stored["wide"])
        count = self.options.fresh if number else self.options.first
        rng = np.random.default_rng((self.seed, 8, number))
        kinds = rng.choice(len(KINDS), count, p=np.array(list(SHARES.values())) / sum(SHARES.values()))
        near = np.empty((count, CROP, CROP, 3), np.uint8)
        wide = np.empty((count, 3), np.float32)
        seen: list[Image] = []
        for i, kind in enumerate(kinds.tolist()):
            near[i], far = self._inputs["train"](
                KINDS[kind], np.random.default_rng((self.seed, 9, number, i))
            )
            seen.append(far)
            if len(seen) == 256 or i == count - 1:
                wide[i + 1 - len(seen) : i + 1] = answers(self.wide, np.stack(seen)).numpy()
                seen = []
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(file.name + ".partial.npz")
        np.savez(partial, images=near, wide=wide)
        partial.replace(file)
        return Chunk(near, wide)

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(network, MiniFAS)
        images, wide, whole = batch
        x = to_float(images)
        with torch.autocast(images.device.type, torch.bfloat16):
            with torch.no_grad():
                logits, embedding, maps = self.teacher(x)
            if self.epoch < self.options.forced_epochs:
                found, last = network.maps_after(x, maps), maps[-1]
            elif self.epoch < self.options.epochs - self.options.joint_epochs:
                found = network.maps(x, apart=True)
                last = found[-1].detach()
            else:
                found = network.maps(x)
                last = found[-1]
            felt = network.embedding(last)
            said, seen, decided = network.classes(felt), network.wide(felt), network.decide(felt)
        by_map = torch.stack([relative_error(f, m) for f, m in zip(found, maps, strict=True)])
        inner = relative_error(felt, embedding)
        outer = relative_error(centred(said), centred(logits)) + divergence(said, logits)
        live = live_logit(logits)
        odds = decided[:, 0].float() - decided[:, 1].float()
        two = torch.stack((live, torch.zeros_like(live)), 1)
        decision = relative_error(odds[:, None], live[:, None]) + divergence(decided, two)
        pair = (
            relative_error(centred(seen[whole]), centred(wide[whole])) if whole.any() else felt.new_zeros(())
        )
        value = by_map.mean() * 3 + inner + outer + decision + self.options.wide * pair
        parts = {
            "first": by_map[0],
            "middle": by_map[5],
            "last": by_map[-1],
            "embedding": inner,
            "logits": outer,
            "odds": decision,
            "pair": pair,
        }
        return value, {name: float(v.detach()) for name, v in parts.items()}

    def lr_factor(self, parameter: str) -> float:
        return 1.0

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Agreement with the first teacher on portraits and backgrounds that training never saw, by kind."""
        assert self._dev is not None, "network() comes first"
        images, logits, kinds = self._dev
        odds = student_odds(network, images.numpy())
        found = agreement(odds, live_logit(logits).numpy(), kinds)
        figures = {f"r_{kind}": row["correlation"] for kind, row in found.items() if kind != "all"}
        figures |= {f"same_{kind}": row["same"] for kind, row in found.items() if kind != "all"}
        return {"correlation": found["all"]["correlation"], "same": found["all"]["same"], **figures}


@dataclass(frozen=True)
class Chunk:
    """Pictures of the pool: (N, 80, 80, 3) uint8, and (N, 3) the second teacher's logits for their wider crops."""

    images: npt.NDArray[np.uint8]
    wide: npt.NDArray[np.float32]


class _Batches(Dataset[tuple[Tensor, ...]]):
    def __init__(self, pool: Sequence[Chunk], options: DistilOptions, key: tuple[int, ...]) -> None:
        self.pool, self.options, self.key = pool, options, key
        self.ends = np.cumsum([len(chunk.images) for chunk in pool])
        # Two fifths of what is drawn is of the newest quarter of the pool: pictures soon lose what is new in them.
        total, rng = int(self.ends[-1]), np.random.default_rng(key)
        count = options.steps * options.batch
        self.rows = np.where(
            rng.random(count) < 0.4,
            rng.integers(total - max(1, total // 4), total, count),
            rng.integers(0, total, count),
        )

    def __len__(self) -> int:
        return self.options.steps

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng((*self.key, index))
        rows = self.rows[index * self.options.batch : (index + 1) * self.options.batch]
        chunks = np.searchsorted(self.ends, rows, side="right")
        starts = np.concatenate(([0], self.ends))
        places = [(self.pool[c], int(r - starts[c])) for c, r in zip(chunks, rows, strict=True)]
        images = np.stack([chunk.images[i] for chunk, i in places])
        wide = np.stack([chunk.wide[i] for chunk, i in places])
        changed = varied(images, rng)
        mixed = np.zeros(len(rows), bool)
        draw = rng.random(len(rows))
        partners = rng.permutation(len(rows))
        for i in np.flatnonzero(draw < self.options.cutmix + self.options.mixup):
            kind = MIXES[int(draw[i] >= self.options.cutmix)]
            images[i] = mix(changed[i], changed[partners[i]], kind, rng)
            mixed[i] = True
        images[~mixed] = changed[~mixed]
        return torch.from_numpy(images), torch.from_numpy(wide), torch.from_numpy(~mixed)


def varied(images: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Another look at each of (B, 80, 80, 3) pictures: mirrored, in other light, noisier; every fourth as it is."""
    count = len(images)
    shape = (count, 1, 1, 1)
    plain = rng.random(shape) < 0.25
    out = images.astype(np.float32)
    middle = out.mean((1, 2, 3), keepdims=True)
    contrast = np.exp(rng.normal(0, 0.2, shape)).astype(np.float32)
    gain = np.exp(rng.normal(0, 0.2, shape) + rng.normal(0, 0.06, (count, 1, 1, 3))).astype(np.float32)
    out = (middle + (out - middle) * contrast) * gain
    noise = rng.standard_normal(images.shape[1:], np.float32)
    level = np.where(rng.random(shape) < 0.4, rng.exponential(4, shape), 0).astype(np.float32)
    # One field of noise, rolled anew for each picture: drawing it for all would cost more than the step.
    for i in np.flatnonzero(level.ravel()):
        turn = tuple(int(v) for v in rng.integers(0, CROP, 2))
        out[i] += level[i] * np.roll(noise, turn, (0, 1))
    made = np.where(plain, images, out.clip(0, 255).astype(np.uint8))
    flip = rng.random(count) < 0.5
    made[flip] = made[flip, :, ::-1]
    return made


def mix(one: Image, other: Image, kind: str, rng: np.random.Generator) -> Image:
    """Two (80, 80, 3) pictures in one: a rectangle of the other (CutMix, 1905.04899), or both (mixup, 1710.09412)."""
    if kind == "mixup":
        share = float(rng.uniform(0.15, 0.85))
        blended: Image = cv2.addWeighted(one, share, other, 1 - share, 0).astype(np.uint8, copy=False)
        return blended
    out = one.copy()
    h, w = (int(v) for v in CROP * rng.uniform(0.2, 0.8, 2))
    y, x = int(rng.integers(0, CROP - h + 1)), int(rng.integers(0, CROP - w + 1))
    out[y : y + h, x : x + w] = other[y : y + h, x : x + w]
    return out


def relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error as a share of the variance of what is wanted, each channel about its own mean."""
    found, wanted = found.float(), wanted.float()
    dims = [d for d in range(wanted.ndim) if d != 1]
    spread = (wanted - wanted.mean(dims, keepdim=True)).square().mean()
    return (found - wanted).square().mean() / spread.clamp(min=1e-6)


def centred(logits: Tensor) -> Tensor:
    """Logits less their mean, which no probability depends on."""
    return logits.float() - logits.float().mean(1, keepdim=True)


def divergence(found: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence at a temperature of 2, times its square (arXiv 1503.02531)."""
    t = _TEMPERATURE
    log_p, log_q = (wanted.float() / t).log_softmax(1), (found.float() / t).log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1).mean() * t * t


def teachers(folder: Path) -> tuple[MiniFASTeacher, MiniFASTeacher]:
    """MiniFASNetV2 (crops of 2.7 face widths) and V1SE (4.0), from the data folder.

    Raises:
        InputError: they are not there.
    """
    place = folder / "peers/minifasnet"
    return (
        MiniFASTeacher(place / "2.7_80x80_MiniFASNetV2.npz"),
        MiniFASTeacher(place / "4_0_0_80x80_MiniFASNetV1SE.npz"),
    )


def inputs_of(folder: Path, pool: Path) -> dict[str, Inputs]:
    """Makers of inputs for each of ``SPLITS``, which share no portrait, background or FER2013 face.

    Args:
        folder: with ``faces/``, ``backgrounds/``, ``fer2013/`` and ``peers/``.
        pool: where the portraits' boxes are kept, once found.
    """
    portraits, backgrounds = _boxed(folder, pool), read_backgrounds(folder / "backgrounds")
    sets = fer2013.read(folder / "fer2013")
    faces = {"train": sets.training, "dev": sets.public_test, "test": sets.private_test}
    return {
        split: Inputs(
            part_of(portraits, split), part_of(backgrounds, split), np.stack(list(faces[split].images))
        )
        for split in SPLITS
    }


def _boxed(folder: Path, pool: Path) -> list[Portrait]:
    """As ``read_portraits``; the boxes, which take minutes to find, are kept."""
    kept = pool / "boxes.npz"
    paths = portrait_files(folder / "faces")
    if not kept.is_file():
        detector = face_detector(folder)
        boxes = np.full((len(paths), 4), np.nan, np.float32)
        for i, path in enumerate(paths):
            found = detector(read_image(path))
            if len(found) == 1:
                boxes[i] = fer_box(found[0])
        pool.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name("boxes.partial.npz")
        np.savez(partial, boxes=boxes)
        partial.replace(kept)
    with np.load(kept) as stored:
        boxes = stored["boxes"]
    if len(boxes) != len(paths):
        raise InputError(f"{kept} is of other portraits", remedy="delete it; it will be made again")
    return [
        Portrait(read_image(path), box)
        for path, box in zip(paths, boxes, strict=True)
        if np.isfinite(box).all()
    ]


def held_out(inputs: Inputs, a_kind: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.str_]]:
    """Pictures of every kind, and mixtures of them: (N, 80, 80, 3) uint8, and (N,) the kind of each."""
    images, kinds = [], []
    for number, kind in enumerate(KINDS):
        for i in range(a_kind):
            images.append(inputs(kind, np.random.default_rng((seed, 10, number, i)))[0])
            kinds.append(kind)
    rng, plain = np.random.default_rng((seed, 11)), len(images)
    for kind in MIXES:
        for _ in range(a_kind):
            one, other = (images[int(i)] for i in rng.integers(0, plain, 2))
            images.append(mix(one, other, kind, rng))
            kinds.append(kind)
    return np.stack(images), np.array(kinds)


@torch.inference_mode()
def answers(teacher: MiniFASTeacher, images: npt.NDArray[np.uint8]) -> Tensor:
    """(N, 3) logits of a teacher for (N, 80, 80, 3) uint8 RGB crops."""
    return torch.cat(
        [teacher(to_float(torch.from_numpy(images[i : i + 256])))[0] for i in range(0, len(images), 256)]
    )


@torch.inference_mode()
def student_odds(network: nn.Module, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(N,) log-odds of bona fide that a two-label network gives (N, 80, 80, 3) uint8 RGB crops."""
    network.eval()
    device = next(network.parameters()).device
    found = []
    for i in range(0, len(images), 256):
        logits = network(to_float(torch.from_numpy(images[i : i + 256]).to(device)))[0].float()
        found.append((logits[:, 0] - logits[:, 1]).cpu())
    return torch.cat(found).numpy()


def agreement(
    student: npt.NDArray[np.float32], teacher: npt.NDArray[np.float32], kinds: npt.NDArray[np.str_]
) -> dict[str, dict[str, float]]:
    """How far two networks agree, kind by kind and in all.

    Args:
        student: (N,) log-odds of bona fide.
        teacher: (N,) the same of the teacher.
        kinds: (N,) of the pictures.

    Returns:
        For each kind: correlation of the log-odds, share of same decisions at odds of one, share that each calls bona
        fide, and the root mean square of the difference.
    """
    rows = {str(kind): kinds == kind for kind in dict.fromkeys(kinds.tolist())}
    rows["all"] = np.ones(len(kinds), bool)
    return {
        kind: {
            "count": int(which.sum()),
            "correlation": float(np.corrcoef(student[which], teacher[which])[0, 1]),
            "same": float(((student[which] > 0) == (teacher[which] > 0)).mean()),
            "student_live": float((student[which] > 0).mean()),
            "teacher_live": float((teacher[which] > 0).mean()),
            "rms": float(np.sqrt(np.square(student[which] - teacher[which]).mean())),
        }
        for kind, which in rows.items()
    }


def stage(table: Mapping[str, Any], setting: Setting) -> Stage:
    """A stage of this kind.

    Args:
        table: its keys in the recipe, without ``kind``.
        setting: what the recipe's stages have in common.

    Raises:
        InputError: an unknown or missing key.
    """
    return DistilStage(options_of(DistilOptions, table), setting.data, setting.seed)
