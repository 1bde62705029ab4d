"""Which faces a detector finds, by their size, beside other detectors on the same pictures.

    python -m edge_training.face_recall --data ../shared/data --work runs/face --checkpoint CHECKPOINT --json

All pictures are of portraits, photographs and FER2013 faces that no training of ours saw, on a canvas of 320 pixels.
Every detector is asked at the lowest confidence that makes up at most 0.05 boxes per scene and answers at most 1 % of
the face-free pictures; that confidence is found on scenes with PublicTest's faces, recall is measured on others with
PrivateTest's. Boxes of the others are made the square that FER2013 would have cut, as the truth's are. That truth is
YuNet's answer on the whole portraits, which favours YuNet.

The seams table pastes photographs of people as squares, with a hard and with a soft border, beside a square without a
face: a detector of faces finds the face alike, and neither square.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from edge_sdk.boxes import iou
from edge_sdk.errors import EdgeError
from edge_sdk.image import Image, Letterbox, LetterboxSpec
from edge_training import checkpoint
from edge_training.data import probe_scenes
from edge_training.data.landmarks import Floats, YuNet
from edge_training.data.portraits import fer_box
from edge_training.data.probe_scenes import SIDE, Asked
from edge_training.data.scenes import PAD
from edge_training.data.shards import Sources, read_sources
from edge_training.face_training import load_network
from edge_training.networks import DETECTORS
from edge_training.reference_models import UltraLight
from edge_training.stages.base import to_float
from edge_training.stages.face_decode import decode, found_by

SIZES = (16, 24, 32, 48, 96, 200)
SEAM_SIZES = (24, 32, 48, 64)
FALSE_PER_SCENE, ALARMS = 0.05, 0.01
_LEAST = 0.02
"""Confidence at which every detector is run once; higher ones are sorted out afterwards."""

Detector = Callable[[Image], tuple[Floats, Floats]]
"""(S, S, 3) RGB to (N, 4) boxes and (N,) scores, at a confidence of at most ``_LEAST``."""


def with_face_logit(path: Path) -> Detector:
    """A checkpoint of :mod:`edge_training.face_training`."""
    network = load_network(path)

    def found(image: Image) -> tuple[Floats, Floats]:
        faces = found_by(network, [image], _LEAST)[0]
        return faces.boxes, faces.scores

    return found


def with_class_scores(path: Path, name: str = "yolo11n") -> Detector:
    """Float weights of a detector whose greatest class score is the face's."""
    network = DETECTORS[name](7)
    tensors, _ = checkpoint.load(path)
    network.load_state_dict({k: v.float() for k, v in tensors.items()})
    network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @torch.inference_mode()
    def found(image: Image) -> tuple[Floats, Floats]:
        with torch.autocast("cpu", torch.bfloat16):
            boxes, classes = network(to_float(torch.from_numpy(image[None])))
        sides, scores = ([m[0].float().numpy() for m in kind] for kind in (boxes, classes))
        faces = decode(sides, scores, [s.max(0, keepdims=True) for s in scores], confidence=_LEAST)
        return faces.boxes, faces.scores

    return found


def yunet(path: Path) -> Detector:
    """YuNet at the picture's own size."""
    detector = YuNet(path, confidence=_LEAST)

    def found(image: Image) -> tuple[Floats, Floats]:
        boxes, _, scores = detector.found(image)
        return _squares(boxes), scores

    return found


def ultra_light(path: Path, size: tuple[int, int]) -> Detector:
    """Ultra-Light RFB; ``size`` (width, height) is what its file wants."""
    detector = UltraLight(path, confidence=_LEAST, size=size)

    def found(image: Image) -> tuple[Floats, Floats]:
        boxes, scores = detector.found(image)
        return _squares(boxes), scores

    return found


def _squares(boxes: Floats) -> Floats:
    return np.array([fer_box(b) for b in boxes], np.float32).reshape(-1, 4)


@dataclass(frozen=True)
class Answers:
    """Of one detector on a list of pictures: per picture boxes and scores."""

    boxes: list[Floats]
    scores: list[Floats]

    @classmethod
    def of(cls, detector: Detector, images: Sequence[Image]) -> Answers:
        """Ask for all pictures."""
        answers = [detector(image) for image in images]
        sides = [(image.shape[1], image.shape[0]) * 2 for image in images]
        return cls(
            [b.clip(0, np.array(side, np.float32)) for (b, _), side in zip(answers, sides, strict=True)],
            [s for _, s in answers],
        )

    def at(self, confidence: float) -> list[Floats]:
        """The boxes that are that sure."""
        return [b[s >= confidence] for b, s in zip(self.boxes, self.scores, strict=True)]


