"""How far a liveness network agrees with the published one that it learned from, and what both say of whom.

    python -m edge_training.agreement pad-minifasnet --data ../shared/data --work runs/agreement
    python -m edge_training.agreement pad-minifasnet --network minifas --weights FILE --data ../shared/data --work DIR

On portraits, backgrounds and FER2013 faces of a split that training never saw. Agreement is a proxy: no consented
pictures of attacks exist here, and the published network is known to work on cameras. Both decide at odds of one,
as the published one does; ``--threshold`` moves ours.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from edge_quantize.data import BONA_FIDE
from edge_quantize.metrics import liveness
from edge_sdk import zoo
from edge_sdk.errors import EdgeError, InputError
from edge_sdk.image import Cropper, FaceCrop, read_image
from edge_training import checkpoint
from edge_training.data.attacks import SPECIES
from edge_training.data.distil_inputs import CROP, MARGINS, NON_FACES, Inputs
from edge_training.data.portraits import fer_box
from edge_training.data.presentations import SPLITS
from edge_training.networks.minifas import MiniFAS
from edge_training.networks.pad import PadNet
from edge_training.reference_models import face_detector
from edge_training.stages.distil import agreement, answers, held_out, inputs_of, student_odds, teachers
from edge_training.stages.judgeable import pictures, strange_odds
from edge_training.teachers import live_logit

MODELS = tuple(name for name in zoo.NAMES if zoo.spec(name).task == "liveness")
NETWORKS: Mapping[str, Callable[[], nn.Module]] = {"padnet": PadNet, "minifas": MiniFAS}
SEED = 2018
_NON_FACES = 2000
_SAMPLES = ("image_T1", "image_F1", "image_F2")

Images = npt.NDArray[np.uint8]
Judge = Callable[[Images], npt.NDArray[np.float32]]
"""From (N, 80, 80, 3) uint8 RGB crops to (N,) log-odds of bona fide."""


def network_from(kind: str, weights: Path) -> nn.Module:
    """A trained network.

    Raises:
        InputError: no such file, or it holds another network's weights.
    """
    network = NETWORKS[kind]()
    tensors, _ = checkpoint.load(weights)
    try:
        network.load_state_dict(
            {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
        )
    except RuntimeError as error:
        raise InputError(
            f"{weights} does not hold the weights of {kind}",
            remedy=f"name its network: {', '.join(NETWORKS)}",
        ) from error
    return network


def measure(
    student: Judge,
    data: Path,
    work: Path,
    *,
    split: str,
    a_kind: int,
    shown: int,
    threshold: float,
    strange: Judge | None = None,
) -> dict[str, Any]:
    """Agreement by kind, decisions on simulated presentations, and the three published photographs.

    Args:
        student: what is measured.
        data: with ``faces/``, ``backgrounds/``, ``fer2013/``, ``peers/`` and ``samples/``.
        work: where the portraits' boxes are kept.
        split: one of ``SPLITS``.
        a_kind: pictures of each kind.
        shown: simulated presentations; 0 leaves them out.
        threshold: score from which on the student says bona fide.
        strange: log-odds of *not a face*, where the network has that answer.
    """
    first, _ = teachers(data)

    def teacher(images: Images) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = live_logit(answers(first, images)).numpy()
        return found

    shift = np.float32(np.log(threshold / (1 - threshold)))
    inputs = inputs_of(data, work)[split]
    images, kinds = held_out(inputs, a_kind, SEED)
    ours, theirs = student(images) - shift, teacher(images)
    report: dict[str, Any] = {"kinds": agreement(ours, theirs, kinds)}
    portraits, others = kinds == "portrait", np.isin(kinds, NON_FACES)
    report["portraits turned away"] = _pair(ours, theirs, portraits, lambda odds: odds <= 0)
    report["non-faces taken for bona fide"] = _pair(ours, theirs, others, lambda odds: odds > 0)
    if shown:
        crops, groups = presented(inputs, shown)
        report["presentations"] = {
            name: _rates(judge(crops) - moved, groups)
            for name, judge, moved in (("student", student, shift), ("teacher", teacher, np.float32(0)))
        }
    crops, none = pictures(inputs, 2 * _NON_FACES, (SEED, 2))
    ours, theirs = student(crops) - shift, teacher(crops)
    refused = strange(crops) > 0 if strange else np.zeros(len(crops), bool)
    report["third answer"] = {
        "non-faces": int(none.sum()),
        "taken for bona fide": float((ours[none] > 0).mean()),
        "taken for bona fide by the teacher": float((theirs[none] > 0).mean()),
        "taken for bona fide and for faces": float(((ours > 0) & ~refused)[none].mean()),
        "faces refused as none": float(refused[~none].mean()),
    }
    report["samples"] = _samples(student, teacher, data, shift)
    return report


def presented(inputs: Inputs, count: int) -> tuple[Images, npt.NDArray[np.str_]]:
    """Simulated presentations: half of them bona fide, the others of each species in turn.

    Returns:
        (count, 80, 80, 3) uint8 crops, and (count,) ``bona_fide`` or the species of each.
    """
    groups = [BONA_FIDE if i % 2 == 0 else SPECIES[i // 2 % len(SPECIES)] for i in range(count)]
    crops = []
    for i, group in enumerate(groups):
        rng = np.random.default_rng((SEED, 1, i))
        crops.append((inputs.bona_fide(rng) if group == BONA_FIDE else inputs(group, rng))[0])
    return np.stack(crops), np.array(groups)


def _pair(
    ours: npt.NDArray[np.float32],
    theirs: npt.NDArray[np.float32],
    rows: npt.NDArray[np.bool_],
    wrong: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.bool_]],
) -> dict[str, float]:
    return {
        "student": float(wrong(ours[rows]).mean()),
        "teacher": float(wrong(theirs[rows]).mean()),
        "count": int(rows.sum()),
    }


def _rates(odds: npt.NDArray[np.float32], groups: npt.NDArray[np.str_]) -> dict[str, float]:
    """BPCER and every species' APCER at odds of one, its area under the curve, and the worst equal error rate."""
    from sklearn.metrics import roc_auc_score

    score = 1 / (1 + np.exp(-odds.astype(np.float64)))
    genuine = groups == BONA_FIDE
    report = liveness.evaluate(score, tuple(groups.tolist()), 0.5)
    found = {name: report.metrics[name].value for name in ("bpcer", "d_eer", "bpcer20", "auc")}
    for name in SPECIES:
        rows = genuine | (groups == name)
        found[f"apcer_{name}"] = report.per_class[name]["apcer"]
        found[f"auc_{name}"] = float(roc_auc_score(genuine[rows], odds[rows]))
    return found


