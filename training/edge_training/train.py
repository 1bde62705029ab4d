"""One training loop for every stage of every network: resumable, seeded, with progress.

    python -m edge_training.train training/recipes/fer-yolo11n.toml --data ../shared/data --work runs/fer-yolo11n

A recipe is one TOML file; its stages run in order, each starting from the weights of the one before, the first from
``--start``. After every epoch the whole state is written, so the same command continues an interrupted run. Batches
depend only on the recipe's seed, the epoch and the batch's number: a resumed run sees what an uninterrupted one would
have seen.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomllib
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from edge_sdk.errors import EdgeError, InputError
from edge_training import checkpoint
from edge_training.optimizer import Optimizer
from edge_training.stages import stages_of
from edge_training.stages.base import Stage


def fit(stage: Stage, work: Path, previous: Mapping[str, Tensor] | None, device: str) -> Path:
    """Run one stage to its end, from its last checkpoint if there is one.

    Args:
        stage: what is trained.
        work: folder for ``NAME.last.safetensors``, ``NAME.best.safetensors`` and ``NAME.jsonl``.
        previous: weights of the stage before, by the names of the parameters; None for random ones.
        device: torch device name.

    Returns:
        The file with the best averaged weights.

    Raises:
        InputError: a checkpoint is unreadable, an epoch has no batch, or the loss became infinite or undefined.
    """
    last, best = work / f"{stage.name}.last.safetensors", work / f"{stage.name}.best.safetensors"
    log = work / f"{stage.name}.jsonl"
    schedule = stage.schedule
    # Channels-last with bf16 autocast ran 2.2 times as fast as the default layout in fp32 on two cores.
    network = stage.network(previous).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network).eval()
    optimizer = Optimizer(_groups(stage, network))
    first_epoch, best_figure = 0, -math.inf
    if last.exists():
        tensors, state = checkpoint.load(last)
        network.load_state_dict(checkpoint.under(tensors, "network"))
        average.load_state_dict(checkpoint.under(tensors, "average"))
        optimizer.restore(checkpoint.under(tensors, "optimizer"))
        first_epoch, best_figure = int(str(state["epoch"])), float(str(state["best"]))
    for epoch in range(first_epoch, schedule.epochs):
        started = time.perf_counter()
        parts = _epoch(stage, network, average, optimizer, epoch, device)
        figures = stage.validate(average)
        if figures[stage.best_by] > best_figure:
            best_figure = figures[stage.best_by]
            checkpoint.save(best, average.state_dict(), {"epoch": epoch + 1, "figures": figures})
        checkpoint.save(
            last,
            {
                **{f"network.{k}": v for k, v in network.state_dict().items()},
                **{f"average.{k}": v for k, v in average.state_dict().items()},
                **{f"optimizer.{k}": v for k, v in optimizer.state().items()},
            },
            {"epoch": epoch + 1, "best": best_figure},
        )
        seconds = round(time.perf_counter() - started, 1)
        record = {"stage": stage.name, "epoch": epoch + 1, "of": schedule.epochs, "seconds": seconds}
        line = json.dumps({**record, **_rounded(parts), **_rounded(figures)})
        with log.open("a") as f:
            f.write(line + "\n")
        print(line, flush=True)
    return best


def _groups(stage: Stage, network: nn.Module) -> list[dict[str, Any]]:
    """Parameters by learning-rate factor and weight decay, which biases and norms are spared."""
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        factor = stage.lr_factor(name)
        decay = stage.schedule.weight_decay if parameter.ndim > 1 else 0.0
        group = groups.setdefault(
            (factor, decay), {"params": [], "factor": factor, "weight_decay": decay, "lr": stage.schedule.lr}
        )
        group["params"].append(parameter)
    return list(groups.values())


def _epoch(
    stage: Stage,
    network: nn.Module,
    average: nn.Module,
    optimizer: Optimizer,
    epoch: int,
    device: str,
) -> dict[str, float]:
    schedule = stage.schedule
    torch.manual_seed(epoch)  # dropout; the data draw from seeds of their own
    network.train()
    workers = schedule.workers
    ahead = 4 if workers else None
    loader = DataLoader(stage.batches(epoch), batch_size=None, num_workers=workers, prefetch_factor=ahead)
    steps = len(loader)
    if not steps:
        raise InputError(
            f"an epoch of {stage.name} has no batch", remedy="lower batch in the recipe, or add pictures"
        )
    sums: dict[str, float] = {}
    quiet = not sys.stderr.isatty()
    title = f"{stage.name} {epoch + 1}/{schedule.epochs}"
    for index, batch in enumerate(tqdm(loader, desc=title, disable=quiet, leave=False)):
        step = epoch * steps + index
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr_at(step, steps) * group["factor"]
        moved = tuple(t.to(device) for t in batch)
        loss, parts = stage.loss(network, moved)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), schedule.clip_norm)
        optimizer.step()
        _average(average, network, schedule.ema, step)
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value / steps
    if not all(math.isfinite(v) for v in sums.values()):
        raise InputError(
            f"training diverged in epoch {epoch + 1} of {stage.name}: {sums}",
            remedy="lower lr in the recipe; the last checkpoint is intact",
        )
    return sums


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    # The decay grows from 0 so that the random start is forgotten quickly.
    decay = decay * (1 - math.exp(-(step + 1) / 500))
    for a, n in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if a.dtype.is_floating_point:
            a.lerp_(n, 1 - decay)
        else:
            a.copy_(n)


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in figures.items()}


def run(
    recipe_file: Path,
    data: Path,
    work: Path,
    *,
    device: str,
    threads: int,
    start: Path | None = None,
    seed: int | None = None,
    own_faces: Path | None = None,
) -> Path:
    """Run all stages of a recipe.

    Args:
        recipe_file: TOML file.
        data: folder with the training data.
        work: folder for checkpoints and logs, made if missing.
        device: torch device name.
        threads: CPU threads of torch.
        start: checkpoint whose weights the first stage begins with; None for random weights.
        seed: in place of the recipe's; None keeps that.
        own_faces: folder of labelled crops in place of FER2013 (``data.own_faces``); None for FER2013.

    Returns:
        The file with the last stage's best weights.

    Raises:
        InputError: the recipe or the data is not usable; nothing has been trained then.
    """
    torch.set_num_threads(threads)
    try:
        recipe: dict[str, Any] = tomllib.loads(recipe_file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read {recipe_file}: {error}", remedy="mend the recipe") from error
    if seed is not None:
        recipe["seed"] = seed
    stages = stages_of(recipe, data, recipe_file.parent, own_faces)
    previous = None if start is None else checkpoint.load(start)[0]
    work.mkdir(parents=True, exist_ok=True)
    best = work
    for stage in stages:
        best = fit(stage, work, previous, device)
        previous, _ = checkpoint.load(best)
    return best


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere: 0 fine, 2 bad recipe or data."""
    parser = argparse.ArgumentParser(prog="edge_training.train", description=__doc__.split("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, help="folder with fer2013/, faces/, backgrounds/ and peers/")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--start", type=Path, metavar="FILE", help="weights that the first stage begins with")
    parser.add_argument("--seed", type=int, help="of all random draws, in place of the recipe's")
    parser.add_argument(
        "--faces",
        type=Path,
        metavar="DIR",
        help="your own labelled crops in place of FER2013 (training/README.md)",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    if args.data is None and args.faces is None:
        parser.error("give --data, or --faces where the recipe needs nothing else")
    try:
        best = run(
            args.recipe,
            args.data or args.faces,
            args.work,
            device=args.device,
            threads=args.threads,
            start=args.start,
            seed=args.seed,
            own_faces=args.faces,
        )
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    print(f"best weights: {best}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
