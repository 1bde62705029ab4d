"""Verbs that make keys and signatures, and what the other verbs say of them; ``docs/signing.md`` is the text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_sdk.bundle import Bundle
from edge_sdk.cli_common import Verb, print_json
from edge_sdk.errors import SignatureInvalid
from edge_sdk.signing import PrivateKey
from edge_sdk.trust import Policy, Trust, admit, check_fit, known_keys


def register(verb: Verb) -> None:
    """Add the verbs."""
    sub = verb("keygen", _keygen, "make a key pair that signs bundles")
    sub.add_argument("name", metavar="NAME", help="writes NAME.key, which is secret, and NAME.pub")

    sub = verb("sign", _sign, "sign a bundle, in its file")
    sub.add_argument("bundle", type=Path, metavar="BUNDLE", help=".edge file")
    sub.add_argument("--key", type=Path, required=True, metavar="PRIVATE", help=".key file (edge-sdk keygen)")
    sub.add_argument(
        "--release",
        type=int,
        metavar="N",
        help="number of this bundle among those of its model, rising, by which policies refuse older ones "
        "(default: that of its other signatures, or 0)",
    )
    sub.add_argument("--comment", default="", metavar="TEXT", help="one line that is signed too")


def trust_options(sub: argparse.ArgumentParser) -> None:
    """Add the options by which a user asks for a signature."""
    sub.add_argument(
        "--key",
        type=Path,
        action="append",
        metavar="PUBLIC",
        help=".pub file: refuse the bundle unless this key signed it (may be repeated: one of them)",
    )
    sub.add_argument(
        "--policy", type=Path, metavar="FILE", help="policy file that must admit the bundle, too"
    )


def check_asked(args: argparse.Namespace, bundle: Bundle) -> tuple[str, ...]:
    """Hold a bundle against the device's policy and what :func:`trust_options` has asked; names of the signers.

    Raises:
        SignatureInvalid: it is refused, or a signature in it does not fit it.
        InputError: a key or policy cannot be read.
    """
    check_fit(bundle)
    asked: list[Trust | None] = [args.key] if args.key else []
    asked += [Policy.read(args.policy)] if args.policy else []
    return tuple({key.id: key.shown for trust in asked or [None] for key in admit(bundle, trust)}.values())


def signature_rows(bundle: Bundle) -> list[tuple[str, str]]:
    """Rows of ``inspect``: who signed, whether that fits, and what the policies of this device say."""
    rows = []
    for found in signatures_shown(bundle):
        who = f"{found['name']} ({found['key'][:16]})" if found["name"] else f"unknown key {found['key']}"
        fits = "fits" if found["fits"] else "DOES NOT FIT this bundle"
        comment = f", {found['comment']}" if found["comment"] else ""
        rows.append(("signed by", f"{who}, release {found['release']}: {fits}{comment}"))
    try:
        signers = admit(bundle)
        trusted = "by " + ", ".join(k.shown for k in signers) if signers else "no policy asks who signed"
    except SignatureInvalid as error:
        trusted = f"REFUSED: {error.message}"
    return [*(rows or [("signed by", "nobody")]), ("trusted here", trusted)]


def signatures_shown(bundle: Bundle) -> list[dict[str, Any]]:
    """The same for a program: one object per signature."""
    names, manifest = known_keys(), bundle.manifest.to_bytes()
    return [
        {
            "key": s.key,
            "name": names.get(s.key),
            "algorithm": s.algorithm,
            "release": s.release,
            "comment": s.comment,
            "fits": s.fits(manifest),
        }
        for s in bundle.signatures
    ]


def _keygen(args: argparse.Namespace) -> int:
    public = PrivateKey.generate().write(args.name)
    if args.json:
        print_json({"private": f"{args.name}.key", "public": f"{args.name}.pub", "key": public.id})
        return 0
    print(
        f"{args.name}.key  private: whoever has it signs in your name; keep it off devices and repositories"
    )
    print(f"{args.name}.pub  public: for those who check")
    print(f"{public.id}  the same, for a policy")
    return 0


def _sign(args: argparse.Namespace) -> int:
    key = PrivateKey.read(args.key)
    bundle = Bundle.open(args.bundle)
    release = args.release
    if release is None:
        release = max((s.release for s in bundle.signatures), default=0)
    signature = key.sign(bundle.manifest.to_bytes(), release=release, comment=args.comment)
    bundle.signed(signature).write(args.bundle)
    waiver = bundle.manifest.gate.waiver
    if args.json:
        print_json(
            {
                "bundle": str(args.bundle),
                "sha256": bundle.sha256,
                "key": signature.key,
                "release": release,
                "waiver": waiver,
            }
        )
        return 0
    print(f"{args.bundle}: {bundle.manifest.spec.name}, release {release}, signed by {key.public.shown}")
    if waiver is not None:
        print(f"  it did not pass its accuracy gate; waived: {waiver}")
    return 0