def recall(asked: Sequence[Asked], boxes: Sequence[Floats]) -> float:
    """Share of the faces asked for that have a box of IoU 0.5 or more."""
    hits = [
        int((iou(a.boxes, b) >= 0.5).any(1).sum()) if len(b) else 0 for a, b in zip(asked, boxes, strict=True)
    ]
    return sum(hits) / max(1, sum(len(a.boxes) for a in asked))


def false_boxes(asked: Sequence[Asked], boxes: Sequence[Floats]) -> float:
    """Boxes per picture that are on no face: not 0.5 on one asked for, not 0.3 on one that may be found."""
    made_up = 0
    for a, b in zip(asked, boxes, strict=True):
        right = (iou(a.boxes, b) >= 0.5).any(0) | (iou(a.others, b) >= 0.3).any(0)
        made_up += int((~right).sum())
    return made_up / max(1, len(asked))


def confidence_for(asked: Sequence[Asked], answers: Answers, empty: Answers) -> float:
    """The lowest confidence with few enough false boxes and alarms."""
    for confidence in np.arange(_LEAST, 1.0, 0.01).tolist():
        alarms = float(np.mean([len(b) > 0 for b in empty.at(confidence)]))
        if alarms <= ALARMS and false_boxes(asked, answers.at(confidence)) <= FALSE_PER_SCENE:
            return float(confidence)
    return 1.0


def scenes_of(sources: Sources, part: str, count: int, *, seed: int) -> dict[int, list[Asked]]:
    """``count`` scenes of each size in ``SIZES`` with faces of a part of FER2013 and kept-out portraits."""
    maker = sources.scenes(part, kept_out=True)
    return {
        size: [
            probe_scenes.of_size(maker, size, np.random.default_rng((seed, size, i))) for i in range(count)
        ]
        for size in SIZES
    }


def face_free(sources: Sources, count: int, *, seed: int) -> list[Image]:
    """Kept-out photographs at the canvas's size, and compositions of them without a face."""
    maker = sources.scenes("public_test", kept_out=True)
    rng = np.random.default_rng(seed)
    whole = [cv2.resize(b, (SIDE, SIDE)).astype(np.uint8) for b in sources.backgrounds["kept out"]]
    return whole + [maker.empty(SIDE, rng).image for _ in range(count - len(whole))]


def portraits_of(sources: Sources) -> list[Asked]:
    """Each kept-out portrait on the canvas."""
    box = Letterbox(side_x=SIDE, side_y=SIDE, spec=LetterboxSpec(pad=PAD, max_scale=2.0))
    asked = []
    marks = sources.portraits["kept out"].marks
    for image, truth in zip(sources.portrait_images["kept out"], marks.box, strict=True):
        place = box(image)
        asked.append(Asked(box.canvas[0].copy(), place.to_canvas(truth[None]), np.zeros((0, 4), np.float32)))
    return asked


def reliability(asked: Sequence[Asked], answers: Answers) -> list[dict[str, float]]:
    """By tenths of the score: the boxes' mean score, the share of them that are faces, and how many they are."""
    scores, right = [], []
    for a, b, s in zip(asked, answers.boxes, answers.scores, strict=True):
        sure = s >= 0.05
        # Faces that may but need not be found are left out where a box is on one.
        on_face = np.asarray((iou(a.boxes, b) >= 0.5).any(0))
        keep = np.flatnonzero(sure & (on_face | ~(iou(a.others, b) >= 0.3).any(0)))
        scores.append(s[keep])
        right.append(on_face[keep])
    score, hit = np.concatenate(scores), np.concatenate(right)
    rows = []
    for low in np.arange(0, 1, 0.1):
        on = (score >= low) & (score < low + 0.1)
        if on.any():
            rows.append(
                {"score": float(score[on].mean()), "faces": float(hit[on].mean()), "boxes": float(on.sum())}
            )
    return rows


