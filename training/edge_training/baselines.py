"""Baselines of the liveness network on the simulated presentations: what much simpler methods reach.

    python -m edge_training.baselines --data ../shared/data --json

histogram   a small network on colour histograms alone. If it recognises attacks, the simulation has a shortcut.
ridge       a linear model on statistics of colour, blur and spectrum: the trivial baseline.
minifasnet  MiniFASNetV2 as published, which was trained on real attacks and never saw a simulated one.

The first two are fitted to training presentations; all are measured on portraits that no training saw.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge_quantize.data import BONA_FIDE
from edge_sdk.errors import EdgeError
from edge_sdk.image import Image
from edge_training.data.attacks import SPECIES
from edge_training.data.presentations import presentations
from edge_training.reference_models import minifasnet

Floats = npt.NDArray[np.float64]


def histogram(image: Image) -> Floats:
    """(48,) counts in sixteen bins per channel, as shares of the pixels."""
    counts = [np.histogram(image[:, :, c], 16, (0, 256))[0] for c in range(3)]
    return np.concatenate(counts) / image[:, :, 0].size


def statistics(image: Image) -> Floats:
    """(28,) means and spreads of colours, sharpness at three scales, and the energy of twelve rings of the spectrum."""
    unit = image.astype(np.float64) / 255
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float64) / 255
    grey = unit.mean(2)
    sharp = [
        float(cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), s), cv2.CV_64F).std()) for s in (0.5, 1.0, 2.0)
    ]
    magnitude = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(grey - grey.mean()))))
    y, x = np.indices(grey.shape)
    radius = np.hypot(y - grey.shape[0] / 2, x - grey.shape[1] / 2)
    edges = np.linspace(0, grey.shape[0] / 2, 13)
    rings = [float(magnitude[(radius >= a) & (radius < b)].mean()) for a, b in pairwise(edges)]
    colours = [*unit.mean((0, 1)), *unit.std((0, 1)), *hsv.mean((0, 1)), *hsv.std((0, 1)), float(grey.max())]
    return np.array([*colours, *sharp, *rings])


def areas(score: Floats, groups: npt.NDArray[np.str_]) -> dict[str, float]:
    """Area under the ROC curve of each species against bona fide.

    Args:
        score: (N,) greater means bona fide.
        groups: (N,) ``bona_fide`` or the species.
    """
    genuine = groups == BONA_FIDE
    found = {}
    for name in SPECIES:
        rows = genuine | (groups == name)
        found[name] = float(roc_auc_score(genuine[rows], score[rows]))
    return found


def measure(data: Path, *, train: int, test: int, seed: int) -> dict[str, dict[str, float]]:
    """Baseline to species to the area under the ROC curve on test presentations.

    Args:
        data: data folder.
        train: number of training presentations.
        test: number of test presentations.
        seed: of the presentations and the fits.
    """
    images, groups = presentations(data, "train", train, SPECIES, seed=seed)
    judged, truth = presentations(data, "test", test, SPECIES, seed=seed)
    fitted: dict[str, tuple[Callable[[Image], Floats], object]] = {
        "histogram": (
            histogram,
            MLPClassifier((32,), alpha=1e-2, max_iter=1000, early_stopping=True, random_state=seed),
        ),
        "ridge": (statistics, RidgeClassifier(alpha=1.0)),
    }
    results = {}
    for name, (features, model) in fitted.items():
        pipeline = make_pipeline(StandardScaler(), model)
        pipeline.fit(np.stack([features(i) for i in images]), groups == BONA_FIDE)
        table = np.stack([features(i) for i in judged])
        decide = getattr(pipeline, "decision_function", None) or (lambda t: pipeline.predict_proba(t)[:, 1])  # noqa: B023
        results[name] = areas(decide(table), truth)
    results["minifasnet"] = areas(minifasnet(data)(judged), truth)
    return results


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.baselines", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--train", type=int, default=6000, help="training presentations (default: 6000)")
    parser.add_argument("--test", type=int, default=2000, help="test presentations (default: 2000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    try:
        results = measure(args.data, train=args.train, test=args.test, seed=args.seed)
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps(results, indent=2))
        return 0
    print(f"{'area under the curve':<22}" + "".join(f"{name:>10}" for name in SPECIES))
    for name, found in results.items():
        print(f"{name:<22}" + "".join(f"{found[s]:>10.3f}" for s in SPECIES))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
