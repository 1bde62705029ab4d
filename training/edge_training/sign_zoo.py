"""Sign the zoo's bundles with the project's key, in their files; nothing else of them changes.

    python -m edge_training.sign_zoo --key FILE.key --release N

The last step of a release, done where the private key is. The public half must be in ``edge_sdk/zoo/keys/`` already.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_sdk import zoo
from edge_sdk.bundle import Bundle
from edge_sdk.errors import ChecksumMismatch, EdgeError, InputError
from edge_sdk.signing import PrivateKey


def sign_zoo(key: PrivateKey, release: int, comment: str = "") -> list[Path]:
    """Sign every bundle that the index names.

    Args:
        key: whose public half lies in ``zoo.KEYS``.
        release: number of this release, higher than that of every one before.
        comment: one line that is signed too.

    Returns:
        The files, in the index's order.

    Raises:
        InputError: the public half is not there, or such a release or comment cannot be signed, or the release is lower
            than the one that a bundle carries already.
        BundleError: a bundle is damaged or not the one that the index names. Nothing is written unless all can be.
    """
    if key.public not in zoo.signing_keys():
        raise InputError(
            f"{zoo.KEYS} has no public key {key.public.id}: nobody could check these signatures",
            remedy=f"copy the .pub file beside the private key into {zoo.KEYS}",
        )
    signed = {}
    for row in json.loads(zoo.INDEX.read_text(encoding="utf-8"))["bundles"]:
        path = zoo.BUNDLES / row["file"]
        bundle = Bundle.open(path)
        if bundle.sha256 != row["sha256"]:
            raise ChecksumMismatch(
                f"{path} is not the bundle that the zoo's index names", remedy="make the release again"
            )
        if (last := max((s.release for s in bundle.signatures), default=0)) > release:
            raise InputError(
                f"{path} is signed as release {last} already, {release} was asked for",
                remedy="give a higher release",
            )
        signature = key.sign(bundle.manifest.to_bytes(), release=release, comment=comment)
        signed[path] = bundle.signed(signature)
    for path, bundle in signed.items():
        bundle.write(path)
    return list(signed)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; exit codes are those of ``edge-sdk``."""
    parser = argparse.ArgumentParser(prog="edge_training.sign_zoo", description=__doc__.split("\n")[0])
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help=".key file (edge-sdk keygen)")
    parser.add_argument(
        "--release", type=int, required=True, metavar="N", help="higher than every one before"
    )
    parser.add_argument("--comment", default="", metavar="TEXT", help="one line that is signed too")
    args = parser.parse_args(argv)
    try:
        for path in sign_zoo(PrivateKey.read(args.key), args.release, args.comment):
            print(f"{path.name}: signed as release {args.release}")
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