def seams(
    sources: Sources, detectors: dict[str, tuple[Detector, float]], count: int
) -> dict[str, dict[str, float]]:
    """Of photographs of people pasted as squares: faces found, squares boxed instead, face-free squares boxed."""
    maker = sources.scenes("private_test", kept_out=True)
    table: dict[str, dict[str, float]] = {}
    for border, share in (("hard", 0.0), ("soft", 0.08)):
        for size in SEAM_SIZES:
            pictures = []
            for i in range(count):
                rng = np.random.default_rng((2020, size, i))
                pictures.append(probe_scenes.squares(maker, size, rng, feather=share * size))
            for name, (detector, confidence) in detectors.items():
                face = whole = empty = 0
                for image, truth, rectangles in pictures:
                    boxes, scores = detector(image)
                    boxes = boxes[scores >= confidence]
                    if not len(boxes):
                        continue
                    face += bool((iou(truth[None], boxes) >= 0.5).any())
                    overlap = iou(rectangles, boxes) >= 0.5
                    whole += bool((overlap[0] & ~(iou(truth[None], boxes)[0] >= 0.5)).any())
                    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
                    empty += bool(
                        np.all((middle > rectangles[1, :2]) & (middle < rectangles[1, 2:]), axis=1).any()
                    )
                row = table.setdefault(name, {})
                row[f"{border} {size} face"] = face / count
                row[f"{border} {size} square"] = whole / count
                row[f"{border} {size} empty"] = empty / count
    return table


def measure(
    sources: Sources, detectors: dict[str, Detector], *, scenes: int, empty: int
) -> dict[str, dict[str, Any]]:
    """The whole table.

    Args:
        sources: with marks of PublicTest and PrivateTest.
        detectors: by the name of their row.
        scenes: of each size.
        empty: face-free pictures.
    """
    fixing = [a for one in scenes_of(sources, "public_test", scenes // 2, seed=31).values() for a in one]
    asked = scenes_of(sources, "private_test", scenes, seed=32)
    free = face_free(sources, empty, seed=33)
    portraits = portraits_of(sources)
    table: dict[str, dict[str, Any]] = {}
    for name, detector in detectors.items():
        on_empty = Answers.of(detector, free)
        confidence = confidence_for(fixing, Answers.of(detector, [a.image for a in fixing]), on_empty)
        row: dict[str, Any] = {"confidence": confidence}
        everything, answers = [], Answers([], [])
        for size, pictures in asked.items():
            found = Answers.of(detector, [a.image for a in pictures])
            row[f"{size} px"] = recall(pictures, found.at(confidence))
            everything += pictures
            answers = Answers(answers.boxes + found.boxes, answers.scores + found.scores)
        row["false boxes per scene"] = false_boxes(everything, answers.at(confidence))
        row["portraits"] = recall(
            portraits, Answers.of(detector, [a.image for a in portraits]).at(confidence)
        )
        row["face-free pictures with a box"] = float(np.mean([len(b) > 0 for b in on_empty.at(confidence)]))
        row["reliability"] = reliability(everything, answers)
        table[name] = row
    return table


def detectors_of(
    data: Path, checkpoints: Sequence[Path], weights: Path | None, *, with_peers: bool = True
) -> dict[str, Detector]:
    """Ours and the peers, by the name of their row."""
    found: dict[str, Detector] = {path.stem: with_face_logit(path) for path in checkpoints}
    if weights is not None:
        found[f"{weights.stem} (class scores)"] = with_class_scores(weights)
    if not with_peers:
        return found
    peers = data / "peers"
    found["YuNet n"] = yunet(peers / "yunet/yunet_n_dynamic.onnx")
    found["YuNet s"] = yunet(peers / "yunet/yunet_s_320_320.onnx")
    found["Ultra-Light RFB-320"] = ultra_light(peers / "ultralight_face/version-RFB-320.onnx", (320, 240))
    found["Ultra-Light RFB-640"] = ultra_light(peers / "ultralight_face/version-RFB-640.onnx", (640, 480))
    return found


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.face_recall", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder with marks/ from data.shards")
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], help="with a face logit")
    parser.add_argument("--weights", type=Path, help="float weights of a detector without a face logit")
    parser.add_argument("--scenes", type=int, default=60, help="of each size (default: 60)")
    parser.add_argument("--empty", type=int, default=400, help="face-free pictures (default: 400)")
    parser.add_argument("--no-peers", action="store_true", help="our own detectors only")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        sources = read_sources(args.data, args.work / "marks", ("public_test", "private_test"))
        detectors = detectors_of(args.data, args.checkpoint, args.weights, with_peers=not args.no_peers)
        table = measure(sources, detectors, scenes=args.scenes, empty=args.empty)
        asked = {name: (detector, table[name]["confidence"]) for name, detector in detectors.items()}
        pasted = seams(sources, asked, args.scenes)
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps({"recall": table, "seams": pasted}, indent=2))
        return 0
    print(_markdown({n: {k: v for k, v in row.items() if k != "reliability"} for n, row in table.items()}))
    print()
    print(_markdown(pasted))
    return 0


def _markdown(table: dict[str, dict[str, Any]]) -> str:
    columns = list(next(iter(table.values())))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in table.items():
        lines.append(f"| {name} | " + " | ".join(f"{row[c]:.3f}" for c in columns) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