def _samples(student: Judge, teacher: Judge, data: Path, shift: np.float32) -> dict[str, dict[str, float]]:
    """Probabilities of bona fide for the published photographs: T1 is bona fide, F1 and F2 are attacks."""
    detector = face_detector(data)
    cropper = Cropper(side_x=CROP, side_y=CROP, crop=FaceCrop(MARGINS[0], "shift"))
    found = {}
    for name in _SAMPLES:
        image = read_image(data / f"samples/pad_scenes/{name}.jpg")
        boxes = detector(image)
        if not len(boxes):
            raise InputError(f"no face found in {name}", remedy="fetch the samples again")
        largest = boxes[int(np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(1)))]
        crop = cropper(image, fer_box(largest)).copy()
        odds = {"student": float(student(crop)[0] - shift), "teacher": float(teacher(crop)[0])}
        found[name] = {who: float(1 / (1 + np.exp(-value))) for who, value in odds.items()}
    return found


def table(report: Mapping[str, Any]) -> str:
    """A report in Markdown."""
    lines = [
        "| kind | pictures | correlation | same decision | student bona fide | teacher bona fide | rms |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, row in report["kinds"].items():
        lines.append(
            f"| {kind} | {row['count']} | {row['correlation']:.3f} | {row['same']:.3f} | "
            f"{row['student_live']:.3f} | {row['teacher_live']:.3f} | {row['rms']:.2f} |"
        )
    lines += ["", "| | student | teacher |", "|---|---|---|"]
    for name in ("portraits turned away", "non-faces taken for bona fide"):
        row = report[name]
        lines.append(f"| {name}, of {row['count']} | {row['student']:.3f} | {row['teacher']:.3f} |")
    shown = report.get("presentations")
    if shown:
        for name in shown["student"]:
            lines.append(f"| {name} | {shown['student'][name]:.3f} | {shown['teacher'][name]:.3f} |")
    third = report["third answer"]
    lines += [
        f"| of {third['non-faces']} other non-faces, taken for bona fide | {third['taken for bona fide']:.4f} | "
        f"{third['taken for bona fide by the teacher']:.4f} |",
        f"| and for faces by the third answer | {third['taken for bona fide and for faces']:.4f} | |",
        f"| of as many faces, refused by it | {third['faces refused as none']:.4f} | |",
    ]
    for name, row in report["samples"].items():
        lines.append(f"| {name} | {row['student']:.2f} | {row['teacher']:.2f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.agreement", description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the portraits' boxes")
    parser.add_argument("--network", choices=NETWORKS, default="padnet")
    parser.add_argument("--weights", type=Path, help="in place of the model's own")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--pictures", type=int, default=200, help="of each kind (default: 200)")
    parser.add_argument(
        "--presentations", type=int, default=2000, help="simulated ones (default: 2000; 0: none)"
    )
    parser.add_argument("--threshold", type=float, default=0.5, help="of the student's score (default: 0.5)")
    parser.add_argument("--json", action="store_true", help="print JSON for a program to read")
    args = parser.parse_args(argv)
    try:
        if not 0 < args.threshold < 1:
            raise InputError(f"--threshold {args.threshold}", remedy="give a number between 0 and 1")
        weights = args.weights or zoo.SOURCES / f"{args.model}.safetensors"
        network = network_from(args.network, weights)
        report = measure(
            lambda images: student_odds(network, images),
            args.data,
            args.work,
            split=args.split,
            a_kind=args.pictures,
            shown=args.presentations,
            threshold=args.threshold,
            strange=(lambda images: strange_odds(network, images)) if isinstance(network, MiniFAS) else None,
        )
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(report, indent=2) if args.json else table(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
