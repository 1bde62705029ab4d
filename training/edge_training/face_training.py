"""Train a detector with a face logit; resumable, on one core.

    python -m edge_training.data.shards --data ../shared/data --work runs/face
    python -m edge_training.face_training training/recipes/fer-yolo11n-face.toml --data ../shared/data --work runs/face

After every epoch the averaged weights are also written in half precision to the recipe's ``checkpoint``; ``--start``
with that file begins a new run from it. More epochs can be given to a finished or running recipe: the learning rate is
constant until the last ``decay_epochs``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import tomllib
import torch
from torch import Tensor, nn

from edge_sdk.errors import EdgeError, InputError
from edge_training import checkpoint
from edge_training.data.shards import read_sources
from edge_training.networks.face_yolo import FACE_DETECTORS
from edge_training.stages.base import options_of
from edge_training.stages.face_detector import FaceDetectorOptions, FaceDetectorStage
from edge_training.train import fit


class _Kept(FaceDetectorStage):
    """The stage, which writes its averaged weights in half precision after every epoch."""

    path: Path

    def validate(self, network: nn.Module) -> dict[str, float]:
        figures = super().validate(network)
        checkpoint.save(self.path, half(network.state_dict()), {"figures": figures})
        return figures


def half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floats in half precision, batch counters left out."""
    return {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if not name.endswith("num_batches_tracked")
    }


def load_network(path: Path, name: str = "yolo11n", classes: int = 7) -> nn.Module:
    """A trained detector with a face logit, ready to answer.

    Raises:
        InputError: the file cannot be read or holds another network's weights.
    """
    tensors, _ = checkpoint.load(path)
    network = FACE_DETECTORS[name](classes)
    own = network.state_dict()
    try:
        network.load_state_dict({**own, **{k: v.float() for k, v in tensors.items()}})
    except RuntimeError as error:
        raise InputError(
            f"{path} is not of a {name} with a face logit", remedy="name another file"
        ) from error
    if not any(k.startswith("face.") for k in tensors):
        raise InputError(f"{path} has no face logit", remedy="train it with edge_training.face_training")
    return network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.face_training", description=__doc__.split("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="with marks/ and scenes/ from data.shards")
    parser.add_argument("--start", type=Path, metavar="FILE", help="in place of the recipe's")
    parser.add_argument("--epochs", type=int, help="in place of the recipe's")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    try:
        recipe: dict[str, Any] = tomllib.loads(args.recipe.read_text())
        place = args.recipe.parent
        from edge_training.stages import teacher_of

        teacher = teacher_of(recipe["teacher"], place)
        table = dict(recipe["stage"])
        if args.epochs:
            table["epochs"] = args.epochs
        stage = _Kept(
            options_of(FaceDetectorOptions, table),
            recipe["network"],
            read_sources(args.data, args.work / "marks"),
            args.work / "scenes",
            int(recipe.get("seed", 1)),
            teacher,
        )
        stage.path = place / recipe["checkpoint"]
        stage.path.parent.mkdir(parents=True, exist_ok=True)
        previous, _ = checkpoint.load(args.start or place / recipe["start"])
        best = fit(stage, args.work, previous, "cpu")
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        print(f"error: cannot use {args.recipe}: {error!r}\n  mend the recipe", file=sys.stderr)
        return InputError.exit_code
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    print(f"best weights: {best}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
