"""What a published liveness network sees of a simulated attack: one effect at a time, from faint to strong.

    python -m edge_training.sensitivity --data ../shared/data --work runs/agreement

The same faces in the same frames, with one thing changed. An effect that does not move the network's odds towards
*attack* is not how it knows attacks; one that does so in a bona fide camera's reach (blur, noise, darkness) is why it
turns people away. Also how well it tells whole simulated attacks from faces in the same camera.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from edge_quantize.data import BONA_FIDE
from edge_sdk.errors import EdgeError
from edge_sdk.image import Image
from edge_training.data import attacks
from edge_training.data.distil_inputs import Inputs, mosaic, raster
from edge_training.data.presentations import SPLITS
from edge_training.stages.distil import answers, inputs_of, teachers
from edge_training.teachers import MiniFASTeacher, live_logit

_OURS = ("reshoot", "moire")
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)

Floats = Any
"""(256, 256, 3) float32 scenes, and (4,) boxes."""
Rng = np.random.Generator
Effect = Callable[[Floats, Floats, float, Rng], Floats]
"""From a (256, 256, 3) scene in 0..1, the face's (4,) box, a strength in 0..1 and draws, to a scene."""


def _pitch(pitch: float, *, bayer: bool = False) -> Effect:
    def ruled(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
        seen = raster(scene, pitch=pitch, depth=0.9 * s, angle=np.deg2rad(3.0))
        return mosaic(seen) if bayer else seen

    return ruled


def _glow(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    black = 0.3 * s
    glowing: Floats = black + scene * (1 - black)
    return glowing


def _grey(scene: Floats) -> Floats:
    grey: Floats = (scene @ np.array([0.299, 0.587, 0.114], np.float32))[:, :, None]
    return grey


def _pale(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    return scene + s * 0.8 * (_grey(scene) - scene)


def _vivid(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    return scene - s * 0.8 * (_grey(scene) - scene)


def _flare(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    y, x = np.mgrid[0:256, 0:256].astype(np.float32)
    cx, cy = (float(v) for v in (box[:2] + box[2:]) / 2 + rng.uniform(-30, 30, 2))
    spot = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 20**2))[:, :, None]
    return scene + s * 0.8 * spot


def _bands(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    waves = np.sin(2 * np.pi * (np.arange(256, dtype=np.float32) / 60 + rng.random()))
    return scene * (1 + 0.3 * s * waves[:, None, None])


def _edge(colour: float) -> Effect:
    def held(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
        if s == 0:
            return scene
        width = float(box[2] - box[0])
        reach = width * (1.35 - 0.65 * s)
        cx, cy = (float(v) for v in (box[:2] + box[2:]) / 2)
        out: Floats = np.full_like(scene, 0.5) + cv2.GaussianBlur(scene[::-1], (0, 0), 8) * 0.4 - 0.2
        edge = max(2, int(0.06 * width))
        left, top, right, bottom = (
            int(np.clip(v, 0, 256)) for v in (cx - reach, cy - 1.2 * reach, cx + reach, cy + 1.2 * reach)
        )
        out[max(0, top - edge) : bottom + edge, max(0, left - edge) : right + edge] = colour
        out[top:bottom, left:right] = scene[top:bottom, left:right]
        return out

    return held


def _grain(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    grain = cv2.GaussianBlur(rng.standard_normal((256, 256), np.float32), (0, 0), 1.0)[:, :, None]
    return scene * (1 + 0.08 * s * grain / float(grain.std()))


def _halftone(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    return scene + s * (attacks._halftone(scene, rng) - scene)


def _bend(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    x = np.arange(256, dtype=np.float32) / 256
    return scene * (1 + 0.35 * s * np.cos(2 * np.pi * (x + rng.random())))[None, :, None]


def _textile(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    return scene + s * (attacks.textile_mask(scene, box, rng) - scene) if s else scene


def _blur(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    return cv2.GaussianBlur(scene, (0, 0), 4 * s) if s else scene


def _noise(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    return scene + rng.standard_normal(scene.shape, np.float32) * np.float32(0.12 * s)


def _dark(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    return scene * (1 - 0.85 * s)


def _bright(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    return scene * (1 + 1.2 * s)


def _warm(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    return scene * (1 + np.array([0.35, 0, -0.45], np.float32) * s)


def _cold(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    return scene * (1 + np.array([-0.45, 0, 0.35], np.float32) * s)


def _compressed(scene: Floats, box: Floats, s: float, rng: Rng) -> Floats:
    if not s:
        return scene
    _, packed = cv2.imencode(
        ".jpg", (scene.clip(0, 1) * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, int(90 - 82 * s)]
    )
    decoded: Floats = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    found: Floats = decoded.astype(np.float32) / 255
    return found


EFFECTS: Mapping[str, Mapping[str, Effect]] = {
    "replay": {
        "raster, 0.5 pixels, points sampled": _pitch(0.5),
        "raster, 0.95 pixels (moire)": _pitch(0.95),
        "raster, 1.05 pixels (moire)": _pitch(1.05),
        "raster, 1.6 pixels": _pitch(1.6),
        "raster, 2.1 pixels": _pitch(2.1),
        "raster, 1.05 pixels, one colour a pixel": _pitch(1.05, bayer=True),
        "raster, 1.9 pixels, one colour a pixel": _pitch(1.9, bayer=True),
        "black glows": _glow,
        "vivid colours": _vivid,
        "refresh bands": _bands,
        "lamp reflected": _flare,
        "dark bezel in the crop": _edge(0.05),
    },
    "print": {
        "halftone": _halftone,
        "grain": _grain,
        "pale ink": _pale,
        "bent sheet": _bend,
        "white border in the crop": _edge(0.92),
    },
    "mask": {"textile mask": _textile},
    "camera": {
        "out of focus": _blur,
        "noise": _noise,
        "dark": _dark,
        "overexposed": _bright,
        "warm": _warm,
        "cold": _cold,
        "JPEG": _compressed,
    },
}
"""What an attack of each species, or a camera alone, does to a picture."""


def sweep(inputs: Inputs, judges: Mapping[str, MiniFASTeacher], faces: int) -> list[dict[str, Any]]:
    """Mean log-odds of bona fide under every effect at every strength.

    Args:
        inputs: of a split.
        judges: by name: networks of crops at ``MARGINS``, in that order.
        faces: on which each effect is tried.

    Returns:
        A row an effect and network: its strengths' mean odds, and the share called bona fide at each.
    """
    rows: list[dict[str, Any]] = []
    frames = []
    for i in range(faces):
        rng = np.random.default_rng((2019, i))
        portrait = inputs.portraits[i % len(inputs.portraits)]
        frames.append(attacks.place(portrait, float(rng.uniform(45, 85)), rng))
    for group, effects in EFFECTS.items():
        for name, effect in effects.items():
            seen: dict[str, list[npt.NDArray[np.float32]]] = {judge: [] for judge in judges}
            for s in STRENGTHS:
                crops: list[tuple[Image, Image]] = []
                for i, (scene, box) in enumerate(frames):
                    changed = effect(scene, box, s, np.random.default_rng((2020, i)))
                    crops.append(inputs.crops((changed.clip(0, 1) * 255).astype(np.uint8), box))
                for k, (judge, network) in enumerate(judges.items()):
                    seen[judge].append(live_logit(answers(network, np.stack([c[k] for c in crops]))).numpy())
            for judge, odds in seen.items():
                rows.append(
                    {
                        "species": group,
                        "effect": name,
                        "network": judge,
                        "odds": [float(o.mean()) for o in odds],
                        "bona_fide": [float((o > 0).mean()) for o in odds],
                    }
                )
    return rows


def areas(inputs: Inputs, judges: Mapping[str, MiniFASTeacher], count: int) -> list[dict[str, Any]]:
    """Area under the curve of whole simulated attacks against faces in the same camera, by network.

    ``print``, ``replay`` and ``mask`` against the bona fide of :mod:`edge_training.data.attacks`; the others against
    ``scene``.
    """
    crops: dict[str, list[tuple[Image, Image]]] = {}
    for number, kind in enumerate((BONA_FIDE, *attacks.SPECIES, "scene", *_OURS)):
        for i in range(count):
            rng = np.random.default_rng((2021, number, i))
            made = inputs.bona_fide(rng) if kind == BONA_FIDE else inputs(kind, rng)
            crops.setdefault(kind, []).append(made)
    odds = {
        (judge, kind): live_logit(answers(network, np.stack([c[k] for c in made]))).numpy()
        for k, (judge, network) in enumerate(judges.items())
        for kind, made in crops.items()
    }
    for kind in crops:
        odds["pair", kind] = np.mean([odds[judge, kind] for judge in judges], 0)
    rows = []
    for judge in (*judges, "pair"):
        for kind in (*attacks.SPECIES, *_OURS):
            against = odds[judge, "scene" if kind in _OURS else BONA_FIDE]
            truth = np.repeat([1, 0], [len(against), count])
            area = roc_auc_score(truth, np.concatenate((against, odds[judge, kind])))
            rows.append(
                {
                    "network": judge,
                    "species": kind,
                    "auc": float(area),
                    "bona_fide_turned_away": float((against <= 0).mean()),
                    "attacks_passed": float((odds[judge, kind] > 0).mean()),
                }
            )
    return rows


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.sensitivity", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the portraits' boxes")
    parser.add_argument("--split", choices=SPLITS, default="dev")
    parser.add_argument("--faces", type=int, default=60, help="under each effect (default: 60)")
    parser.add_argument("--attacks", type=int, default=300, help="of each species (default: 300)")
    parser.add_argument("--json", action="store_true", help="print JSON for a program to read")
    args = parser.parse_args(argv)
    try:
        inputs = inputs_of(args.data, args.work)[args.split]
        first, second = teachers(args.data)
        judges = {"V2": first, "V1SE": second}
        whole, single = areas(inputs, judges, args.attacks), sweep(inputs, judges, args.faces)
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps({"attacks": whole, "effects": single}, indent=2))
        return 0
    print("| network | species | AUC | bona fide turned away | attacks passed |\n|---|---|---|---|---|")
    for row in whole:
        print(
            f"| {row['network']} | {row['species']} | {row['auc']:.3f} | {row['bona_fide_turned_away']:.3f} | "
            f"{row['attacks_passed']:.3f} |"
        )
    heads = " | ".join(f"{s:g}" for s in STRENGTHS)
    print(f"\n| species | effect | network | {heads} |\n" + "|---" * (len(STRENGTHS) + 3) + "|")
    for row in single:
        cells = " | ".join(f"{o:+.1f} ({b:.2f})" for o, b in zip(row["odds"], row["bona_fide"], strict=True))
        print(f"| {row['species']} | {row['effect']} | {row['network']} | {cells} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
