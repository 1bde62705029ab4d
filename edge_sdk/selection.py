"""Which bundle of a model is loaded: a file, or the fastest shipped one whose engine is installed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edge_sdk import zoo
from edge_sdk.bundle import SUFFIX, Bundle
from edge_sdk.errors import ChecksumMismatch, InputError, MissingDependency
from edge_sdk.target import available_targets, find_target


@dataclass(frozen=True, slots=True)
class Selected:
    """A bundle, and why it was taken.

    Attributes:
        bundle: read and hashed; of the zoo, the one that its index names.
        path: of its file; None for a bundle that was given itself.
        reason: why this one, a line for ``ModelInfo.chosen``.
    """

    bundle: Bundle
    path: Path | None
    reason: str


def select(
    model: str | Path | Bundle, *, target: str | None, precision: str | None, prefer: tuple[str, ...] = ()
) -> Selected:
    """The bundle that serves a request.

    Args:
        model: zoo name, path of an ``.edge`` file, or a bundle that is open.
        target: engine that must run it; None for any.
        precision: that its graph must have; None for any.
        prefer: engines in order of preference, instead of ``target``.

    Raises:
        InputError: unknown name, or no bundle of that target and precision.
        BundleError: the bundle is damaged, or not the one that the zoo's index names.
        MissingDependency: no engine for it is installed.
    """
    if isinstance(model, Bundle):
        chosen = Selected(model, None, "the bundle that was given")
    elif names_a_file(model):
        chosen = _file(model)
    else:
        chosen = _shipped(str(model), target, precision, prefer)
    manifest = chosen.bundle.manifest
    for what, asked, has in (
        ("target", target, manifest.target),
        ("precision", precision, manifest.recipe.precision),
    ):
        if asked is not None and asked != has:
            raise InputError(
                f"{chosen.path or manifest.spec.name} has {what} {has!r}, {asked!r} was asked for",
                remedy=f"leave {what} out, or name another bundle",
            )
    return chosen


def names_a_file(model: str | Path) -> bool:
    """Whether this is a bundle's path and no zoo name: a Path, or text with a bundle's suffix or with a separator.

    What lies in the current folder plays no part: a file that bears a model's name must not take the model's place.
    """
    if isinstance(model, Path):
        return True
    return model.endswith(SUFFIX) or any(s in model for s in (os.sep, os.altsep) if s)


def find_bundle(name: str | Path) -> Selected:
    """The bundle to look at: the file itself, or a zoo model's fastest, of an installed engine if there is one.

    Raises:
        InputError: no such file or model, or no bundle of it is shipped.
        BundleError: the bundle is damaged, or not the one that the zoo's index names.
    """
    if names_a_file(name):
        return _file(name)
    shipped = zoo.bundles(str(name))
    if not shipped:
        raise InputError(f"no bundle of {name} is shipped", remedy=f"make one with 'edge-sdk build {name}'")
    installed = available_targets()
    best = next((b for b in shipped if b.target in installed), shipped[0])
    return Selected(open_shipped(best), best.path, "the fastest that is shipped")


def open_shipped(shipped: zoo.ZooBundle) -> Bundle:
    """Open a bundle of the zoo and hold it against the index.

    Raises:
        BundleError: it is damaged, or not the one that the index names.
    """
    bundle = Bundle.open(shipped.path)
    if bundle.sha256 != shipped.sha256:
        raise ChecksumMismatch(
            f"{shipped.path} is not the bundle that the zoo's index names", remedy="reinstall face-edge-sdk"
        )
    return bundle


def _file(path: str | Path) -> Selected:
    return Selected(Bundle.open(path), Path(path), f"the file {path}")


def _shipped(name: str, target: str | None, precision: str | None, prefer: tuple[str, ...]) -> Selected:
    """The fastest fitting bundle of a zoo model, of the first preferred engine that is here."""
    shipped = zoo.bundles(name)
    fitting = [b for b in shipped if target in (None, b.target) and precision in (None, b.precision)]
    if prefer:
        fitting = sorted((b for b in fitting if b.target in prefer), key=lambda b: prefer.index(b.target))
        target = " or ".join(prefer)
    if not fitting:
        have = ", ".join(f"{b.target} {b.precision}" for b in shipped) or "none"
        raise InputError(
            f"no shipped bundle of {name} for target {target or 'any'}, precision {precision or 'any'}",
            remedy=f"shipped: {have}; or make one with 'edge-sdk build {name}'",
        )
    installed = available_targets()
    usable = [b for b in fitting if b.target in installed]
    if prefer:
        usable = [b for b in usable if b.target == usable[0].target]
    if not usable:
        engines = sorted({b.target for b in fitting})
        extras = " or ".join(f"pip install 'face-edge-sdk[{find_target(e).distribution}]'" for e in engines)
        raise MissingDependency(f"no engine for {name} is installed here", remedy=extras)
    best = usable[0]
    bundle = open_shipped(best)
    passed_over = ", ".join(f"{b.target}-{b.precision}" for b in fitting if b not in usable)
    pace = f"{zoo.latency_here(best):.2f} of onnxruntime fp32"
    reason = f"fastest of {len(usable)} shipped bundles that can run here: {pace}"
    return Selected(
        bundle, best.path, reason + (f"; engine not installed for {passed_over}" if passed_over else "")
    )
