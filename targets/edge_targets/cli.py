"""Verbs of this floor: ``doctor``, ``check``, ``install``, ``conformance`` and ``wheelhouse``."""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path
from typing import Any

from edge_sdk.bundle import Bundle
from edge_sdk.cli_common import Verb, print_json, progress
from edge_sdk.engine_cache import FOLDER_VARIABLE, default_cache
from edge_sdk.errors import InputError, LoadFailed
from edge_sdk.model import load
from edge_sdk.profile import Profile, read_profile
from edge_sdk.schema import to_plain
from edge_sdk.selection import find_bundle
from edge_sdk.target import PACKAGE, LoadOptions
from edge_sdk.trust import admit


def register(verb: Verb) -> None:
    """Add the verbs."""
    sub = verb("doctor", _doctor, "what this machine is, whether its engines work, and what to install")
    sub.add_argument(
        "--profile", metavar="NAME", help="board that must be able to run here, or its .toml file"
    )

    sub = verb("check", _check, "hold bundles for a Jetson against TensorRT's rules, without the board")
    sub.add_argument("bundle", nargs="+", metavar="BUNDLE", help=".edge files built for TensorRT")
    sub.add_argument("--target", required=True, metavar="BOARD", help="profile, such as jetson-orin-nano")

    sub = verb("install", _install, "compile a bundle on this device ahead of its first use, and prove it")
    sub.add_argument("bundle", metavar="BUNDLE", help=".edge file or zoo name")

    sub = verb("conformance", _conformance, "run the contract suite on a target, one's own or ours")
    sub.add_argument("target", metavar="NAME", help="target to examine: ours, or an entry point's")
    sub.add_argument(
        "--precision",
        action="append",
        metavar="P",
        help="examine this one only (may be repeated; default: all that the target makes)",
    )

    sub = verb(
        "wheelhouse", _wheelhouse, "collect the wheels that a board without internet needs, with hashes"
    )
    sub.add_argument("--profile", required=True, metavar="NAME", help="board, or its .toml file")
    sub.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to make")
    sub.add_argument(
        "--extra", metavar="NAME", help="engine's extra of face-edge-sdk (default: the profile's)"
    )
    sub.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="X.Y",
        help="version on the board (may be repeated; default: the profile's)",
    )
    sub.add_argument(
        "--wheel", type=Path, metavar="FILE", help="of face-edge-sdk (default: built from the checkout)"
    )


def _check(args: argparse.Namespace) -> int:
    profile = read_profile(args.target)
    checker = _checker(profile)
    reports = {}
    for name in args.bundle:
        bundle = Bundle.open(name)
        admit(bundle)
        with progress() as stage:
            reports[name] = checker.check(bundle, profile, progress=stage)
    if args.json:
        print_json(
            [
                {"bundle": name, "target": profile.name, "passed": r.passed, **to_plain(r)}
                for name, r in reports.items()
            ]
        )
    else:
        for name, report in reports.items():
            print(
                f"{name}, {report.precision}, for {profile.name}: {'passed' if report.passed else 'FAILED'}"
            )
            print(report)
    return 0 if all(report.passed for report in reports.values()) else 1


def _checker(profile: Profile) -> Any:
    """The module ``check`` of a board's engine: of the folders of engines, those that have one can be checked.

    Raises:
        InputError: the board's engine has none.
    """
    here = Path(__file__).parent
    engines = sorted(path.parent.name for path in here.glob("*/check.py"))
    if profile.engine not in engines:
        raise InputError(
            f"{profile.name} runs {profile.engine}: there is nothing to check without the board",
            remedy=f"name a board that runs {' or '.join(engines)}, such as jetson-orin-nano",
        )
    return importlib.import_module(f"{PACKAGE}.{profile.engine}.check")


