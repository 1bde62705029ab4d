"""Which bundle of a model is loaded: a file, or the fastest shipped one whose engine is installed."""

from __future__ import annotations

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
        bundle: read and hashed.
        reason: for people.
        path: of the file.
    """

    bundle: Bundle
    reason: str
    path: Path


def select(
    model: str | Path, *, target: str | None, precision: str | None, prefer: tuple[str, ...] = ()
) -> Selected:
    """The bundle that serves a request.

    Args:
        model: zoo name, or path of an ``.edge`` file.
        target: engine that must run it; None for any.
        precision: that its graph must have; None for any.
        prefer: engines in order of preference, instead of ``target``.

    Raises:
        InputError: unknown name, or no bundle of that target and precision.
        BundleError: the bundle is damaged, or not the one that the zoo's index names.
        MissingDependency: no engine for it is installed.
    """
    if names_a_file(model):
        chosen = Selected(Bundle.open(model), f"the file {model}", Path(model))
    else:
        chosen = _shipped(str(model), target, precision, prefer)
    manifest = chosen.bundle.manifest
    for what, asked, has in (
        ("target", target, manifest.target),
        ("precision", precision, manifest.recipe.precision),
    ):
        if asked is not None and asked != has:
            raise InputError(
                f"{model} has {what} {has!r}, {asked!r} was asked for",
                remedy=f"leave {what} out, or name another bundle",
            )
    return chosen


def names_a_file(model: str | Path) -> bool:
    """Whether this is a bundle's path and no zoo name: by its suffix, or because such a file exists."""
    try:
        return str(model).endswith(SUFFIX) or Path(model).is_file()
    except (OSError, ValueError):  # longer than a path may be, or not allowed to look
        return False


def bundle_path(name: str) -> Path:
    """The file itself, or the fastest shipped bundle of a zoo model, of an installed engine if there is one.

    Raises:
        InputError: no such model, or no bundle of it is shipped.
    """
    if names_a_file(name):
        return Path(name)
    shipped = zoo.bundles(name)
    if not shipped:
        raise InputError(f"no bundle of {name} is shipped", remedy=f"make one with 'edge-sdk build {name}'")
    installed = available_targets()
    return next((b for b in shipped if b.target in installed), shipped[0]).path


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
    bundle = Bundle.open(best.path)
    if bundle.sha256 != best.sha256:
        raise ChecksumMismatch(
            f"{best.path} is not the bundle that the zoo's index names", remedy="reinstall face-edge-sdk"
        )
    passed_over = ", ".join(f"{b.target}-{b.precision}" for b in fitting if b not in usable)
    pace = f"{zoo.latency_here(best):.2f} of onnxruntime fp32"
    reason = f"fastest of {len(usable)} shipped bundles that can run here: {pace}"
    reason += f"; engine not installed for {passed_over}" if passed_over else ""
    return Selected(bundle, reason, best.path)