def _install(args: argparse.Namespace) -> int:
    found = find_bundle(args.bundle)
    bundle, path = found.bundle, found.path
    target = bundle.manifest.target
    cache = default_cache()
    if cache is None:
        raise LoadFailed(
            "the engine cache is switched off, or this user has no home folder: nothing can be installed",
            remedy=f"set {FOLDER_VARIABLE} to a folder",
        )
    started = time.monotonic()
    with progress() as stage, load(bundle, options=LoadOptions(cache=cache, progress=stage)) as model:
        built, cached = model.session.built, model.session.cached
        device = model.info.device
    seconds = time.monotonic() - started
    if cached is False:
        raise LoadFailed(
            f"it was compiled and proven in {seconds:.0f} s, but could not be kept in {cache.folder}"
            + ("" if cache.problem is None else f": {cache.problem}"),
            remedy=f"make room there, or set {FOLDER_VARIABLE} to a folder of this user",
        )
    if args.json:
        said = {"bundle": str(path), "target": target, "device": device, "seconds": round(seconds, 3)}
        print_json({**said, "built": built, "cache": str(cache.folder)})
        return 0
    how = {True: "compiled", False: "found in the cache", None: f"loaded by {target}"}[built]
    print(
        f"{path}: {how} and proven on {device} by its golden vectors in {seconds:.1f} s; cache: {cache.folder}"
    )
    return 0


def _conformance(args: argparse.Namespace) -> int:
    from edge_targets import conformance

    known = conformance.PRECISIONS
    asked: Any = tuple(args.precision or known)
    if unknown := [p for p in asked if p not in known]:
        raise InputError(f"no precision {unknown[0]!r}", remedy=f"use one of {', '.join(known)}")
    with progress() as stage:
        outcomes = conformance.examine(args.target, asked, progress=stage)
    failed = [o for o in outcomes if o.passed is False]
    ran = [o for o in outcomes if o.passed is not None]
    conforms = bool(ran) and not failed
    if args.json:
        print_json({"target": args.target, "conforms": conforms, "outcomes": [to_plain(o) for o in outcomes]})
        return 0 if conforms else 1
    words = {True: "pass", False: "FAIL", None: "not made"}
    for outcome in outcomes:
        print(f"{outcome.precision:<12}{words[outcome.passed]:<10}{outcome.check.replace('_', ' ')}")
        if outcome.problem:
            print(f"{'':<22}{outcome.problem}")
    verdict = "conforms" if conforms else "does not conform"
    print(f"{args.target} {verdict}: {len(ran) - len(failed)} of {len(ran)} checks passed")
    return 0 if conforms else 1


def _wheelhouse(args: argparse.Namespace) -> int:
    from edge_targets.wheelhouse import collect

    profile = read_profile(args.profile)
    with progress() as stage:
        houses = collect(
            profile, args.output, extra=args.extra, pythons=args.python, wheel=args.wheel, progress=stage
        )
    if args.json:
        plain = [{**to_plain(h), "requirements": str(h.requirements)} for h in houses]
        print_json({"folder": str(args.output), "profile": profile.name, "pythons": plain})
        return 0
    for house in houses:
        size = sum(w.bytes for w in house.wheels) / 1e6
        print(f"{profile.title}, Python {house.python}: {len(house.wheels)} wheels, {size:.0f} MB")
        print(f"  {house.install}")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from edge_targets import doctor

    profile = None if args.profile is None else read_profile(args.profile)
    with progress() as stage:
        found = doctor.examine(profile, progress=stage)
    # Without a profile asked for it tells what there is; with one, whether that can run.
    code = 3 if args.profile is not None and not found.runs else 0
    if args.json:
        print_json(to_plain(found))
        return code
    for name, value in found.facts.items():
        print(f"{name:<13}{value}")
    for tried in found.engines:
        state = {True: "works", False: "does not work", None: "not tried"}[tried.works]
        state = "not installed" if tried.version is None else state
        where = "" if tried.device is None else f" on {tried.device}, {tried.bundle}"
        print(f"{tried.engine:<13}{state:<15}{tried.version or ''}{where}")
        for option in found.options[tried.engine]:
            print(f"{'':<13}option {option.name}: {option.type}, {option.default} unless asked for")
    for finding in found.findings:
        print(f"{finding.level}: {finding.what}\n  {finding.remedy}")
    print(f"profile {found.profile or 'none'}: {'runs here' if found.runs else 'cannot run here'}")
    return code
